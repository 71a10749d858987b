"""Golden single codes: each line of codes.csv is what a clinical coder would sign, judged from the published titles.

Columns: code system, code, the stated reason (ICD-10, or none), the category, the decision, and why in one line. The
expectations come from reading the lists, not from our tables; add a line wherever a code was argued about.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.model import Code, ProcedureFact

SYSTEMS = {
    "ops": "http://fhir.de/CodeSystem/bfarm/ops",
    "icd10pcs": "http://www.cms.gov/Medicare/Coding/ICD10",
    "snomed": "http://snomed.info/sct",
    "cpt": "http://www.ama-assn.org/go/cpt",
}
ICD = "http://hl7.org/fhir/sid/icd-10"
RULESET = load_ruleset()

with (Path(__file__).parent / "codes.csv").open(encoding="utf-8", newline="") as handle:
    CASES = list(csv.DictReader(handle))


def test_there_are_enough_of_both_kinds_in_every_system() -> None:
    kinds = Counter((case["system"], case["decision"] == "not-counted") for case in CASES)
    assert len(CASES) >= 600
    assert all(kinds[system, refused] >= 40 for system in SYSTEMS for refused in (True, False))
    refused = sum(number for (_, is_refused), number in kinds.items() if is_refused)
    assert 0.4 <= refused / len(CASES) <= 0.6


def test_every_case_says_why_and_stands_once() -> None:
    assert all(case["why"].strip() for case in CASES)
    assert len({(case["system"], case["code"], case["reason"]) for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case['system']}-{case['code']}-{case['reason'] or 'none'}" for case in CASES]
)
def test_code(case: dict[str, str]) -> None:
    reasons = tuple(Code(ICD, code) for code in case["reason"].split())
    fact = ProcedureFact(
        "his",
        "1",
        "Patient/golden",
        "completed",
        "2025-03-14",
        codes=(Code(SYSTEMS[case["system"]], case["code"]),),
        reasons=reasons,
    )
    (found,) = decide_patient([fact], [], [], RULESET)
    assert (found.category, found.decision) == (case["category"], case["decision"]), case["why"]
