"""The golden sessions: every line of sessions.yaml is a case a clinical coder would sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.model import Code, ConditionFact, EncounterFact, ProcedureFact

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "sessions.yaml").read_text(encoding="utf-8"))
SYSTEMS = {
    "ops": "http://fhir.de/CodeSystem/bfarm/ops",
    "pcs": "http://www.cms.gov/Medicare/Coding/ICD10",
    "sct": "http://snomed.info/sct",
    "cpt": "http://www.ama-assn.org/go/cpt",
    "chop": "urn:oid:2.16.756.5.30.1.126.3.1",
    "ccam": "https://smt.esante.gouv.fr/terminologie-ccam",
    "opcs": "https://fhir.hl7.org.uk/CodeSystem/OPCS-4",
    "local": "http://hospital.example/keys",
}
ICD = "http://hl7.org/fhir/sid/icd-10"
RULESET = load_ruleset()
PATIENT = "Patient/golden"


def test_there_are_enough_of_both_kinds() -> None:
    counted = [case for case in CASES if "/ counted /" in str(case["expect"])]
    refused = [case for case in CASES if "/ not-counted /" in str(case["expect"])]
    assert len(CASES) >= 120
    assert len(counted) >= 40
    assert len(refused) >= 40


def test_every_case_has_its_own_reason() -> None:
    assert len({case["why"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_session(case: dict[str, Any]) -> None:
    days = case.get("days") or [{"day": "2025-03-14", "do": case["do"], "stated": case.get("stated", "")}]
    facts = [
        ProcedureFact(
            "his",
            f"{number}-{place}",
            PATIENT,
            "completed",
            entry["day"],
            encounter=f"Encounter/{number}",
            codes=tuple(_code(text) for text in part.split(" & ")),
            reasons=tuple(Code(ICD, code) for code in entry.get("stated", "").split()),
        )
        for number, entry in enumerate(days)
        for place, part in enumerate(entry["do"].split(" + "))
    ]
    stay = str(case.get("stay", "")).split()
    conditions = [
        ConditionFact("his", code, PATIENT, (Code(ICD, code),), onset="2024-11")
        for code in [*str(case.get("on_record", "")).split(), *stay]
    ]
    encounter = EncounterFact(
        "his",
        "0",
        PATIENT,
        diagnoses=tuple((f"Condition/{code}", "", rank) for rank, code in enumerate(stay, start=1)),
    )
    decisions = decide_patient(facts, conditions, [encounter], RULESET)
    expected = case["expect"] if isinstance(case["expect"], list) else [case["expect"]]
    assert [f"{d.category} / {d.decision} / {d.reason}" for d in decisions] == expected
    also = set(str(case.get("also", "")).split())
    assert set(decisions[0].categories) == {decisions[0].category, *also}


def _code(text: str) -> Code:
    system, _, code = text.partition(":")
    return Code(SYSTEMS[system], code)
