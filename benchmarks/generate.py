"""Procedures by the million for the benchmarks: synthetic, seeded, about one kilobyte each."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

__all__ = ["procedure", "write_procedures"]

_OPS = "http://fhir.de/CodeSystem/bfarm/ops"
_SNOMED = "http://snomed.info/sct"
_MILLION = 1_000_000
_IDS = (b'"prc-', b"/pat-", b"/enc-", b"/con-")  # what each id and reference begins with
_BLOCK = 1 << 20
# mostly ordinary hospital work; about one in a hundred is a code that the tables know:
# a hospital with 300 interventional-oncology sessions a year among 100,000 coded procedures, and three times as many
# look-alikes
_ORDINARY = [
    (_OPS, f"{chapter}-{number}.{place}")
    for chapter in (3, 5, 8, 9)
    for number in range(200, 260)
    for place in range(5)
]
_ORDINARY += [(_SNOMED, str(430190000 + 7 * number)) for number in range(300)]
_KNOWN = [(_OPS, "5-501.93"), (_OPS, "8-836.ka"), (_OPS, "8-541.6"), (_OPS, "5-839.a0"), (_OPS, "8-835.20")]


def procedure(rng: random.Random, number: int, patients: int) -> dict[str, Any]:
    """One synthetic Procedure of one of so many patients."""
    system, code = rng.choice(_KNOWN) if rng.random() < 0.012 else rng.choice(_ORDINARY)
    patient = rng.randrange(patients)
    day = f"{rng.choice((2024, 2025))}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    hour = rng.randrange(6, 20)
    return {
        "resourceType": "Procedure",
        "id": f"prc-{number:09d}",
        "meta": {
            "versionId": "1",
            "lastUpdated": f"{day}T{hour:02d}:30:00.000+01:00",
            "source": "https://synthetic.example/ris",
            "security": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
                    "code": "HTEST",
                    "display": "test health data",
                }
            ],
            "profile": ["https://synthetic.example/StructureDefinition/Procedure"],
        },
        "identifier": [{"system": "https://synthetic.example/sid/procedure", "value": f"{number:012d}"}],
        "status": "completed",
        "category": {"coding": [{"system": _SNOMED, "code": "387713003", "display": "synthetic category"}]},
        "code": {"coding": [{"system": system, "version": day[:4], "code": code, "display": "synthetic procedure"}]},
        "subject": {"reference": f"Patient/pat-{patient:07d}"},
        "encounter": {"reference": f"Encounter/enc-{patient:07d}-{rng.randrange(9)}"},
        "performedDateTime": f"{day}T{hour:02d}:00:00+01:00",
        "performer": [
            {"actor": {"reference": f"Practitioner/prac-{rng.randrange(400):04d}", "display": "Dr Synthetic"}}
        ],
        "reasonReference": [{"reference": f"Condition/con-{patient:07d}"}],
        "bodySite": [{"coding": [{"system": _SNOMED, "code": "10200004", "display": "synthetic site"}]}],
        "note": [{"text": "Synthetic record for measurements; nothing in it is about a person."}],
    }


def write_procedures(path: Path, number: int, seed: int = 1) -> Path:
    """Writes that many Procedures as NDJSON, unless the file is there already.

    Several millions are copies of the first one, under other ids and of other patients.
    """
    if path.exists():
        return path
    if number > _MILLION and number % _MILLION == 0:
        return _write_copies(path, number // _MILLION, seed)
    rng = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as handle:
        for index in range(number):
            handle.write(json.dumps(procedure(rng, index, max(number // 12, 1)), separators=(",", ":")) + "\n")
    part.replace(path)
    return path


def _write_copies(path: Path, copies: int, seed: int) -> Path:
    first = write_procedures(path.with_name(f"procedures-{_MILLION}.ndjson"), _MILLION, seed)
    part = path.with_suffix(".part")
    with part.open("wb") as handle:
        for copy in range(copies):
            with first.open("rb") as lines:
                while block := lines.read(_BLOCK):
                    whole = block + lines.readline()
                    for begin in _IDS:
                        whole = whole.replace(begin, begin + b"%d-" % copy)
                    handle.write(whole)
    part.replace(path)
    return path
