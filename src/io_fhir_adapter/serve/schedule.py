"""The schedule: the nightly job at its hour in the facility's time zone, once, and caught up after a missed night."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from io_fhir_adapter.config import ScheduleConfig
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.fhir.dates import zone

__all__ = ["NIGHTLY", "make_scheduler"]

NIGHTLY = "nightly"
_CATCH_UP_S = 20 * 3600


def make_scheduler(config: ScheduleConfig, time_zone: str, job: Callable[[], Awaitable[None]]) -> AsyncIOScheduler:
    """A scheduler with the nightly job in it, not started yet.

    Several nights missed are caught up once; a job still running is never started beside itself.

    Raises:
        ConfigError: The cron expression is wrong.
    """
    tz = zone(time_zone)
    try:
        trigger = CronTrigger.from_crontab(config.cron, timezone=tz)
    except ValueError as exc:
        raise ConfigError(
            f"{config.cron!r} is no cron expression", where="schedule.cron", do="write it like 30 2 * * *", number=8
        ) from exc
    trigger.jitter = config.jitter_s or None
    scheduler = AsyncIOScheduler(timezone=tz)
    scheduler.add_job(
        job, trigger, id=NIGHTLY, max_instances=1, coalesce=True, misfire_grace_time=_CATCH_UP_S, replace_existing=True
    )
    return scheduler
