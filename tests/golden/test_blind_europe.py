"""Golden codes and texts of a blind audit of OPS, CHOP, CCAM, OPCS-4 and the technique words.

Each line of blind_europe.csv was written from the published titles before our tables were looked at; where title and
table disagreed, the title was read again and one of the two was corrected. Codes are written as servers write them:
with and without dots and the Z, with sides, activities and extensions; the system under its aliases. `text` lines hold
a free text instead of a code.
"""

from __future__ import annotations

import csv
from collections import Counter
from itertools import cycle
from pathlib import Path

import pytest

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.model import Code, ProcedureFact

ALIASES = {
    "ops": cycle(
        [
            "http://fhir.de/CodeSystem/bfarm/ops",
            "http://fhir.de/CodeSystem/dimdi/ops",
            "https://fhir.de/CodeSystem/bfarm/ops/",
            "http://fhir.de/CodeSystem/dimdi/ops-2023",
        ]
    ),
    "chop": cycle(["urn:oid:2.16.756.5.30.1.126.3.1", "urn:oid:2.16.756.5.30.1.126.3.1.12"]),
    "ccam": cycle(["https://smt.esante.gouv.fr/terminologie-ccam", "urn:oid:1.2.250.1.215.300.1"]),
    "opcs4": cycle(["https://fhir.hl7.org.uk/CodeSystem/OPCS-4", "http://fhir.hl7.org.uk/CodeSystem/OPCS-4"]),
}
ICD = "http://hl7.org/fhir/sid/icd-10"
RULESET = load_ruleset()

with (Path(__file__).parent / "blind_europe.csv").open(encoding="utf-8", newline="") as handle:
    CASES = list(csv.DictReader(handle))
URIS = [next(ALIASES[case["system"]]) if case["system"] in ALIASES else "" for case in CASES]


def test_there_are_enough_of_both_kinds_in_every_system() -> None:
    kinds = Counter((case["system"], case["decision"] == "not-counted") for case in CASES)
    assert len(CASES) >= 600
    assert all(kinds[system, refused] >= 30 for system in ("ops", "chop", "ccam", "opcs4") for refused in (True, False))
    assert all(kinds["text", refused] >= 30 for refused in (True, False))


def test_every_case_says_why_and_stands_once() -> None:
    assert all(case["why"].strip() for case in CASES)
    assert len({(case["system"], case["code"], case["reason"]) for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("case", "uri"),
    list(zip(CASES, URIS, strict=True)),
    ids=[f"{case['system']}-{case['code']}-{case['reason'] or 'none'}" for case in CASES],
)
def test_code_or_text(case: dict[str, str], uri: str) -> None:
    fact = ProcedureFact(
        "his",
        "1",
        "Patient/golden",
        "completed",
        "2025-03-14",
        codes=(Code(uri, case["code"]),) if uri else (),
        text="" if uri else case["code"],
        reasons=(Code(ICD, case["reason"]),) if case["reason"] else (),
    )
    (found,) = decide_patient([fact], [], [], RULESET)
    assert (found.category, found.decision) == (case["category"], case["decision"]), case["why"]
