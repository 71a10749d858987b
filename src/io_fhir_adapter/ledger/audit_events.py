"""The audit as FHIR AuditEvents (R4), for the archive that a hospital keeps its audits in.

An event names an account, a role and what was done to what, as the entry does; never a patient. Types are of DICOM's
audit vocabulary, which FHIR takes over.
"""

from __future__ import annotations

from typing import Any, Final

from io_fhir_adapter.canonical_urls import FACILITY_SYSTEM, identifier_system
from io_fhir_adapter.ledger.audit import AuditEntry

__all__ = ["audit_event"]

Json = dict[str, Any]

_DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_SOURCE_TYPE: Final = "http://terminology.hl7.org/CodeSystem/security-source-type"
_ENTRY: Final = identifier_system("audit-entity")
_ACCOUNT: Final = identifier_system("account")
_ACTIVITY: Final = ("110100", "Application Activity")
_EXPORT: Final = ("110106", "Export")
_RECORD: Final = ("110110", "Patient Record")
_SECURITY: Final = ("110113", "Security Alert")
_SIGN_IN: Final = ("110114", "User Authentication")
_SIGNING_IN: Final = ("sign-in", "sign-out", "signed in", "signed out")


def audit_event(entry: AuditEntry, facility: str) -> Json:
    """One entry as an AuditEvent.

    Args:
        entry: The entry.
        facility: The facility's code, which the source of the event is named by.
    """
    code, display = _type(entry)
    event: Json = {
        "resourceType": "AuditEvent",
        "id": f"entry-{entry.number}",
        "type": {"system": _DICOM, "code": code, "display": display},
        "action": entry.action,
        "recorded": entry.at,
        "outcome": entry.outcome,
        "agent": [
            {
                **({"role": [{"text": role} for role in entry.role.split(",")]} if entry.role else {}),
                "who": {"identifier": {"system": _ACCOUNT, "value": entry.agent}},
                "requestor": True,
            }
        ],
        "source": {
            "site": "io-fhir-adapter",
            "observer": {"type": "Organization", "identifier": {"system": FACILITY_SYSTEM, "value": facility}},
            "type": [{"system": _SOURCE_TYPE, "code": "4", "display": "Application Server"}],
        },
        "entity": [
            {
                "what": {"identifier": {"system": _ENTRY, "value": entry.entity}},
                **({"description": entry.detail} if entry.detail else {}),
                "detail": [
                    {"type": "number", "valueString": str(entry.number)},
                    {"type": "digest", "valueString": entry.digest},
                ],
            }
        ],
    }
    return event


def _type(entry: AuditEntry) -> tuple[str, str]:
    kind = entry.entity.partition("/")[0]
    if kind == "Account":
        return _SIGN_IN if entry.detail.startswith(_SIGNING_IN) or entry.action == "E" else _SECURITY
    if kind in {"Configuration", "Mappings"}:
        return _SECURITY
    if kind == "Case" and entry.action == "R":
        return _RECORD
    if "sent" in entry.detail or "downloaded" in entry.detail:
        return _EXPORT
    return _ACTIVITY
