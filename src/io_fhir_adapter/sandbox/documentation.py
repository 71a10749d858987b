"""What the departments write about a treatment beside its codes, as unevenly as they do.

Chance comes from each resource's own id, so that documenting more changes nothing else of the hospital.
"""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["document_condition", "document_procedure"]

_SNOMED = "http://snomed.info/sct"
_INTENT = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-procedure-intent"
_CURATIVE, _PALLIATIVE = "373808002", "363676003"
_COMPLETE, _PARTIAL, _FAILED = "385669000", "385670004", "385671000"
_BLEEDING = "131148009"
_STAGES = ("258215001", "258219007", "258224005", "258228008")
_FOLLOW_UP = "183452005"
_ORDERS = "http://sandbox.example/orders"


def _chance(resource: dict[str, Any], what: str) -> float:
    digest = hashlib.sha256(f"{what} {resource['resourceType']}/{resource['id']}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _concept(code: str) -> dict[str, Any]:
    return {"coding": [{"system": _SNOMED, "code": code}]}


def _elsewhere(resource_type: str, value: str) -> dict[str, Any]:
    """A reference to what another system keeps."""
    return {"type": resource_type, "identifier": {"system": f"{_ORDERS}/{resource_type.lower()}", "value": value}}


def document_procedure(resource: dict[str, Any]) -> None:
    """Adds referral, intent, device, outcome, complication and further plan to a treatment, each at times."""
    outcome = _chance(resource, "outcome")
    if outcome < 0.96:
        resource["outcome"] = _concept(_FAILED if outcome < 0.02 else _PARTIAL if outcome < 0.1 else _COMPLETE)
    intent = _chance(resource, "intent")
    if intent < 0.92:
        value = _concept(_CURATIVE if intent < 0.52 else _PALLIATIVE)
        resource.setdefault("extension", []).append({"url": _INTENT, "valueCodeableConcept": value})
    if _chance(resource, "referral") < 0.96:
        resource["basedOn"] = [_elsewhere("ServiceRequest", f"ord-{resource['id']}")]
    if _chance(resource, "complication") < 0.08:
        resource["complication"] = [_concept(_BLEEDING)]
    if _chance(resource, "plan") < 0.85:
        resource["followUp"] = [_concept(_FOLLOW_UP)]
    if _chance(resource, "device") < 0.95:
        resource["usedReference"] = [_elsewhere("Device", f"dev-{int(_chance(resource, 'which') * 40):02d}")]


def document_condition(resource: dict[str, Any]) -> None:
    """Adds a stage to a tumour's Condition, at times."""
    stage = _chance(resource, "stage")
    if stage < 0.5:
        resource["stage"] = [{"summary": _concept(_STAGES[int(stage * 8)])}]
