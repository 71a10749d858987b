"""Dates, prefixes, tokens and references of FHIR search, as pure functions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from io_fhir_adapter.sandbox.periods import COMPARISONS, FOREVER, implicit_range, period_range
from io_fhir_adapter.sandbox.search import (
    QueryError,
    date_range,
    is_partial,
    keys,
    parameters_for,
    parse_query,
    split_prefix,
)

# The same examples each time, however busy the machine is.
_steady = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_ranges = st.tuples(st.integers(-50, 50), st.integers(1, 30)).map(lambda pair: (pair[0], pair[0] + pair[1]))
_moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - the zone is given beside it
_offsets = st.integers(-12 * 60, 14 * 60)


def _micro(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICRO


def _offset_text(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024", "2024-01-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00"),
        ("2024-02", "2024-02-01T00:00:00+00:00", "2024-03-01T00:00:00+00:00"),
        ("2024-02-29", "2024-02-29T00:00:00+00:00", "2024-03-01T00:00:00+00:00"),
        ("2024-12-31", "2024-12-31T00:00:00+00:00", "2025-01-01T00:00:00+00:00"),
        ("2024-03-01T23:59", "2024-03-01T23:59:00+00:00", "2024-03-02T00:00:00+00:00"),
        ("2024-03-01T10:00:00+02:00", "2024-03-01T08:00:00+00:00", "2024-03-01T08:00:01+00:00"),
        ("2024-03-01T10:00:00.5Z", "2024-03-01T10:00:00.5+00:00", "2024-03-01T10:00:00.6+00:00"),
        ("2024-03-01T10:00:00.123456789Z", "2024-03-01T10:00:00.123456+00:00", "2024-03-01T10:00:00.123457+00:00"),
    ],
)
def test_a_date_stands_for_the_time_it_leaves_open(text: str, start: str, end: str) -> None:
    expected = (_micro(datetime.fromisoformat(start)), _micro(datetime.fromisoformat(end)))
    assert implicit_range(text) == expected


def test_a_date_without_offset_is_local_to_the_server() -> None:
    low, high = implicit_range("2025-03-30", ZoneInfo("Europe/Berlin"))
    assert high - low == 23 * 3600 * 1_000_000  # the clocks go forward that day
    noon = implicit_range("2025-07-01T12:00:00", ZoneInfo("Europe/Berlin"))
    assert noon == implicit_range("2025-07-01T10:00:00Z")


@pytest.mark.parametrize("text", ["9999", "9999-12", "9999-12-31", "0001", "0001-01-01"])
def test_the_ends_of_the_calendar_have_ranges(text: str) -> None:
    low, high = implicit_range(text, ZoneInfo("Europe/Berlin"))
    assert -FOREVER < low < high < FOREVER


@pytest.mark.parametrize(
    "text",
    [
        *("", "25", "2025-13", "2025-02-30", "2025-2-3", "2025-03-01T", "2025-03-01T24:00:00Z", "2025-03-01T10:61"),
        *("2025-03-01T10:00:00 02:00", "2025-03-01 10:00", "2025-03-01T10:00:00+15:00", "0000", "٢٠٢٥"),
    ],
)
def test_what_is_no_fhir_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        implicit_range(text)


@_steady
@given(_moments, _offsets)
def test_an_instant_lies_in_its_own_second_and_its_own_day(moment: datetime, minutes: int) -> None:
    offset = timedelta(minutes=minutes)
    true = _micro(moment.replace(tzinfo=UTC) - offset)
    zone_text = _offset_text(minutes)
    second = implicit_range(moment.isoformat(timespec="seconds") + zone_text)
    exact = implicit_range(moment.isoformat(timespec="microseconds") + zone_text)
    assert second[0] <= true < second[1]
    assert exact == (true, true + 1)
    assert second[0] <= exact[0]
    assert exact[1] <= second[1]


@_steady
@given(st.dates(date(1, 1, 1), date(9999, 12, 30)))
def test_days_months_and_years_meet_without_gap(day: date) -> None:
    whole = implicit_range(day.isoformat())
    assert implicit_range((day + timedelta(days=1)).isoformat())[0] == whole[1]
    for longer in (day.isoformat()[:7], day.isoformat()[:4]):
        low, high = implicit_range(longer)
        assert low <= whole[0]
        assert whole[1] <= high


@_steady
@given(_ranges, _ranges)
def test_prefixes_agree_with_each_other(target: tuple[int, int], asked: tuple[int, int]) -> None:
    held = {prefix: COMPARISONS[prefix](target, asked) for prefix in COMPARISONS}
    assert held["ne"] is not held["eq"]
    assert held["ge"] is (held["gt"] or held["eq"])
    assert held["le"] is (held["lt"] or held["eq"])
    assert not (held["sa"] and held["eb"])
    assert held["gt"] or not held["sa"]
    assert held["lt"] or not held["eb"]


@_steady
@given(_ranges, _ranges)
def test_prefixes_mean_what_r4_says_instant_by_instant(target: tuple[int, int], asked: tuple[int, int]) -> None:
    has, wants = set(range(*target)), set(range(*asked))
    assert COMPARISONS["eq"](target, asked) is (has <= wants)
    assert COMPARISONS["gt"](target, asked) is any(one >= asked[1] for one in has)
    assert COMPARISONS["lt"](target, asked) is any(one < asked[0] for one in has)
    assert COMPARISONS["sa"](target, asked) is all(one >= asked[1] for one in has)
    assert COMPARISONS["eb"](target, asked) is all(one < asked[0] for one in has)


@_steady
@given(_ranges, st.lists(st.integers(-60, 90), min_size=2, max_size=6, unique=True).map(sorted))
def test_slices_that_meet_miss_nothing_they_span(target: tuple[int, int], cuts: list[int]) -> None:
    """``ge`` a day and ``lt`` the next one, side by side, find whatever starts within them."""
    day = 1
    found = [
        COMPARISONS["ge"](target, (low, low + day)) and COMPARISONS["lt"](target, (high, high + day))
        for low, high in pairwise(cuts)
    ]
    if cuts[0] <= target[0] < cuts[-1]:
        assert any(found)


def test_a_period_is_open_where_an_end_is_missing() -> None:
    start = implicit_range("2025-03-01")[0]
    assert period_range({"start": "2025-03-01"}) == (start, FOREVER)
    assert period_range({"end": "2025-03-01"}) == (-FOREVER, implicit_range("2025-03-01")[1])
    with pytest.raises(ValueError, match="without start and end"):
        period_range({})
    with pytest.raises(ValueError, match="before it starts"):
        period_range({"start": "2025-03-02", "end": "2025-03-01"})


def test_prefixes_are_split_off_and_unknown_ones_refused() -> None:
    assert split_prefix("ge2025-03") == ("ge", "2025-03")
    assert split_prefix("2025") == ("eq", "2025")
    assert is_partial("ge2025-03")
    assert not is_partial("ge2025-03-01")
    with pytest.raises(QueryError, match="ap"):
        split_prefix("ap2025")


@pytest.mark.parametrize(
    "resource",
    [
        None,
        [],
        "text",
        {"code": 5, "subject": "Patient/1", "meta": 3},
        {"code": {"coding": [None, {"code": 5}]}},
        {"performedDateTime": "never", "performedPeriod": {"start": 5}},
        {"subject": [{"reference": 1}]},
    ],
)
def test_broken_resources_are_found_by_nothing_but_break_nothing(resource: Any) -> None:
    for parameter in parameters_for("Procedure").values():
        if parameter.kind == "date":
            assert date_range(resource, parameter) is None
        else:
            assert keys(resource, parameter) == set()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["reference", "coding"]), inner),
    max_leaves=8,
)


@_steady
@given(st.dictionaries(st.sampled_from(["code", "status", "subject", "meta", "id", "performedPeriod"]), _json))
def test_no_shape_of_resource_breaks_indexing(resource: dict[str, Any]) -> None:
    for parameter in parameters_for("Procedure").values():
        if parameter.kind == "date":
            date_range(resource, parameter)
        else:
            keys(resource, parameter)


def test_tokens_keep_escaped_commas_and_bars() -> None:
    query = parse_query("Procedure", [("code", r"s|a\,b,|c,s|,d\|e")])
    assert query.criteria[0].keys == (("s", "a,b"), ("", "c"), ("s", None), (None, "d|e"))


def test_unknown_parameters_stand_apart_from_those_used() -> None:
    query = parse_query("Procedure", [("status", "completed"), ("colour", "red"), ("_sort", "colour"), ("date", "")])
    assert query.used == (("status", "completed"),)
    assert query.unknown == ("colour", "_sort")
