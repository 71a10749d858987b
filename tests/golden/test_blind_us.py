"""Cases drawn blind for codes of US hospitals (ICD-10-PCS, CPT/HCPCS) and SNOMED CT, single codes and whole sessions.

Each line of blind_us.csv was judged from the published code lists before our tables were opened; what the tables had
right was corrected afterwards, and what they had wrong was mended. Columns: what was recorded, the tumours and other
diseases that are merely on record (ICD-10-CM), what each session is expected to be, and why.

A Procedure reads ``system:code``, with ``!status``, ``@diagnosis`` stated as its reason, ``~diagnosis`` stated by a
Condition, and ``+days`` after the first day, where they differ. A session reads ``category:decision``; several
categories are joined by ``+``, and ``*`` leaves the category of what is refused open.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.model import Code, ConditionFact, ProcedureFact

SYSTEMS = {
    "icd10pcs": "http://www.cms.gov/Medicare/Coding/ICD10",
    "cpt": "http://www.ama-assn.org/go/cpt",
    "hcpcs": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "snomed": "http://snomed.info/sct",
}
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
PATIENT = "Patient/blind"
FIRST_DAY = date(2025, 3, 14)
RECORDED = re.compile(
    r"(?P<system>\w+):(?P<code>\w+)(!(?P<status>[a-z-]+))?(@(?P<reason>[\w.]+))?(~(?P<condition>[\w.]+))?(\+(?P<later>\d))?"
)
RULESET = load_ruleset()

with (Path(__file__).parent / "blind_us.csv").open(encoding="utf-8", newline="") as handle:
    CASES = list(csv.DictReader(handle))


def condition(name: str, code: str) -> ConditionFact:
    return ConditionFact("his", name, PATIENT, (Code(ICD, code),), clinical_status="active", recorded="2025-01-02")


def recorded(word: str, number: int) -> tuple[ProcedureFact, list[ConditionFact]]:
    """The Procedure that a word of the table stands for, and the Condition that it names as its reason."""
    found = RECORDED.fullmatch(word)
    assert found is not None, f"{word} cannot be read"
    because = [condition(f"r{number}", found["condition"])] if found["condition"] else []
    fact = ProcedureFact(
        "his",
        f"p{number}",
        PATIENT,
        found["status"] or "completed",
        (FIRST_DAY + timedelta(days=int(found["later"] or 0))).isoformat(),
        codes=(Code(SYSTEMS[found["system"]], found["code"]),),
        reasons=(Code(ICD, found["reason"]),) if found["reason"] else (),
        reason_refs=tuple(f"Condition/{reason.id}" for reason in because),
    )
    return fact, because


def test_there_are_enough_of_both_kinds_in_every_system() -> None:
    single = [case for case in CASES if " " not in case["procedures"]]
    kinds = Counter(
        (case["procedures"].partition(":")[0], case["expected"].endswith(":not-counted"))
        for case in single
        if not case["on_record"]
    )
    assert len(single) >= 700
    assert len(CASES) - len(single) >= 60
    assert all(kinds[system, refused] >= 60 for system in ("icd10pcs", "cpt", "snomed") for refused in (True, False))


def test_every_case_says_why_and_stands_once() -> None:
    assert all(case["why"].strip() for case in CASES)
    assert len({(case["procedures"], case["on_record"]) for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "case",
    CASES,
    ids=[
        "+".join(case["procedures"].split())
        + ("-beside-" + "-".join(case["on_record"].split()) if case["on_record"] else "")
        for case in CASES
    ],
)
def test_case(case: dict[str, str]) -> None:
    read = [recorded(word, number) for number, word in enumerate(case["procedures"].split())]
    conditions = [condition(f"c{number}", code) for number, code in enumerate(case["on_record"].split())]
    conditions += [because for _, reasons in read for because in reasons]
    decided = decide_patient([fact for fact, _ in read], conditions, [], RULESET)
    expected = case["expected"].split()
    assert len(decided) == len(expected), case["why"]
    for decision, wanted in zip(decided, expected, strict=True):
        categories, _, verdict = wanted.partition(":")
        assert decision.decision == verdict, case["why"]
        if categories != "*":
            assert {decision.category, *decision.categories} == set(categories.split("+")), case["why"]
