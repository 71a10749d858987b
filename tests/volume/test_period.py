from __future__ import annotations

import pytest

from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.volume.period import Period


@pytest.mark.parametrize(
    ("day", "place"),
    [
        ("2025", "inside"),
        ("2025-03", "inside"),
        ("2025-01-01", "inside"),
        ("2025-12-31", "inside"),
        ("2024-12-31", "outside"),
        ("2026", "outside"),
        ("", "unplaced"),
        ("2025-13", "unplaced"),
        ("2025-02-30", "unplaced"),
        ("0000-01-01", "unplaced"),
        ("2025-03-01T10:00:00Z", "unplaced"),
        ("٢٠٢٥", "unplaced"),
    ],
)
def test_a_partial_date_counts_when_it_lies_wholly_inside(day: str, place: str) -> None:
    period = Period.year("2025")
    assert period.place(day) == place
    assert period.contains(day) == (place == "inside")


def test_a_date_too_vague_for_a_period_across_two_years_is_neither_in_nor_out() -> None:
    period = Period("2024-07-01", "2025-06-30", "July 2024 to June 2025")
    assert period.place("2025") == "unplaced"
    assert period.place("2025-06") == "inside"
    assert period.place("2023") == "outside"
    assert period.months()[0] == "2024-07"
    assert period.months()[-1] == "2025-06"
    assert len(period.months()) == 12


def test_a_month_that_the_period_cuts_is_not_inside() -> None:
    assert Period("2025-01-15", "2025-12-31", "x").place("2025-01") == "unplaced"


def test_the_latest_day_of_a_partial_date_knows_leap_years() -> None:
    assert Period.year("2024").latest("2024-02") == "2024-02-29"
    assert Period.year("2025").latest("2025") == "2025-12-31"
    with pytest.raises(ValueError, match="inside"):
        Period.year("2025").latest("2024")


@pytest.mark.parametrize("text", ["25", "2025-01", "abcd", "", "0000"])
def test_what_is_no_year_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a year"):
        Period.year(text)


@pytest.mark.parametrize(
    ("start", "end"), [("2025-12-31", "2025-01-01"), ("2025", "2025-12-31"), ("2025-02-30", "2026-01-01")]
)
def test_impossible_periods_are_refused(start: str, end: str) -> None:
    with pytest.raises(UsageError):
        Period(start, end, "x")
