"""Dates: partial, with offsets, across midnight and summer time, and the broken ones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.errors import ConfigError, ResourceError
from io_fhir_adapter.fhir.dates import days_apart, is_full, local_day, may_precede, zone

BERLIN = ZoneInfo("Europe/Berlin")
offsets = st.integers(min_value=-14 * 60, max_value=14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize("value", ["2025", "2025-03", "2025-03-01", ""])
def test_a_partial_date_stays_as_it_is(value: str) -> None:
    assert local_day(value, BERLIN) == value


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("2025-03-01T23:30:00Z", "2025-03-02"),
        ("2025-03-01T22:59:59Z", "2025-03-01"),
        ("2025-03-01T23:30:00+01:00", "2025-03-01"),
        ("2025-03-01T23:30:00-05:00", "2025-03-02"),
        ("2025-06-30T22:30:00Z", "2025-07-01"),
        ("2025-03-30T00:30:00Z", "2025-03-30"),
        ("2025-10-25T22:30:00Z", "2025-10-26"),
        ("2024-12-31T23:00:00Z", "2025-01-01"),
        ("2025-03-01T12:00:00.123456Z", "2025-03-01"),
        ("2025-03-01T12:00:00", "2025-03-01"),
        ("2025-03-01 12:00:00", "2025-03-01"),
    ],
)
def test_the_facility_s_day(value: str, day: str) -> None:
    assert local_day(value, BERLIN) == day


def test_without_a_zone_the_day_is_the_one_written() -> None:
    assert local_day("2025-03-01T23:30:00Z", None) == "2025-03-01"


@pytest.mark.parametrize(
    "value",
    [
        "yesterday", "2025-13", "2025-02-30", "2025-3-1", "20250301", "2025-W10-1", "25", "2025-03-01T",
        "2025-03-01T25:00:00Z",
        "0001-01-01T00:00:00+14:00", "2025-00-00", "2025-03-01T12:00:00Z and more",
    ],
)  # fmt: skip
def test_what_is_no_date_is_refused_without_repeating_it(value: str) -> None:
    with pytest.raises(ResourceError) as caught:
        local_day(value, BERLIN)
    assert value not in caught.value.sentence


@given(st.integers(min_value=-2_000_000_000, max_value=4_000_000_000), offsets)
def test_one_moment_has_one_local_day_whatever_its_offset(seconds: int, offset: timezone) -> None:
    aware = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    written = aware.astimezone(offset).isoformat()
    assert local_day(written, BERLIN) == aware.astimezone(BERLIN).date().isoformat()


@given(st.dates(), st.dates())
def test_days_apart_is_symmetric_and_zero_only_for_one_day(first: date, second: date) -> None:
    apart = days_apart(first.isoformat(), second.isoformat())
    assert apart == days_apart(second.isoformat(), first.isoformat())
    assert (apart == 0) == (first == second)


@given(st.dates(), st.dates(), st.sampled_from([4, 7, 10]))
def test_what_precedes_may_precede_however_little_is_known(first: date, second: date, known: int) -> None:
    early, late = sorted([first.isoformat(), second.isoformat()])
    assert may_precede(early[:known], late)
    assert may_precede(early, late[:known])
    assert may_precede("", late)


def test_later_years_do_not_precede() -> None:
    assert not may_precede("2026", "2025-03-01")
    assert not may_precede("2025-04", "2025-03-31")
    assert may_precede("2025-03", "2025-03-01")


def test_partial_dates_are_no_number_of_days_apart() -> None:
    assert days_apart("2025-03", "2025-03-01") is None
    assert not is_full("2025-03")


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError, match="Europe/Berlin"):
        zone(name)
