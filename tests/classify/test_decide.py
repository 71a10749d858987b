"""Decisions: every reason code, what the trail tells, and what must never change one."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.model import Decision


@pytest.mark.parametrize(
    ("do", "stated", "decision", "reason"),
    [
        ("ops:5-501.a3", "C22.0", "counted", "counted"),
        ("ops:5-550.1", "C67.2", "review", "category-for-review"),
        ("ops:5-501.a3", "", "review", "indication-not-found"),
        ("ops:5-501.a3", "D37.6", "review", "indication-uncertain"),
        ("ops:5-073.41", "C79.7", "review", "route-not-coded"),
        ("ops:8-836.ma", "C22.0", "review", "protection-possible"),
        ("cpt:37238", "C34.1", "review", "site-for-review"),
        ("ops:5-501.a3 & ops:8-836.mj", "C22.0", "review", "conflicting-codes"),
        ("ops:5-399.5", "C18.7", "not-counted", "category-not-counted"),
        ("ops:5-839.90", "", "not-counted", "no-tumour-indication"),
        ("ops:5-839.90", "M80.08", "not-counted", "other-disease"),
        ("ops:8-835.23", "I48.0", "not-counted", "look-alike"),
        ("ops:5-501.90", "C22.0", "not-counted", "not-percutaneous"),
        ("ops:3-604", "C22.0", "not-counted", "planning-only"),
        ("ops:5-514.k3", "C25.0", "not-counted", "revision-only"),
        ("ops:5-98h.2", "C22.0", "not-counted", "add-on-only"),
        ("ops:9-999", "C22.0", "not-counted", "no-io-code"),
        ("local:X", "C22.0", "not-counted", "unmapped"),
    ],
)  # fmt: skip
def test_reason_codes(make: Any, do: str, stated: str, decision: str, reason: str) -> None:
    found = make.one(do, stated)
    assert (found.decision, found.reason) == (decision, reason)


@pytest.mark.parametrize(
    "status", ["not-done", "in-progress", "preparation", "on-hold", "stopped", "unknown", "entered-in-error"]
)
def test_only_what_was_completed_counts(make: Any, status: str) -> None:
    found = make.one("ops:5-501.a3", "C22.0", status=status)
    expected = "entered-in-error" if status == "entered-in-error" else "not-completed"
    assert (found.category, found.decision, found.reason) == ("ablation-mwa", "not-counted", expected)
    assert any(f"Procedure/x1 is {status}" in step.text for step in found.trail)


def test_what_was_not_done_adds_nothing_to_what_was(make: Any) -> None:
    facts = [
        make.procedure("1", "ops:8-836.ka", stated="C22.0"),
        make.procedure("2", "ops:8-541.6", stated="C22.0", status="not-done"),
    ]
    assert make.decide(facts)[0].category == "bland-embolisation"


def test_a_look_alike_done_does_not_hide_a_treatment_not_done(make: Any) -> None:
    facts = [
        make.procedure("1", "ops:5-501.a3", stated="C22.0", status="stopped"),
        make.procedure("2", "ops:8-835.23"),
    ]
    (found,) = make.decide(facts)
    assert (found.category, found.reason) == ("ablation-mwa", "not-completed")


@pytest.mark.parametrize("beside", ["ops:8-835.23", "ops:5-98h.2", "local:X"])
@pytest.mark.parametrize("treatment", ["ops:5-501.a3", "ops:5-514.k3", "ops:8-836.ka"])
def test_what_was_not_done_is_said_whatever_else_was_done(make: Any, treatment: str, beside: str) -> None:
    undone = make.procedure("1", treatment, stated="C22.0", status="not-done")
    (alone,) = make.decide([undone])
    assert alone.reason == "not-completed"
    found = make.decide([undone, make.procedure("2", beside)])
    assert (alone.category, "not-completed") in [(d.category, d.reason) for d in found]


def test_undated(make: Any) -> None:
    assert make.one("ops:5-501.a3", "C22.0", day="").reason == "undated"


def test_two_categories_in_one_session_count_once_and_are_both_listed(make: Any) -> None:
    found = make.one("ops:5-501.a3 + ops:8-836.ka + ops:1-442.0", "C22.0")
    assert found.decision == "counted"
    assert found.categories == ("ablation-mwa", "bland-embolisation", "biopsy")
    assert [step.text for step in found.trail if step.step == "also"] == [
        "bland-embolisation: counted",
        "biopsy: category-not-counted",
    ]


def test_the_category_that_counts_decides(make: Any) -> None:
    found = make.one("ops:5-839.90 + ops:5-550.1", "C79.5")
    assert (found.category, found.decision) == ("cementoplasty", "counted")


def test_the_trail_names_every_step(make: Any) -> None:
    found = make.one("ops:8-836.ka + ops:8-541.6", "C22.0")
    steps = {step.step for step in found.trail}
    assert steps == {"session", "code", "category", "indication", "programme", "decision"}
    assert [step.rule for step in found.trail if step.step == "programme"] == ["programme:iasios:counts.tace"]
    assert all(step.rule.startswith("codes/ops.csv:") for step in found.trail if step.step == "code")
    assert [step.rule for step in found.trail if step.step == "category"] == ["session-rules.yaml:chemoembolisation"]
    assert any(
        step.rule.startswith("indications/icd10.csv:") and "reasonCode in Procedure/x1" in step.text
        for step in found.trail
    )
    assert found.trail[-1].rule == "programme:iasios"


def test_codings_of_one_procedure_that_differ_in_the_way_in_are_for_a_person(make: Any) -> None:
    assert make.one("ops:5-501.a3 & cpt:47370", "C22.0").reason == "conflicting-codes"
    assert make.one("ops:5-501.a3 + cpt:47370", "C22.0").reason == "counted"


def test_the_trail_of_a_look_alike_names_its_row(make: Any) -> None:
    found = make.one("ops:8-835.23", "I48.0")
    assert [step.rule[:14] for step in found.trail if step.step == "code"] == ["codes/ops.csv:"]


def test_a_decision_lists_its_findings_and_procedures_in_order(make: Any) -> None:
    found = make.one("ops:8-836.ka + ops:8-541.6", "C22.0")
    assert [(item.system, item.code, item.agent) for item in found.findings] == [
        ("ops", "8-541.6", "cytostatic"),
        ("ops", "8-836.ka", "particles"),
    ]
    assert found.procedures == ("Procedure/x1", "Procedure/x2")


def test_another_programme_changes_what_counts_and_nothing_else(make: Any) -> None:
    iasios = load_programme("iasios")
    strict = iasios.model_copy(update={"id": "strict", "counts": {**iasios.counts, "tace": "no", "urinary": "yes"}})
    ruleset = load_ruleset(strict)
    for do, stated, category, decision in (
        ("ops:8-836.ka + ops:8-541.6", "C22.0", "tace", "not-counted"),
        ("ops:5-550.1", "C67.2", "urinary", "counted"),
    ):
        (found,) = decide_patient(make.procedures(do, stated=stated), [], [], ruleset)
        assert (found.category, found.decision) == (category, decision)
    assert ruleset.digest != make.ruleset.digest


POOL = (
    "ops:8-836.ka", "ops:8-541.6", "ops:8-836.ma", "ops:8-530.a5", "ops:3-604", "ops:3-708.00", "ops:8-83b.10",
    "ops:5-501.a3", "pcs:0F503ZZ", "ops:5-839.90", "ops:5-98h.2", "ops:5-514.k3", "ops:5-501.90", "ops:5-550.1",
    "ops:1-442.0", "sct:609232008",
)  # fmt: skip
UNRELATED = ("local:X", "ops:9-999", "ops:8-835.23", "sct:24998001", "ops:5-830.2", "cpt:19105")
DAYS = ("2025-03-14", "2025-03-15", "2025-04-10", "2025-03", "")
STATED = ("", "C22.0", "C79.5", "M80.08", "K92.2", "J90", "D37.6")


@st.composite
def patients(draw: Any) -> list[dict[str, str]]:
    return draw(  # type: ignore[no-any-return]
        st.lists(
            st.fixed_dictionaries(
                {
                    "codes": st.sampled_from(POOL),
                    "day": st.sampled_from(DAYS),
                    "stated": st.sampled_from(STATED),
                    "origin": st.sampled_from(("", "urn:a", "urn:b")),
                    "encounter": st.sampled_from(("", "Encounter/1")),
                    "status": st.sampled_from(("completed", "completed", "completed", "not-done")),
                }
            ),
            min_size=1,
            max_size=6,
        )
    )


def facts_of(make: Any, records: list[dict[str, str]]) -> list[Any]:
    return [make.procedure(str(number), **record) for number, record in enumerate(records)]


def outcome(decisions: list[Decision]) -> set[tuple[str, str, str, str, str]]:
    """What was decided on the sessions that the tables make interventional oncology of."""
    return {
        (d.date, d.category, d.decision, d.reason, d.indication.code)
        for d in decisions
        if d.category != "none" or d.reason in {"not-percutaneous", "revision-only"}
    }


relaxed = settings(
    max_examples=max(150, settings().max_examples),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ON_RECORD = ("C22.0", "C79.5", "D25.9")


@relaxed
@given(records=patients(), seed=st.integers(0, 999))
def test_order_never_matters(make: Any, records: list[dict[str, str]], seed: int) -> None:
    facts = facts_of(make, records)
    conditions = [make.condition(f"c{number}", code) for number, code in enumerate(ON_RECORD)]
    expected = make.decide(facts, conditions)
    random.Random(seed).shuffle(facts)
    random.Random(seed + 1).shuffle(conditions)
    assert make.decide(facts, conditions) == expected


@relaxed
@given(records=patients(), again=st.integers(0, 5))
def test_a_repeated_resource_never_adds(make: Any, records: list[dict[str, str]], again: int) -> None:
    facts = facts_of(make, records)
    assert make.decide([*facts, *facts[: again + 1]]) == make.decide(facts)


@relaxed
@given(
    records=patients(),
    unrelated=st.sampled_from(UNRELATED),
    day=st.sampled_from(DAYS),
    stay=st.sampled_from(("", "Encounter/1")),
    stated=st.sampled_from(STATED),
)
def test_an_unrelated_procedure_never_changes_a_decision(
    make: Any, records: list[dict[str, str]], unrelated: str, day: str, stay: str, stated: str
) -> None:
    facts = facts_of(make, records)
    more = make.procedure("unrelated", unrelated, day, stated, encounter=stay, origin="urn:a")
    assert outcome(make.decide([*facts, more])) == outcome(make.decide(facts))


@relaxed
@given(records=patients())
def test_a_system_sending_everything_twice_counts_nothing_twice(make: Any, records: list[dict[str, str]]) -> None:
    facts = facts_of(make, records)
    twins = [msgspec.structs.replace(fact, id=f"twin-{fact.id}") for fact in facts]
    assert sum(d.decision == "counted" for d in make.decide([*facts, *twins])) == sum(
        d.decision == "counted" for d in make.decide(facts)
    )


@relaxed
@given(records=patients())
def test_every_procedure_with_a_row_is_in_exactly_one_session(make: Any, records: list[dict[str, str]]) -> None:
    facts = facts_of(make, records)
    listed = [reference for decision in make.decide(facts) for reference in decision.procedures]
    assert sorted(listed) == sorted(f"Procedure/{fact.id}" for fact in facts)
