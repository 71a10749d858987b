"""Scope: whose records decide, and what becomes of those outside or silent. All data is synthetic."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.classify.scope import Place, Scope, Standing
from io_fhir_adapter.config import ScopeConfig
from io_fhir_adapter.model import Code, Decision, EncounterFact, Mention, ProcedureFact

OPS = "http://fhir.de/CodeSystem/bfarm/ops"
ICD = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
SCT = "http://snomed.info/sct"
MWA, GUIDANCE, BIOPSY, UNKNOWN = "5-501.a3", "3-992", "1-442.0", "9-999"
Rules = list[dict[str, str]]


def scope_of(include: Rules | None = None, exclude: Rules | None = None, when_unknown: str = "review") -> Scope:
    made = Scope.of(
        ScopeConfig.model_validate({"include": include or (), "exclude": exclude or (), "when_unknown": when_unknown})
    )
    assert made is not None
    return made


@cache
def _shipped() -> Ruleset:
    return load_ruleset()


def rules(scope: Scope | None) -> Ruleset:
    """The shipped rules with that scope, without loading them again."""
    shipped = _shipped()
    made = Ruleset.__new__(Ruleset)
    made.__dict__.update(shipped.__dict__)
    made.scope = scope
    return made


def procedure(name: str = "p", code: str = MWA, encounter: str = "", part_of: str = "", **said: str) -> ProcedureFact:
    """``location="Location/1"``; several values are parted by a space, and ``actor`` is performer.actor."""
    elements = {"actor": "performer.actor", "behalf": "performer.onBehalfOf", "function": "performer.function"}
    return ProcedureFact(
        "his", name, "Patient/1", "completed", "2025-03-14",
        encounter=encounter and f"Encounter/{encounter}",
        codes=(Code(OPS, code),),
        reasons=(Code(ICD, "C22.0"),),
        part_of=(f"Procedure/{part_of}",) if part_of else (),
        mentions=_mentions({elements.get(key, key): text for key, text in said.items()}),
    )  # fmt: skip


def encounter(name: str = "e", **said: str) -> EncounterFact:
    elements = {"place": "location.location"}
    return EncounterFact(
        "his", name, "Patient/1", mentions=_mentions({elements.get(key, key): text for key, text in said.items()})
    )


def _mentions(said: dict[str, str]) -> tuple[Mention, ...]:
    return tuple(sorted(Mention(element, value) for element, text in said.items() for value in text.split()))


def stands(scope: Scope, fact: ProcedureFact, stay: EncounterFact | None = None) -> Place:
    return scope.standing(fact, stay).place


def decide(scope: Scope | None, *facts: ProcedureFact, stays: tuple[EncounterFact, ...] = ()) -> list[Decision]:
    return decide_patient(facts, (), stays, rules(scope))


def one(scope: Scope | None, *facts: ProcedureFact, **more: Any) -> Decision:
    (decision,) = decide(scope, *facts, **more)
    return decision


@pytest.mark.parametrize(
    ("rule", "said", "place"),
    [
        ({"location": "Location/1"}, {"location": "Location/1"}, "inside"),
        ({"location": "https://his.example/fhir/Location/1"}, {"location": "Location/1"}, "inside"),
        ({"location": "Location/1"}, {"location": "Location/2"}, "outside"),
        ({"location": "Location/1"}, {"location": "urn:rooms|1"}, "unknown"),
        ({"location": "urn:rooms|1"}, {"location": "urn:rooms|2"}, "outside"),
        ({"location": "urn:rooms|1"}, {"location": "Location/7 urn:rooms|1"}, "inside"),
        ({"location": "Location/1"}, {}, "unknown"),
        ({"organization": "Organization/1"}, {"behalf": "Organization/1", "actor": "Practitioner/1"}, "inside"),
        ({"organization": "Organization/1"}, {"actor": "Organization/1"}, "inside"),
        ({"organization": "Organization/1"}, {"actor": "Organization/2"}, "outside"),
        ({"organization": "Organization/1"}, {"actor": "Practitioner/1"}, "unknown"),
        ({"performer": "Practitioner/1"}, {"actor": "Practitioner/2 Practitioner/1"}, "inside"),
        ({"performer": "Practitioner/1"}, {"actor": "PractitionerRole/1"}, "unknown"),
        ({"practitioner_role": "PractitionerRole/1"}, {"actor": "PractitionerRole/2"}, "outside"),
        ({"practitioner_role": f"{SCT}|1"}, {"actor": "Practitioner/2", "function": f"{SCT}|1"}, "inside"),
        ({"service_category": f"{SCT}|1"}, {"category": f"{SCT}|1"}, "inside"),
        ({"service_category": f"{SCT}|1"}, {"category": f"{SCT}|2"}, "outside"),
        ({"service_category": f"{SCT}|1"}, {"category": "urn:keys|1"}, "unknown"),
    ],
)
def test_what_a_procedure_says_is_compared_with_what_is_asked(
    rule: dict[str, str], said: dict[str, str], place: Place
) -> None:
    assert stands(scope_of([rule]), procedure(**said)) == place
    opposite: dict[Place, Place] = {"inside": "outside", "outside": "inside", "unknown": "unknown"}
    assert stands(scope_of(None, [rule]), procedure(**said)) == opposite[place]


def test_the_encounter_speaks_where_the_procedure_is_silent_and_only_there() -> None:
    scope = scope_of([{"location": "Location/suite"}])
    assert stands(scope, procedure(), encounter(place="Location/suite Location/ward")) == "inside"
    assert stands(scope, procedure(), encounter(place="Location/ward")) == "outside"
    assert stands(scope, procedure(location="Location/theatre"), encounter(place="Location/suite")) == "outside"
    assert stands(scope, procedure(location="urn:rooms|9"), encounter(place="Location/suite")) == "unknown"
    department = scope_of([{"organization": "Organization/ir"}])
    assert (
        stands(department, procedure(actor="Practitioner/1"), encounter(serviceProvider="Organization/ir")) == "inside"
    )
    assert stands(
        scope_of([{"performer": "Practitioner/1"}]), procedure(), encounter(participant="Practitioner/1")
    ) == ("inside")


def test_category_and_service_type_do_not_stand_in_for_each_other() -> None:
    scope = scope_of([{"service_category": f"{SCT}|radiology"}])
    surgical = procedure(category=f"{SCT}|surgical")
    assert stands(scope, surgical, encounter(serviceType=f"{SCT}|radiology")) == "inside"
    assert stands(scope, surgical, encounter(serviceType=f"{SCT}|surgery")) == "outside"


def test_exclude_wins_and_several_keys_of_a_rule_must_all_hold() -> None:
    ours, theirs = {"location": "Location/1"}, {"location": "Location/1", "performer": "Practitioner/9"}
    scope = scope_of([ours], [theirs])
    assert stands(scope, procedure(location="Location/1", actor="Practitioner/1")) == "inside"
    assert stands(scope, procedure(location="Location/1", actor="Practitioner/9")) == "outside"
    assert stands(scope, procedure(location="Location/1")) == "unknown"
    assert stands(scope, procedure(location="Location/2")) == "outside"
    assert stands(scope_of([ours], [ours]), procedure(location="Location/1")) == "outside"


@pytest.mark.parametrize(
    ("when_unknown", "decision", "reason"),
    [
        ("review", "review", "scope-unknown"),
        ("include", "counted", "counted"),
        ("exclude", "not-counted", "out-of-scope"),
    ],
)
def test_a_silent_record_is_for_review_or_what_the_site_says(when_unknown: str, decision: str, reason: str) -> None:
    found = one(scope_of([{"location": "Location/1"}], when_unknown=when_unknown), procedure())
    assert (found.category, found.decision, found.reason) == ("ablation-mwa", decision, reason)


def test_a_silent_record_that_would_not_count_keeps_its_reason() -> None:
    found = one(scope_of([{"location": "Location/1"}]), procedure(code=BIOPSY))
    assert (found.decision, found.reason) == ("not-counted", "category-not-counted")


def test_outside_is_not_counted_and_the_trail_names_rule_and_element_and_nobody() -> None:
    scope = scope_of([{"location": "Location/1"}], [{"performer": "Practitioner/muster"}])
    found = one(scope, procedure(location="Location/1", actor="Practitioner/muster"))
    assert (found.category, found.decision, found.reason) == ("ablation-mwa", "not-counted", "out-of-scope")
    (step,) = [step for step in found.trail if step.step == "scope"]
    assert step.rule == "scope.exclude[0]"
    assert "Procedure.performer.actor" in step.text
    assert "muster" not in repr(found.trail)
    assert found.trail[-1].text == "not-counted: out-of-scope; without the scope counted: counted"
    by_stay = one(scope, procedure(encounter="e", actor="Practitioner/1"), stays=(encounter(place="Location/2"),))
    (step,) = [step for step in by_stay.trail if step.step == "scope"]
    assert (step.rule, by_stay.reason) == ("scope.include", "out-of-scope")
    assert "Encounter.location.location" in step.text


def test_only_what_is_inside_decides_a_session_that_lies_partly_outside() -> None:
    scope = scope_of([{"location": "Location/1"}])
    ours, theirs = procedure("ours", location="Location/1"), procedure("theirs", code=BIOPSY, location="Location/2")
    found = one(scope, ours, theirs)
    assert (found.decision, found.procedures) == ("counted", ("Procedure/ours",))
    assert "biopsy" not in found.categories
    assert [step.rule for step in found.trail if step.step == "scope"] == ["scope.include[0]", "scope.include"]
    assert one(None, ours, theirs).procedures == ("Procedure/ours", "Procedure/theirs")


def test_a_treatment_outside_is_not_rescued_by_an_add_on_inside() -> None:
    scope = scope_of([{"location": "Location/1"}])
    found = one(scope, procedure("a", location="Location/2"), procedure("b", code=GUIDANCE, location="Location/1"))
    assert (found.category, found.reason) == ("ablation-mwa", "out-of-scope")
    assert found.procedures == ("Procedure/a", "Procedure/b")


def test_a_silent_part_stands_where_its_parent_stands() -> None:
    scope = scope_of([{"location": "Location/1"}])
    for place, reason in (("Location/1", "counted"), ("Location/2", "out-of-scope")):
        found = one(scope, procedure("a", code=GUIDANCE, location=place), procedure("b", part_of="a"))
        assert (found.reason, found.procedures) == (reason, ("Procedure/a", "Procedure/b"))


def test_a_silent_treatment_beside_something_inside_is_for_review() -> None:
    scope = scope_of([{"location": "Location/1"}])
    found = one(scope, procedure("a", code=GUIDANCE, location="Location/1"), procedure("b"))
    assert (found.decision, found.reason) == ("review", "scope-unknown")


def test_without_rules_there_is_no_scope_and_the_digest_stays_as_it_was() -> None:
    assert Scope.of(ScopeConfig()) is None
    scope = scope_of([{"location": "Location/1"}])
    assert load_ruleset(scope=scope).digest != _shipped().digest
    assert scope.digest != scope_of(None, [{"location": "Location/1"}]).digest
    assert scope.digest != scope_of([{"location": "Location/1"}], when_unknown="include").digest


VALUES = {
    "location": ["Location/1", "Location/2", "urn:rooms|1", "urn:rooms|2"],
    "organization": ["Organization/1", "Organization/2"],
    "performer": ["Practitioner/1", "PractitionerRole/1", "Organization/1"],
    "service_category": [f"{SCT}|1", f"{SCT}|2", "urn:keys|1"],
}
rule = st.one_of(*(st.fixed_dictionaries({key: st.sampled_from(values)}) for key, values in VALUES.items()))
rule_lists = st.lists(rule, max_size=4)
said = st.fixed_dictionaries(
    {},
    optional={
        "location": st.sampled_from(VALUES["location"]),
        "behalf": st.sampled_from(VALUES["organization"]),
        "actor": st.sampled_from(VALUES["performer"]),
        "category": st.sampled_from(VALUES["service_category"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(rule_lists, rule_lists, st.lists(said, min_size=1, max_size=4), st.integers())
def test_the_order_of_rules_and_of_records_changes_nothing(
    include: Rules, exclude: Rules, records: list[dict[str, str]], seed: int
) -> None:
    facts = [procedure(f"p{number}", **record) for number, record in enumerate(records)]
    shuffled = [list(part) for part in (include, exclude, facts)]
    for part in shuffled:
        random.Random(seed).shuffle(part)
    first = Scope.of(ScopeConfig.model_validate({"include": include, "exclude": exclude}))
    second = Scope.of(ScopeConfig.model_validate({"include": shuffled[0], "exclude": shuffled[1]}))
    outcomes = [
        [(each.decision, each.reason, each.category, each.procedures) for each in decide(scope, *given_facts)]
        for scope, given_facts in ((first, facts), (second, shuffled[2]))
    ]
    assert outcomes[0] == outcomes[1]
    if first is not None and second is not None:
        assert first.digest == second.digest


@settings(max_examples=100, deadline=None)
@given(rule_lists, rule_lists, st.lists(said, min_size=1, max_size=3), said)
def test_a_scope_only_takes_away_and_an_unrelated_procedure_changes_nothing(
    include: Rules, exclude: Rules, records: list[dict[str, str]], unrelated: dict[str, str]
) -> None:
    scope = Scope.of(ScopeConfig.model_validate({"include": include, "exclude": exclude}))
    facts = [procedure(f"p{number}", **record) for number, record in enumerate(records)]
    found = one(scope, *facts)
    rank = {"counted": 0, "review": 1, "not-counted": 2}
    assert rank[found.decision] >= rank[one(None, *facts).decision]
    assert one(scope, *facts, procedure("x", code=UNKNOWN, **unrelated)) == found


def test_standing_is_a_value() -> None:
    scope = scope_of([{"location": "Location/1"}])
    first = scope.standing(procedure(location="Location/1"), None)
    assert isinstance(first, Standing)
    assert first == scope.standing(procedure(location="Location/1"), None)
