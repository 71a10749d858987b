"""The engine at a glance: texts that name a treatment are looked at closer, others cost nothing. Synthetic data."""

from __future__ import annotations

import io
import json
from typing import Any

from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.engine.local import Counted, classify_files, count_files
from io_fhir_adapter.pull.files import InputFile
from io_fhir_adapter.volume.count import Period

RULES = load_ruleset()
STDIN = [InputFile(None, "stdin")]
LOCAL = "http://hospital.example/keys"
OPS = "http://fhir.de/CodeSystem/bfarm/ops"


def procedures(*codes: dict[str, Any], day: str = "2025-03-14") -> io.BytesIO:
    resources = [
        {
            "resourceType": "Procedure",
            "id": f"p{number}",
            "status": "completed",
            "code": code,
            "subject": {"reference": f"Patient/{number}"},
            "performedDateTime": day,
        }
        for number, code in enumerate(codes)
    ]
    return io.BytesIO(b"".join(json.dumps(resource).encode() + b"\n" for resource in resources))


def local(display: str = "", text: str = "") -> dict[str, Any]:
    return {"coding": [{"system": LOCAL, "code": "K", "display": display}], "text": text}


CODES = (
    local("Mikrowellenablation Leber"),
    local(text="TACE bei HCC"),
    {"text": "Radioembolisation of the liver"},
    local(text="TACE geplant"),
    local(text="keine TACE"),
    local(text="Visite"),
    {"coding": [{"system": OPS, "code": "9-999"}], "text": "TACE"},
    {"coding": [{"system": OPS, "code": "8-835.23"}], "text": "TACE"},
)  # fmt: skip


def count(*codes: dict[str, Any]) -> Counted:
    return count_files(STDIN, RULES, Period.year("2025"), stdin=procedures(*codes))


def test_a_glance_and_a_closer_look_find_the_same() -> None:
    # the first of a day is looked at whole, the later ones at a glance: both orders must say the same
    for codes in (CODES, tuple(reversed(CODES))):
        volume = count(*codes).volume
        assert (volume.counted, volume.review) == (0, 3)
        assert (volume.seen.procedures, volume.seen.known_system, volume.seen.mapped) == (8, 6, 5)


def test_the_same_decisions_are_made_on_every_session() -> None:
    with classify_files(STDIN, RULES, stdin=procedures(*CODES)) as (scan, decisions):
        found = [(decision.category, decision.reason) for decision in decisions]
    assert found == [
        ("ablation-mwa", "text-only"),
        ("tace", "text-only"),
        ("tare", "text-only"),
        ("planning", "planning-only"),
        ("none", "unmapped"),
        ("none", "unmapped"),
        ("none", "no-io-code"),
        ("none", "look-alike"),
    ]
    assert {(entry.system, entry.code) for entry in scan.unmapped} == {(LOCAL, "K"), (OPS, "9-999")}
