"""The schedule: the nightly job at its hour in the facility's time zone, once, and caught up after a missed night."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from io_fhir_adapter.config import ScheduleConfig
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.runs import Run

__all__ = ["NIGHTLY", "make_scheduler", "missed"]

NIGHTLY = "nightly"
_CATCH_UP_S = 20 * 3600


def _trigger(config: ScheduleConfig, time_zone: str) -> CronTrigger:
    try:
        return CronTrigger.from_crontab(config.cron, timezone=zone(time_zone))
    except ValueError as exc:
        raise ConfigError(
            f"{config.cron!r} is no cron expression", where="schedule.cron", do="write it like 30 2 * * *", number=8
        ) from exc


def make_scheduler(config: ScheduleConfig, time_zone: str, job: Callable[[], Awaitable[None]]) -> AsyncIOScheduler:
    """A scheduler with the nightly job in it, not started yet.

    A night that the machine slept through is caught up once; a job still running is never started beside itself.

    Raises:
        ConfigError: The cron expression is wrong.
    """
    trigger = _trigger(config, time_zone)
    trigger.jitter = config.jitter_s or None
    scheduler = AsyncIOScheduler(timezone=zone(time_zone))
    scheduler.add_job(
        job, trigger, id=NIGHTLY, max_instances=1, coalesce=True, misfire_grace_time=_CATCH_UP_S, replace_existing=True
    )
    return scheduler


def missed(config: ScheduleConfig, time_zone: str, last: Run | None, now: datetime) -> bool:
    """Whether a night passed without a run while the service was down, so that it is to be caught up at once.

    A run that was cut off counts as missed. Before the first run nothing is missed: the first pull is the largest, and
    waits for its hour.
    """
    if last is None:
        return False
    if last.state == "running":
        return True
    due = _trigger(config, time_zone).get_next_fire_time(
        None, datetime.fromisoformat(last.started) + timedelta(seconds=1)
    )
    return due is not None and due <= now
