from __future__ import annotations

import hashlib
from collections import Counter
from datetime import date, timedelta
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.model import Decision, DecisionKind
from io_fhir_adapter.review.draw import Draw, Frame, build_frame, draw_cases, review_window

KEY = b"k" * 32
NONCE = bytes(range(32))


def decision(patient: str, day: str = "2025-03-01", kind: DecisionKind = "counted", **more: Any) -> Decision:
    return Decision("his", f"Patient/{patient}", day, more.pop("category", "tace"), kind, kind, **more)


def frame_of(count: int) -> Frame:
    return build_frame([decision(str(number)) for number in range(count)], "2025-01-01", "2025-12-31")


def drawn(frame: Frame, nonce: bytes = NONCE, **more: Any) -> Draw:
    options = {"key": KEY, "facility_code": "F-1", "programme": "iasios", "ruleset_digest": "sha256:0", **more}
    return draw_cases(frame, nonce=nonce, **options)


def test_the_frame_holds_patients_with_a_counted_full_dated_session_in_the_window() -> None:
    decisions = [
        decision("first-day", "2025-01-01"),
        decision("last-day", "2025-12-31"),
        decision("before", "2024-12-31"),
        decision("after", "2026-01-01"),
        decision("partial", "2025-03"),
        decision("undated", ""),
        *(decision(kind, kind=kind) for kind in get_args(DecisionKind) if kind != "counted"),
    ]
    frame = build_frame(decisions, "2025-01-01", "2025-12-31")
    assert set(frame.patients) == {"Patient/first-day", "Patient/last-day"}
    assert frame.size == 2


def test_a_patient_with_many_sessions_is_in_the_frame_once_with_each_session_once() -> None:
    sessions = [decision("1", f"2025-0{month}-01") for month in (3, 1, 2)]
    frame = build_frame([*sessions, *sessions], "2025-01-01", "2025-12-31")
    assert [session.date for session in frame.patients["Patient/1"]] == ["2025-01-01", "2025-02-01", "2025-03-01"]
    assert drawn(frame).commitment.tokens == (drawn(frame).cases[0].token,)


@given(st.randoms(use_true_random=False), st.binary(min_size=32, max_size=32))
@settings(max_examples=25)
def test_the_order_of_the_input_never_changes_a_draw(random: Random, nonce: bytes) -> None:
    decisions = [
        decision(str(number % 60), f"2025-{number % 12 + 1:02d}-10", procedures=(f"Procedure/{number}",))
        for number in range(150)
    ]
    expected = drawn(build_frame(decisions, "2025-01-01", "2025-12-31"), nonce)
    random.shuffle(decisions)
    assert drawn(build_frame(decisions, "2025-01-01", "2025-12-31"), nonce) == expected


@given(st.integers(1, 90), st.integers(1, 40), st.integers(0, 20), st.binary(min_size=32, max_size=32))
@settings(max_examples=60)
def test_cases_and_reserves_are_distinct_and_as_many_as_wanted(
    count: int, size: int, reserves: int, nonce: bytes
) -> None:
    result = drawn(frame_of(count), nonce, size=size, reserves=reserves)
    everyone = [*result.cases, *result.reserves]
    assert len(result.cases) == min(size, count)
    assert len(result.reserves) == max(0, min(reserves, count - size))
    assert len({case.token for case in everyone}) == len({case.patient for case in everyone}) == len(everyone)
    assert len({case.pseudonym for case in everyone}) == len(everyone)
    assert [case.number for case in everyone] == list(range(1, len(everyone) + 1))
    assert result.short == (count < size)
    assert {case.token for case in everyone} <= set(result.commitment.tokens)


def test_an_empty_frame_gives_an_empty_short_draw() -> None:
    result = drawn(frame_of(0))
    assert (result.cases, result.reserves, result.short) == ((), (), True)


def test_every_session_of_a_patient_is_the_index_equally_often() -> None:
    days = [f"2025-{month:02d}-01" for month in range(1, 7)]
    frame = build_frame([decision("1", day) for day in days], "2025-01-01", "2025-12-31")
    rounds = 1200
    counts = Counter(drawn(frame, hashlib.sha256(str(seed).encode()).digest()).cases[0].date for seed in range(rounds))
    expected = rounds / len(days)
    assert sum((counts[day] - expected) ** 2 / expected for day in days) < 20.52  # 5 degrees of freedom, p = 0.001


def test_one_other_patient_changes_the_digest_and_no_other_patients_token() -> None:
    first, second = drawn(frame_of(40)).commitment, drawn(frame_of(41)).commitment
    assert first.digest != second.digest
    assert set(first.tokens) < set(second.tokens)


def test_nothing_local_is_in_the_commitment_or_shown_by_repr() -> None:
    result = drawn(frame_of(40))
    assert "Patient/" not in str(result.commitment.to_json())
    assert "Patient/" not in repr(result)
    assert "2025-03-01" not in repr(result.cases)
    assert "Patient/" not in repr(frame_of(3))


@pytest.mark.parametrize(
    "wrong",
    [{"nonce": b"short"}, {"key": b"short"}, {"size": 0}, {"reserves": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_bad_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ReviewError):
        drawn(frame_of(3), **wrong)


@pytest.mark.parametrize(
    ("as_of", "window"),
    [
        (date(2026, 1, 30), ("2025-01-01", "2025-12-31")),
        (date(2024, 3, 30), ("2023-03-01", "2024-02-29")),
        (date(2025, 3, 30), ("2024-02-29", "2025-02-28")),
        (date(2023, 3, 30), ("2022-03-01", "2023-02-28")),
    ],
)
def test_the_window_is_twelve_months_ending_thirty_days_before(as_of: date, window: tuple[str, str]) -> None:
    assert review_window(as_of, 12, 30) == window


@given(st.dates(date(1990, 1, 1), date(2090, 1, 1)), st.integers(1, 36), st.integers(0, 400))
def test_windows_are_whole_months_and_join_without_gap(as_of: date, months: int, ends: int) -> None:
    start, end = (date.fromisoformat(day) for day in review_window(as_of, months, ends))
    assert end == as_of - timedelta(days=ends)
    assert abs((end - start).days + 1 - months * 30.44) < 3.5
    before = date.fromisoformat(review_window(start - timedelta(days=1), 1, 0)[1])
    assert before + timedelta(days=1) == start


@given(st.integers(1950, 2090))
def test_a_window_of_twelve_months_never_loses_or_repeats_a_leap_day(year: int) -> None:
    leap = date(year, 2, 28) + timedelta(days=1)
    inside = 0
    for window_year in (year - 1, year, year + 1):
        start, end = review_window(date(window_year, 12, 31), 12, 0)
        assert (start, end) == (f"{window_year}-01-01", f"{window_year}-12-31")
        inside += start <= leap.isoformat() <= end
    assert inside == 1


@pytest.mark.parametrize(("months", "ends"), [(0, 30), (12, -1), (10**6, 0)])
def test_impossible_windows_are_refused(months: int, ends: int) -> None:
    with pytest.raises(ReviewError):
        review_window(date(2025, 1, 1), months, ends)
