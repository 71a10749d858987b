from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.model import Decision
from io_fhir_adapter.volume.count import UNKNOWN_MONTH, Period, Seen, SeenCounter, Tally, Volume, VolumeCounter

COUNTS = {"tace": "yes", "ablation-mwa": "yes", "biliary": "review", "biopsy": "no"}
NOTHING_SEEN = Seen(0, 0, {}, 0, 0, 0, 0)
OUTCOMES = [
    ("tace", "counted", "counted"),
    ("ablation-mwa", "counted", "counted"),
    ("tace", "review", "indication-not-found"),
    ("biliary", "review", "category-for-review"),
    ("tace", "not-counted", "other-disease"),
    ("ablation-mwa", "not-counted", "not-percutaneous"),
    ("biopsy", "not-counted", "category-not-counted"),
    ("none", "not-counted", "no-io-code"),
    ("none", "not-counted", "unmapped"),
]


def decision(date: str, category: str = "tace", kind: Any = "counted", reason: str = "counted") -> Decision:
    return Decision("hospital", "Patient/1", date, category, kind, reason)


def volume_of(decisions: list[Decision], threshold: int = 150, seen: Seen = NOTHING_SEEN) -> Volume:
    counter = VolumeCounter(Period.year("2025"), threshold, COUNTS)
    for each in decisions:
        counter.add(each)
    return counter.result(seen)


decisions = st.lists(
    st.builds(
        lambda date, outcome: decision(date, *outcome),
        st.one_of(
            st.dates().map(lambda day: day.isoformat()),
            st.sampled_from(["2025", "2025-03", "2025-12-31", "2025-01-01", "2025-07-14", "", "2024", "2025-02-30"]),
        ),
        st.sampled_from(OUTCOMES),
    ),
    max_size=40,
)


def test_sessions_are_counted_by_outcome_category_and_month() -> None:
    volume = volume_of(
        [
            decision("2025-01-31"),
            decision("2025-01-02"),
            decision("2025-03", "ablation-mwa"),
            decision("2025", "ablation-mwa"),
            decision("2025-05-05", "biliary", "review", "category-for-review"),
            decision("2025-05-05", "none", "not-counted", "unmapped"),
            decision("2024-12-31"),
            decision("2026-01-01"),
        ]
    )
    assert (volume.counted, volume.review, volume.not_counted, volume.possible) == (4, 1, 1, 5)
    assert volume.by_category == {
        "ablation-mwa": Tally(2, 0, 0),
        "biliary": Tally(0, 1, 0),
        "none": Tally(0, 0, 1),
        "tace": Tally(2, 0, 0),
    }
    assert volume.by_month["2025-01"] == Tally(2, 0, 0)
    assert volume.by_month["2025-02"] == Tally()
    assert volume.by_month[UNKNOWN_MONTH] == Tally(1, 0, 0)
    assert list(volume.by_month)[:2] == ["2025-01", "2025-02"]
    assert volume.by_month_category["2025-05"] == {"biliary": Tally(0, 1, 0), "none": Tally(0, 0, 1)}
    assert volume.not_counted_by_reason == {"unmapped": 1}
    assert volume.review_by_reason == {"category-for-review": 1}


def test_vague_dates_enter_the_running_count_when_they_are_certain() -> None:
    volume = volume_of([decision("2025"), decision("2025-02"), decision("2025-02-28"), decision("2025-01-01")])
    assert volume.cumulative == (("2025-01-01", 1), ("2025-02-28", 3), ("2025-12-31", 4))


def test_sessions_that_cannot_be_placed_are_told_apart_and_in_no_other_number() -> None:
    volume = volume_of([decision(""), decision("2025-02-30"), decision("", "none", "not-counted", "no-io-code")])
    assert volume.unplaced == 2
    assert volume.sessions == 0


@pytest.mark.parametrize(("threshold", "reached", "when"), [(2, True, "2025-03-01"), (3, False, "")])
def test_the_threshold_is_reached_by_counted_sessions_alone(threshold: int, reached: bool, when: str) -> None:
    volume = volume_of(
        [
            decision("2025-03-01"),
            decision("2025-02-01"),
            decision("2025-01-05", "biliary", "review", "category-for-review"),
        ],
        threshold,
    )
    assert volume.reached is reached
    assert volume.reached_on == when


def test_the_funnel_names_unit_loss_and_reasons_of_each_step() -> None:
    seen = Seen(
        procedures=90, completed=80, by_status={"completed": 80, "not-done": 10}, mapped=20, known_system=70,
        quarantined=3, undated=2, outside=5,
    )  # fmt: skip
    volume = volume_of([decision("2025-04-01", *outcome) for outcome in OUTCOMES], seen=seen)
    assert [(step.code, step.unit, step.count, step.lost, step.why) for step in volume.funnel] == [
        ("read", "procedures", 100, 0, ()),
        ("in-period", "procedures", 90, 10, (("other-period", 5), ("quarantined", 3), ("undated", 2))),
        ("completed", "procedures", 80, 10, (("not-done", 10),)),
        ("mapped", "procedures", 20, 60, (("no-io-code", 50), ("unmapped", 10))),
        ("io-category", "sessions", 7, 2, (("no-io-code", 1), ("unmapped", 1))),
        ("counting-category", "sessions", 5, 2, (("category-for-review", 1), ("category-not-counted", 1))),
        ("indication", "sessions", 3, 2, (("indication-not-found", 1), ("other-disease", 1))),
        ("dated", "sessions", 3, 0, ()),
        ("counted", "sessions", 2, 1, (("not-percutaneous", 1),)),
    ]
    assert volume.to_json()["funnel"][6] == {
        "code": "indication", "name": "indication found", "unit": "sessions", "count": 3, "lost": 2,
        "why": {"indication-not-found": 1, "other-disease": 1},
    }  # fmt: skip


def steps(volume: Volume) -> dict[str, tuple[int, int, dict[str, int]]]:
    return {step.code: (step.count, step.lost, dict(step.why)) for step in volume.funnel if step.unit == "sessions"}


def test_sessions_outside_the_scope_fall_out_first_whatever_else_they_are() -> None:
    found = steps(
        volume_of(
            [
                decision("2025-04-01"),
                decision("2025-04-02", "tace", "not-counted", "out-of-scope"),
                decision("2025-04-03", "none", "not-counted", "out-of-scope"),
                decision("2025-04-04", "biliary", "review", "scope-unknown"),
            ]
        )
    )
    assert list(found)[:2] == ["in-scope", "io-category"]
    assert found["in-scope"] == (1, 3, {"out-of-scope": 2, "scope-unknown": 1})
    assert found["counted"] == (1, 0, {})


def test_a_scope_that_left_out_nothing_says_so_and_no_scope_says_nothing() -> None:
    counter = VolumeCounter(Period.year("2025"), 150, COUNTS, scoped=True)
    counter.add(decision("2025-04-01"))
    assert steps(counter.result(NOTHING_SEEN))["in-scope"] == (1, 0, {})
    assert "in-scope" not in steps(volume_of([decision("2025-04-01")]))


def test_sessions_that_cannot_be_placed_fall_out_of_the_funnel_where_they_would_have_been_lost() -> None:
    volume = volume_of(
        [
            decision("2025-04-01"),
            decision("2024"),
            decision(""),
            decision("", "tace", "not-counted", "undated"),
            decision("", "tace", "not-counted", "other-disease"),
            decision("", "none", "not-counted", "no-io-code"),
        ]
    )
    found = steps(volume)
    assert volume.unplaced == 3
    assert found["io-category"] == (4, 0, {})
    assert found["indication"] == (3, 1, {"other-disease": 1})
    assert found["dated"] == (1, 2, {"undated": 2})
    assert volume.counted == found["counted"][0] == 1


@given(decisions, st.randoms(use_true_random=False))
def test_the_order_of_decisions_changes_nothing(given_decisions: list[Decision], random: Any) -> None:
    shuffled = list(given_decisions)
    random.shuffle(shuffled)
    assert volume_of(given_decisions) == volume_of(shuffled)
    assert json.dumps(volume_of(given_decisions).to_json()) == json.dumps(volume_of(shuffled).to_json())


@given(decisions)
def test_every_breakdown_sums_to_the_whole(given_decisions: list[Decision]) -> None:
    volume = volume_of(given_decisions)
    inside = [each for each in given_decisions if volume.period.contains(each.date)]
    assert volume.sessions == len(inside)
    for tallies in (
        volume.by_category.values(),
        volume.by_month.values(),
        [tally for row in volume.by_month_category.values() for tally in row.values()],
    ):
        assert [sum(getattr(tally, kind) for tally in tallies) for kind in ("counted", "review", "not_counted")] == [
            volume.counted,
            volume.review,
            volume.not_counted,
        ]
    assert sum(volume.not_counted_by_reason.values()) == volume.not_counted
    assert sum(volume.review_by_reason.values()) == volume.review
    assert (volume.cumulative[-1][1] if volume.cumulative else 0) == volume.counted
    sessions = [step for step in volume.funnel if step.unit == "sessions"]
    assert sessions[0].count + sessions[0].lost == volume.sessions + volume.unplaced
    assert sessions[-1].count == volume.counted
    assert all(after.count == before.count - after.lost for before, after in itertools.pairwise(sessions))
    assert all(step.lost == sum(number for _, number in step.why) for step in volume.funnel)


def test_procedures_are_tallied_where_their_date_puts_them() -> None:
    counter = SeenCounter(Period.year("2025"))
    counter.add("2025-01-01", "completed", known_system=True, mapped=True)
    counter.add("2025-01", "completed", known_system=True, mapped=False)
    counter.add("2025", "completed", known_system=False, mapped=False)
    counter.add("2025-06-01", "not-done", known_system=True, mapped=True)
    counter.add("", "completed", known_system=True, mapped=True)
    counter.add("2024-06-01", "completed", known_system=True, mapped=True)
    counter.quarantine(2)
    seen = counter.result()
    assert seen == Seen(4, 3, {"completed": 3, "not-done": 1}, 1, 2, 2, 1, 1)
    assert seen.read == 8


@pytest.mark.parametrize(
    "numbers",
    [
        (1, 2, {"completed": 1}, 0, 0, 0, 0),
        (2, 2, {"completed": 2}, 2, 1, 0, 0),
        (2, 2, {"completed": 1}, 0, 0, 0, 0),
        (0, 0, {}, 0, 0, -1, 0),
    ],
)
def test_tallies_that_contradict_each_other_are_refused(numbers: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"tallies|statuses"):
        Seen(*numbers)
