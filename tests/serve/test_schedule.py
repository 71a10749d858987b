"""When the service does what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.jobs import StoredJob
from io_fhir_adapter.ledger.runs import Run
from io_fhir_adapter.serve.schedule import Cron, Every, Window, due_at_start, implausible, missed

AT_HALF_PAST_TWO = Cron("30 2 * * *", "Europe/Berlin")


def ran(started: str, state: str = "complete") -> Run:
    return Run(1, started, started, state, {}, "")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(rule: Cron, start: str, number: int) -> list[str]:
    """The next times in UTC, to the minute."""
    moment, found = at(start), []
    for _ in range(number):
        moment = rule.after(moment)
        found.append(f"{moment:%m-%dT%H:%M}")
    return found


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        (None, "2026-01-30T12:00:00", False),
        (ran("2026-01-30T01:30:00.000000Z"), "2026-01-30T12:00:00", False),
        (ran("2026-01-29T01:30:00.000000Z"), "2026-01-30T12:00:00", True),
        (ran("2026-01-29T01:30:00.000000Z"), "2026-01-30T01:29:59", False),
        (ran("2026-01-29T01:30:00.000000Z", "failed"), "2026-01-29T12:00:00", False),
        (ran("2026-01-30T01:30:00.000000Z", "running"), "2026-01-30T02:00:00", True),
    ],
)
def test_a_missed_night_is_noticed(last: Run | None, now: str, expected: bool) -> None:
    assert missed(AT_HALF_PAST_TWO, last, at(now)) is expected
    assert (due_at_start(AT_HALF_PAST_TWO, None, last, at(now)) <= at(now)) is expected


def test_the_hour_is_the_facilitys_own() -> None:
    due = Cron("30 2 * * *", "America/New_York").after(at("2026-07-01T00:00:00"))
    assert due == at("2026-07-01T06:30:00")


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # the clocks go forward: 02:30 does not exist, and is made up for at 03:30
        ("30 2 * * *", "2026-03-27T12:00", ["03-28T01:30", "03-29T01:30", "03-30T00:30"]),
        # and back: 02:30 comes twice
        ("30 2 * * *", "2026-10-23T12:00", ["10-24T00:30", "10-25T00:30", "10-26T01:30"]),
        ("*/20 2 * * *", "2026-10-24T12:00", ["10-25T00:00", "10-25T00:20", "10-25T00:40", "10-26T01:00"]),
        ("0 3 * * *", "2026-10-24T12:00", ["10-25T02:00", "10-26T02:00"]),
    ],
)
def test_nights_in_which_the_clocks_change_have_one_night_each(
    expression: str, start: str, expected: list[str]
) -> None:
    assert following(Cron(expression, "Europe/Berlin"), start, len(expected)) == expected


def test_a_night_begun_between_the_two_half_past_two_is_followed_by_the_next_day() -> None:
    assert AT_HALF_PAST_TWO.after(at("2026-10-25T00:45:00")) == at("2026-10-26T01:30:00")


@pytest.mark.parametrize(
    ("weekdays", "expected"),
    [("0", "Sun"), ("7", "Sun"), ("1", "Mon"), ("sat", "Sat"), ("5-6", "Fri Sat"), ("1-5", "Mon Tue Wed Thu Fri"),
     ("0,3", "Sun Wed"), ("*/3", "Sun Wed Sat"), ("5-7", "Fri Sat Sun")],
)  # fmt: skip
def test_weekdays_are_counted_as_cron_counts_them(weekdays: str, expected: str) -> None:
    rule, moment, found = Cron(f"0 12 * * {weekdays}", "UTC"), at("2026-02-01T00:00:00"), set()
    while (moment := rule.after(moment)) < at("2026-02-08T00:00:00"):
        found.add(f"{moment:%a}")
    assert found == set(expected.split())


@pytest.mark.parametrize("expression", ["61 2 * * *", "0 2 * * 8", "0 2 * * 5-3", "0 2 * * */0", "x 2 * * *"])
def test_a_wrong_cron_expression_is_a_sentence(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"no cron expression.*IOA-CFG-008"):
        Cron(expression, "UTC")


def test_a_day_that_never_comes_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="never comes"):
        Cron("0 0 30 2 *", "UTC").after(at("2026-01-30T12:00:00"))


def stored(due: str, rule: str = AT_HALF_PAST_TWO.text) -> StoredJob:
    return StoredJob("nightly", rule, due)


@pytest.mark.parametrize(
    ("job", "last", "expected"),
    [
        # it comes: whatever jitter was added to it stays
        (stored("2026-02-01T01:33:21.000000Z"), ran("2026-01-31T01:30:00.000000Z"), "2026-02-01T01:33:21"),
        # three nights were missed: one is caught up
        (stored("2026-01-29T01:30:00.000000Z"), ran("2026-01-28T01:30:00.000000Z"), "2026-01-29T01:30:00"),
        # somebody ran one by hand since
        (stored("2026-01-31T01:30:00.000000Z"), ran("2026-01-31T08:00:00.000000Z"), "2026-02-01T01:30:00"),
        (stored("2026-01-31T01:30:00.000000Z"), ran("2026-01-31T08:00:00.000000Z", "failed"), "2026-01-31T01:30:00"),
        # the configuration has another hour now
        (stored("2026-02-01T03:30:00.000000Z", "30 4 * * * Europe/Berlin"), None, "2026-02-01T01:30:00"),
        # the clock was years ahead when that was worked out
        (stored("2031-01-31T01:30:00.000000Z"), None, "2026-02-01T01:30:00"),
    ],
)
def test_a_restart_knows_what_was_planned(job: StoredJob, last: Run | None, expected: str) -> None:
    assert due_at_start(AT_HALF_PAST_TWO, job, last, at("2026-01-31T12:00:00")) == at(expected)


def test_an_interval_is_from_its_beginning() -> None:
    now = at("2026-01-31T12:00:00")
    assert Every(5).after(now) == now + timedelta(minutes=5)
    assert not implausible(Every(5), now + timedelta(minutes=5), now)
    assert implausible(Every(5), now + timedelta(days=1), now)


@pytest.mark.parametrize(
    ("hours", "local", "is_open", "left"),
    [
        ("20:00-06:00", "2026-01-31T19:59:59", False, None),
        ("20:00-06:00", "2026-01-31T20:00:00", True, 10.0),
        ("20:00-06:00", "2026-02-01T05:00:00", True, 1.0),
        ("20:00-06:00", "2026-02-01T06:00:00", False, None),
        ("01:00-05:00", "2026-01-31T00:30:00", False, None),
        ("01:00-05:00", "2026-01-31T04:30:00", True, 0.5),
        ("20:00-06:00", "2026-03-28T20:00:00", True, 9.0),  # the clocks go forward
        ("20:00-06:00", "2026-10-24T20:00:00", True, 11.0),  # and back
    ],
)
def test_the_hours_of_pulling_are_local(hours: str, local: str, is_open: bool, left: float | None) -> None:
    berlin = zone("Europe/Berlin")
    window, now = Window(hours, berlin), datetime.fromisoformat(local).replace(tzinfo=berlin).astimezone(UTC)
    assert window.is_open(now) is is_open
    if left is not None:
        seconds = window.left(now)
        assert seconds == left * 3600


def test_without_hours_it_may_be_pulled_always() -> None:
    window = Window("", UTC)
    assert window.is_open(at("2026-01-31T12:00:00"))
    assert window.left(at("2026-01-31T12:00:00")) is None
