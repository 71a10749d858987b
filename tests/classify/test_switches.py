"""The switches of a programme: several categories in one session, and what is in progress although it has ended."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.programme import Programme, load_programme
from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.model import Decision

TODAY = "2025-06-01"


def programme(**parts: dict[str, str]) -> Programme:
    shipped = load_programme("iasios")
    document = shipped.model_dump()
    for name, part in parts.items():
        document[name] = {**document[name], **part}
    return Programme.model_validate(document)


EACH = load_ruleset(programme(volume={"several_categories": "each"}))
ENDED = load_ruleset(programme(status={"in_progress_ended": "completed"}))


def decide(rules: Ruleset, facts: list[Any]) -> list[Decision]:
    return decide_patient(facts, [], [], rules, today=TODAY)


def test_each_category_of_a_session_is_decided_by_itself(make: Any) -> None:
    facts = make.procedures("ops:5-501.a3 + ops:8-836.ka + ops:1-442.0", stated="C22.0")
    found = decide(EACH, facts)
    assert [(d.category, d.decision, d.reason) for d in found] == [
        ("ablation-mwa", "counted", "counted"),
        ("bland-embolisation", "counted", "counted"),
        ("biopsy", "not-counted", "category-not-counted"),
    ]
    assert {d.procedures for d in found} == {("Procedure/x1", "Procedure/x2", "Procedure/x3")}
    assert [d.categories[0] for d in found] == [d.category for d in found]
    assert all(set(d.categories) == {"ablation-mwa", "bland-embolisation", "biopsy"} for d in found)
    assert all("programme:iasios:volume.several_categories" in {step.rule for step in d.trail} for d in found)


def test_one_treatment_of_many_codes_is_one_whatever_the_switch(make: Any) -> None:
    facts = make.procedures("ops:8-836.ka + ops:8-541.6 + ops:8-836.ka", stated="C22.0")
    assert [d.category for d in decide(EACH, facts)] == ["tace"]


def test_the_switch_changes_nothing_in_sessions_of_one_category(make: Any) -> None:
    for do in ("ops:5-501.a3", "ops:8-835.23", "ops:5-514.k3", "local:X", "ops:5-98h.2"):
        facts = make.procedures(do, stated="C22.0")
        assert decide(EACH, facts) == make.decide(facts)


def test_by_default_the_trail_says_that_the_session_is_decided_once(make: Any) -> None:
    found = make.one("ops:5-501.a3 + ops:8-836.ka", "C22.0")
    assert [step.text for step in found.trail if step.step == "unit"] == ["the session is decided once"]


@pytest.mark.parametrize(
    ("end", "decision"),
    [("2025-03-15", "counted"), ("2025-05", "counted"), ("2025-06-01", "not-counted"), ("2025", "not-counted"),
     ("2025-07-01", "not-counted"), ("", "not-counted")],
)  # fmt: skip
def test_what_has_ended_counts_where_the_programme_says_so(make: Any, end: str, decision: str) -> None:
    fact = make.procedure("1", "ops:5-501.a3", stated="C22.0", status="in-progress", end_day=end)
    (found,) = decide(ENDED, [fact])
    assert found.decision == decision
    (without,) = decide(make.ruleset, [fact])
    assert (without.decision, without.reason) == ("not-counted", "not-completed")


def test_the_trail_says_what_was_taken_for_completed(make: Any) -> None:
    fact = make.procedure("1", "ops:5-501.a3", stated="C22.0", status="in-progress", end_day="2025-03-15")
    (found,) = decide(ENDED, [fact])
    (step,) = [step for step in found.trail if step.step == "status"]
    assert step.rule == "programme:status.in_progress_ended"
    assert "ended on 2025-03-15" in step.text


@pytest.mark.parametrize("status", ["preparation", "on-hold", "stopped", "not-done", "unknown", "entered-in-error"])
def test_no_other_status_counts_because_it_has_an_end(make: Any, status: str) -> None:
    fact = make.procedure("1", "ops:5-501.a3", stated="C22.0", status=status, end_day="2025-03-15")
    assert [found.decision for found in decide(ENDED, [fact])] == ["not-counted"]


def test_both_switches_are_part_of_the_digest() -> None:
    assert len({EACH.digest, ENDED.digest, load_ruleset().digest}) == 3


@pytest.mark.parametrize(
    "part", [{"volume": {"several_categories": "twice"}}, {"status": {"in_progress_ended": "yes"}}]
)
def test_a_word_that_is_no_switch_is_refused(part: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValidationError):
        programme(**part)
