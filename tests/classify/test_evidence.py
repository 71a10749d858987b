"""Indication evidence: levels, their order, what beats what, and what was active when."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from io_fhir_adapter.model import Code, EncounterFact

CEMENT = "ops:5-839.90"
LIVER = "ops:5-501.a3"


def stay(*diagnoses: tuple[str, str, int], name: str = "e", **more: Any) -> EncounterFact:
    return EncounterFact("his", name, "Patient/p1", diagnoses=diagnoses, **more)


def test_levels_from_the_strongest_to_the_weakest(make: Any) -> None:
    """Each level is used once the ones above it are taken away."""
    conditions = [
        make.condition("stated", "C79.5"),
        make.condition("admitted", "C90.0"),
        make.condition("known", "C41.2"),
    ]
    encounters = [stay(("Condition/admitted", "", 1))]
    facts = [make.procedure("1", CEMENT, stated="C79.5", reason_refs=("Condition/stated",), encounter="Encounter/e")]
    assert make.decide(facts, conditions, encounters)[0].indication.level == "reasonCode"
    facts = [make.procedure("1", CEMENT, reason_refs=("Condition/stated",), encounter="Encounter/e")]
    assert make.decide(facts, conditions, encounters)[0].indication.level == "reasonReference"
    facts = [make.procedure("1", CEMENT, encounter="Encounter/e")]
    found = make.decide(facts, conditions, encounters)[0].indication
    assert (found.level, found.code, found.resource) == ("encounter", "C90.0", "Condition/admitted")
    found = make.decide(facts, conditions[2:], encounters)[0].indication
    assert (found.level, found.code, found.kind, found.resource) == (
        "condition",
        "C41.2",
        "malignant",
        "Condition/known",
    )
    assert make.decide(facts)[0].indication.level == "none"


def test_a_code_that_names_the_tumour_needs_no_more_and_gives_way_to_a_diagnosis(make: Any) -> None:
    assert make.one("cpt:47382").indication.level == "code"
    named = make.one("cpt:47382", "C22.0")
    assert named.indication.code == "C22.0"
    assert any("names a tumour" in step.text for step in named.trail)


def test_a_code_that_names_the_tumour_gives_way_to_a_stated_benign_disease(make: Any) -> None:
    assert make.one("cpt:47382", "D18.03").reason == "other-disease"
    assert make.one("cpt:47382", "K66.1").decision == "counted"


def test_a_stated_disease_beats_what_is_merely_on_record(make: Any) -> None:
    decision = make.one(CEMENT, "M80.08", on_record="C79.5")
    assert (decision.reason, decision.indication.code, decision.indication.kind) == (
        "other-disease",
        "M80.08",
        "fracture",
    )


def test_a_stated_tumour_beats_a_stated_disease_in_any_order(make: Any) -> None:
    for stated in ("M80.08 C79.5", "C79.5 M80.08"):
        assert make.one(CEMENT, stated).decision == "counted"


def test_a_stated_suspicion_beats_what_is_merely_on_record(make: Any) -> None:
    assert make.one(LIVER, "D37.6", on_record="C22.0").reason == "indication-uncertain"


@pytest.mark.parametrize("symptom", ["J90", "R18", "M54.5", "R52.1", "K83.0", "I31.3"])
def test_a_symptom_neither_proves_nor_refutes(make: Any, symptom: str) -> None:
    assert make.one(LIVER, symptom, on_record="C22.0").decision == "counted"
    assert make.one(LIVER, symptom).reason == "indication-not-found"
    assert make.one(CEMENT, symptom).reason == "no-tumour-indication"


def test_a_main_diagnosis_against_it_beats_a_tumour_beside_it(make: Any) -> None:
    conditions = [make.condition("a", "M80.08"), make.condition("b", "C79.5")]
    facts = [make.procedure("1", CEMENT, encounter="Encounter/e")]
    assert (
        make.decide(facts, conditions, [stay(("Condition/a", "", 1), ("Condition/b", "", 2))])[0].reason
        == "other-disease"
    )
    assert (
        make.decide(facts, conditions, [stay(("Condition/b", "", 1), ("Condition/a", "", 2))])[0].decision == "counted"
    )


def test_a_cancer_of_another_organ_as_main_diagnosis_is_no_mere_record(make: Any) -> None:
    facts = [make.procedure("1", CEMENT, encounter="Encounter/e")]
    breast = [make.condition("a", "C50.4")]
    assert make.decide(facts, breast, [stay(("Condition/a", "", 1))])[0].decision == "counted"
    assert make.decide(facts, breast, [stay(("Condition/a", "", 2))])[0].reason == "indication-uncertain"
    assert make.decide(facts, breast)[0].reason == "indication-uncertain"


def test_the_reason_of_the_stay_is_evidence(make: Any) -> None:
    facts = [make.procedure("1", LIVER, encounter="Encounter/e")]
    assert make.decide(facts, [], [stay(reasons=make.codes("C22.0"))])[0].indication.level == "encounter"


def test_bleeding_with_a_tumour_is_for_a_person_and_without_one_another_disease(make: Any) -> None:
    assert make.one("ops:8-836.ka", "K92.2").reason == "other-disease"
    decision = make.one("ops:8-836.ka", "K92.2", on_record="C22.0")
    assert (decision.category, decision.decision, decision.indication.code) == (
        "bleeding-embolisation",
        "review",
        "C22.0",
    )


def test_bleeding_stated_for_one_procedure_says_nothing_of_another(make: Any) -> None:
    facts = [
        make.procedure("1", "ops:8-836.ka", stated="C22.0"),
        make.procedure("2", "ops:5-550.1", stated="R31 K92.2"),
    ]
    assert make.decide(facts)[0].category == "bland-embolisation"


def test_a_bleeding_stay_is_a_bleeding(make: Any) -> None:
    facts = [make.procedure("1", "pcs:04L33DZ", encounter="Encounter/e")]
    conditions = [make.condition("a", "K92.2"), make.condition("b", "C22.0")]
    (decision,) = make.decide(facts, conditions, [stay(("Condition/a", "", 1), ("Condition/b", "", 2))])
    assert (decision.category, decision.decision) == ("bleeding-embolisation", "review")


@pytest.mark.parametrize(
    ("more", "active"),
    [
        ({}, True),
        ({"onset": "2024-01-01"}, True),
        ({"onset": "2025"}, True),
        ({"onset": "2025-03"}, True),
        ({"onset": "2025-03-14"}, True),
        ({"onset": "2025-03-15"}, False),
        ({"onset": "2025-04"}, False),
        ({"onset": "2026"}, False),
        ({"recorded": "2025-03-10"}, True),
        ({"recorded": "2025-03-20"}, False),
        ({"recorded": "2025-03-20", "encounter": "Encounter/e"}, True),
        ({"recorded": "2025-03-20", "onset": "2025-01"}, True),
        ({"abated": "2025-03-14"}, True),
        ({"abated": "2025-03"}, True),
        ({"abated": "2025-03-13"}, False),
        ({"abated": "2024"}, False),
        ({"clinical_status": "active"}, True),
        ({"clinical_status": "recurrence"}, True),
        ({"clinical_status": "resolved"}, False),
        ({"clinical_status": "remission"}, False),
        ({"clinical_status": "resolved", "abated": "2025-06-01"}, True),
        ({"verification_status": "confirmed"}, True),
        ({"verification_status": "refuted"}, False),
        ({"verification_status": "entered-in-error"}, False),
    ],
)
def test_a_disease_counts_while_it_is_there(make: Any, more: dict[str, str], active: bool) -> None:
    facts = [make.procedure("1", LIVER, encounter="Encounter/e")]
    (decision,) = make.decide(facts, [make.condition("c", "C22.0", **more)])
    assert (decision.decision == "counted") is active


@pytest.mark.parametrize("status", ["provisional", "differential", "unconfirmed"])
def test_a_tumour_not_confirmed_is_for_a_person(make: Any, status: str) -> None:
    (decision,) = make.decide(make.procedures(LIVER), [make.condition("c", "C22.0", verification_status=status)])
    assert (decision.reason, decision.indication.kind) == ("indication-uncertain", "uncertain")


def test_a_refuted_condition_is_no_reason_even_where_it_is_referred_to(make: Any) -> None:
    facts = [make.procedure("1", LIVER, reason_refs=("Condition/c",), encounter="Encounter/e")]
    conditions = [make.condition("c", "C22.0", verification_status="refuted")]
    assert make.decide(facts, conditions, [stay(("Condition/c", "", 1))])[0].indication.level == "none"


def test_a_reference_that_leads_nowhere_is_no_evidence(make: Any) -> None:
    facts = [make.procedure("1", LIVER, reason_refs=("Condition/absent",), encounter="Encounter/absent")]
    assert make.decide(facts)[0].reason == "indication-not-found"


@pytest.mark.parametrize(
    ("codes", "on_record", "reason"),
    [
        ("cpt:60660", "C61", "no-tumour-indication"),
        ("cpt:60660", "C73", "counted"),
        ("cpt:60660", "C79.5", "no-tumour-indication"),
        ("ops:5-552.52", "C50.4", "indication-not-found"),
        ("ops:5-552.52", "C64", "counted"),
        ("ops:8-836.kh", "C53.9", "indication-uncertain"),
        ("ops:8-836.kh", "C79.5", "counted"),
        ("ops:8-836.k8", "C34.1", "indication-uncertain"),
        ("ops:8-836.k1", "C32.9", "indication-uncertain"),
        ("ops:8-836.ka", "C22.0", "counted"),
        ("ops:8-836.ka", "C78.7", "counted"),
        ("ops:8-836.ka", "C18.7", "indication-uncertain"),
        ("ops:8-836.kh", "C53.9 D25.9", "indication-uncertain"),
        ("ops:8-836.kh", "C50.4", "no-tumour-indication"),
        ("pcs:027V3DZ", "C34.1", "counted"),
        ("pcs:027V3DZ", "C61", "indication-uncertain"),
        ("pcs:015M3ZZ", "C25.0", "counted"),
        ("pcs:015M3ZZ", "C61", "indication-uncertain"),
        ("pcs:04L33DZ", "C18.7", "counted"),
        ("ops:5-839.90", "C79.5", "counted"),
        ("ops:5-839.90", "C78.7", "indication-uncertain"),
        ("ops:5-839.90", "C79.9", "counted"),
    ],
)
def test_the_disease_on_record_must_fit_the_place(make: Any, codes: str, on_record: str, reason: str) -> None:
    assert make.one(codes, on_record=on_record).reason == reason


def test_systems_of_diagnoses_speak_alike(make: Any) -> None:
    assert make.one(LIVER, "sct:109841003").decision == "counted"


def test_the_use_of_a_diagnosis_tells_the_main_one_where_no_rank_does(make: Any) -> None:
    conditions = [make.condition("a", "K92.2"), make.condition("b", "C22.0")]
    facts = make.procedures("ops:8-836.ka", encounter="Encounter/e")
    bled = stay(("Condition/a", "CC", 0), ("Condition/b", "CM", 0))
    (found,) = make.decide(facts, conditions, [bled])
    assert (found.category, found.decision) == ("bleeding-embolisation", "review")
    (found,) = make.decide(facts, conditions, [stay(("Condition/a", "CM", 0), ("Condition/b", "CC", 0))])
    assert (found.category, found.decision) == ("bland-embolisation", "counted")
    (found,) = make.decide(facts, conditions, [stay(("Condition/a", "CC", 2), ("Condition/b", "CC", 1))])
    assert found.decision == "counted"


@pytest.mark.parametrize(("topography", "decision"), [("C73.9", "counted"), ("C61.9", "not-counted")])
def test_a_morphology_lies_where_the_topography_beside_it_says(make: Any, topography: str, decision: str) -> None:
    system = "http://terminology.hl7.org/CodeSystem/icd-o-3"
    (fact,) = make.procedures("cpt:60660")
    stated = msgspec.structs.replace(fact, reasons=(Code(system, topography), Code(system, "8260/3")))
    (found,) = make.decide([stated])
    assert found.decision == decision
