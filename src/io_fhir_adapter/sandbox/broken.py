"""Resources that no one should send and that hospitals send all the same.

All of them are well-formed JSON, so that a page that holds one can still be read; what is wrong is inside.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from io_fhir_adapter.sandbox.people import Canaries, safety

__all__ = ["BrokenResource", "broken_resources"]

BrokenResource = tuple[str, str, str]
"""Resource type, reason, raw JSON text."""

_FUTURE = "2093-05-17T09:30:00+02:00"


def broken_resources(patient: str, canaries: Canaries, updated: str) -> list[BrokenResource]:
    """About forty broken resources.

    Args:
        patient: Logical id of the patient whom most of them name.
        canaries: Source of personal strings; some broken resources hold one.
        updated: ``meta.lastUpdated``.
    """
    made: list[BrokenResource] = []
    for resource_type, base in _bases(patient, updated).items():
        for reason, repeat, spoil in _FAULTS[resource_type]:
            for _ in range(repeat):
                resource = copy.deepcopy(base)
                resource["id"] = f"bad-{len(made) + 1:02d}"
                resource["meta"] = {"versionId": "1", "lastUpdated": updated, **safety()}
                if len(made) % 4 == 0:
                    resource["note"] = [{"text": f"Broken for {canaries.token()}"}]
                spoil(resource)
                made.append((resource_type, reason, json.dumps(resource, ensure_ascii=False)))
    return made


def _bases(patient: str, updated: str) -> dict[str, dict[str, Any]]:
    subject = {"reference": f"Patient/{patient}"}
    day = updated[:10]
    ops = {"system": "http://fhir.de/CodeSystem/bfarm/ops", "version": day[:4], "code": "5-501.a3"}
    icd = {"system": "http://fhir.de/CodeSystem/bfarm/icd-10-gm", "version": day[:4], "code": "C22.0"}
    return {
        "Procedure": {
            "resourceType": "Procedure",
            "status": "completed",
            "code": {"coding": [ops]},
            "subject": subject,
            "performedDateTime": f"{day[:4]}-02-03",
            "reasonCode": [{"coding": [icd]}],
        },
        "Condition": {"resourceType": "Condition", "code": {"coding": [icd]}, "subject": subject},
        "Encounter": {
            "resourceType": "Encounter",
            "status": "finished",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            "subject": subject,
        },
        "Patient": {"resourceType": "Patient", "active": True, "birthDate": "1950-01-01"},
    }


def _put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(resource: dict[str, Any]) -> None:
        resource[name] = value

    return spoil


def _drop(*names: str) -> Callable[[dict[str, Any]], None]:
    def spoil(resource: dict[str, Any]) -> None:
        for name in names:
            resource.pop(name, None)

    return spoil


def _future(resource: dict[str, Any]) -> None:
    resource["performedDateTime"] = _FUTURE


_FAULTS: dict[str, tuple[tuple[str, int, Callable[[dict[str, Any]], None]], ...]] = {
    "Procedure": (
        ("no subject", 5, _drop("subject")),
        ("no id", 3, _drop("id")),
        ("future date", 3, _future),
        ("wrong type of status", 3, _put("status", 1)),
        ("wrong type of code", 4, _put("code", "5-501.a3")),
        ("wrong type of coding", 2, _put("code", {"coding": {"code": "5-501.a3"}})),
        ("wrong type of subject", 3, _put("subject", ["Patient/1"])),
        ("wrong type of date", 2, _put("performedDateTime", {"value": "2025"})),
        ("unreadable date", 3, _put("performedDateTime", "31.12.2025 10 Uhr")),
    ),
    "Condition": (("no subject", 2, _drop("subject")), ("wrong type of code", 2, _put("code", [1, 2]))),
    "Encounter": (
        ("wrong type of period", 2, _put("period", "2025")),
        ("wrong type of diagnosis", 2, _put("diagnosis", {"condition": 7})),
    ),
    "Patient": (("wrong type of name", 2, _put("name", "nobody")), ("wrong type of link", 2, _put("link", "other"))),
}
