"""When the service runs a night."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from io_fhir_adapter.config import ScheduleConfig
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.ledger.runs import Run
from io_fhir_adapter.serve.schedule import NIGHTLY, make_scheduler, missed

AT_HALF_PAST_TWO = ScheduleConfig(cron="30 2 * * *", jitter_s=0)


def ran(started: str, state: str = "complete") -> Run:
    return Run(1, started, started, state, {}, "")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


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
    assert missed(AT_HALF_PAST_TWO, "Europe/Berlin", last, at(now)) is expected


def test_the_hour_is_the_facilitys_own() -> None:
    async def job() -> None:
        """Never called."""

    scheduler = make_scheduler(AT_HALF_PAST_TWO, "America/New_York", job)
    trigger = scheduler.get_job(NIGHTLY).trigger
    due = trigger.get_next_fire_time(None, at("2026-07-01T00:00:00"))
    assert due.astimezone(UTC) == at("2026-07-01T06:30:00")


def test_a_wrong_cron_expression_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="no cron expression"):
        missed(ScheduleConfig(cron="61 2 * * *"), "UTC", ran("2026-01-30T01:30:00.000000Z"), at("2026-01-30T12:00:00"))
