"""What the service does: nights, complete readings, sending again, asking for verdicts, removing what is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from io_fhir_adapter.classify.ruleset import Ruleset, rules_now
from io_fhir_adapter.config import Config, FhirSourceConfig
from io_fhir_adapter.engine.horizon import horizon_of
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.jobs import RUNNING, stored_jobs
from io_fhir_adapter.ledger.lease import BUSY, only_job
from io_fhir_adapter.ledger.outbox import is_anything_due
from io_fhir_adapter.ledger.retention import purge
from io_fhir_adapter.ledger.runs import last_run
from io_fhir_adapter.logs import log
from io_fhir_adapter.pull.reconcile import is_due, read_whole
from io_fhir_adapter.serve.jobs import HOURS_OVER, NIGHTLY, Job, Tell
from io_fhir_adapter.serve.schedule import Cron, Every, Window

if TYPE_CHECKING:  # what a night needs takes a second to import: it is, when the first one begins
    from io_fhir_adapter.night import Night
    from io_fhir_adapter.pipeline import Nightly

__all__ = ["Ended", "Nights", "Wanted", "attempted", "here", "jobs_of", "window_of"]

_RECONCILE: Final = "reconcile"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A night that is to be done.

    Attributes:
        config: The facility's configuration.
        pull_for: For how many seconds sources may be read; None for as long as it takes.
        occasion: What tells it from the nights before and after it, empty where nothing does.
    """

    config: Config
    pull_for: float | None
    occasion: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a night ended: whether all of it was done, and of what it failed outright, a code or a type."""

    done: bool
    failure: str = ""


async def here(wanted: Wanted, ruleset: Ruleset, ledger: Ledger, told: Tell) -> Ended:
    """One night with its output, in this process.

    Raises:
        AdapterError: A stage could not be done, or the output not be written.
    """
    from io_fhir_adapter.pipeline import Nightly  # noqa: PLC0415 - see above

    job = Nightly(wanted.config, ledger, ruleset, progress=told, pull_for=wanted.pull_for, occasion=wanted.occasion)
    night = await job.run(folder=wanted.config.output.folder)
    _log_night(night)
    return Ended(night.problem is None)


async def attempted(work: Callable[[], Awaitable[Ended]]) -> Ended:
    """A night whose failure is logged and does not end the service.

    Raises:
        AdapterError: It could not begin now, or its hours are over: it is not done yet, and it did not fail.
    """
    try:
        return await work()
    except AdapterError as exc:
        if exc.code in {BUSY, HOURS_OVER}:
            raise
        log.error("night failed", code=exc.code)
        return Ended(done=False, failure=exc.code)
    except Exception as exc:  # noqa: BLE001 - the service outlives a night; the message may hold anything
        log.error("night failed", exception=type(exc).__name__)
        return Ended(done=False, failure=type(exc).__name__)


def _log_night(night: Night) -> None:
    """Logs what a night did: a line for each source, and how it ended."""
    for source in night.sources:
        log.info(
            "source read", run=night.run, source=source.name, complete=source.complete, requests=source.requests,
            retried=source.retried, read=sum(kind.read for kind in source.types.values()),
            quarantined=sum(kind.quarantined for kind in source.types.values()), seconds=round(source.seconds, 1),
        )  # fmt: skip
    if night.problem is not None:
        log.error("night failed", run=night.run, code=night.problem.code)
    else:
        log.info("night complete", run=night.run, counted=night.volume.counted if night.volume is not None else 0)


def window_of(config: Config) -> Window:
    """The hours of pulling of a facility."""
    return Window(config.schedule.window or "", zone(config.facility.time_zone))


def jobs_of(
    config: Config,
    ledger: Ledger,
    ruleset: Ruleset,
    see: Callable[[bool], None],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    aside: bool = False,
) -> list[Job]:
    """The jobs of a facility.

    Args:
        config: Its configuration.
        ledger: Its ledger.
        ruleset: What decides.
        see: Told of each night whether all of it was done.
        clock: Says what time it is.
        aside: Whether a night is done by a process of its own, by the machine's clock; see :mod:`.night_aside`.

    Raises:
        ConfigError: A cron expression is wrong.
    """
    plan, tz = config.schedule, config.facility.time_zone
    nights = Nights(config, ledger, ruleset, see, clock, aside=aside)
    jobs = [Job(NIGHTLY, Cron(plan.cron, tz), nights.night, plan.jitter_s, pulls=True)]
    if plan.reconcile is not None:
        rule = Cron(plan.reconcile, tz, "schedule.reconcile")
        jobs.append(Job(_RECONCILE, rule, nights.reconcile, plan.jitter_s, pulls=True))
    if plan.retention is not None:
        jobs.append(Job("retention", Cron(plan.retention, tz, "schedule.retention"), nights.retain))
    if config.submission is not None and plan.deliver_minutes:
        jobs.append(Job("deliver", Every(plan.deliver_minutes), nights.deliver, gentle=True))
    if config.submission is not None and plan.verdict_minutes:
        jobs.append(Job("verdicts", Every(plan.verdict_minutes), nights.ask, gentle=True))
    return jobs


class Nights:
    """The work of each job; see :func:`jobs_of`. Each says whether all of it was done."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        ruleset: Ruleset,
        see: Callable[[bool], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        aside: bool = False,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._ruleset = ruleset
        self._see = see
        self._clock = clock
        self._aside = aside

    async def night(self, told: Tell) -> bool:
        """One night with its output; afterwards people are told what needs one."""
        return await self._one(told, self._occasion(NIGHTLY))

    async def _one(self, told: Tell, occasion: str) -> bool:
        ended = await attempted(lambda: self._night(told, occasion))
        self._see(ended.done)
        with suppress(asyncio.CancelledError):  # the night is done, and not to be done again for this
            await self._tell(ended.failure)
        return ended.done

    async def reconcile(self, told: Tell) -> bool:
        """A night that reads everything of the sources from which what is gone is removed."""
        occasion = self._occasion(_RECONCILE)
        with self._ledger.begin() as connection:
            last = last_run(connection)
            for source in self._config.sources if last is not None else ():
                days = source.reconcile_days if isinstance(source, FhirSourceConfig) else 0
                if last is not None and days and not is_due(connection, source.name, days, self._clock()):
                    read_whole(connection, source.name, last.id)
        return await self._one(told, occasion)

    def _occasion(self, job: str) -> str:
        """What tells one time that a job is due from the next, however often it is begun; empty for one by itself."""
        with self._ledger.read() as connection:
            known = stored_jobs(connection).get(job)
        return f"{job} {known.started}" if known is not None and known.outcome == RUNNING else ""

    async def deliver(self, _told: Tell) -> bool:
        """Sends what waits to be sent again, if its time has come."""
        with self._ledger.read() as connection:
            due = is_anything_due(connection, self._clock())
        job = self._job()
        sends = job.handover.gated or (self._config.submission is not None and bool(self._config.submission.automatic))
        if due and sends:
            with job.alone():
                for one in await job.deliver():
                    log.info("submission sent", submission=one.identifier, state=one.state)
        return True

    async def ask(self, _told: Tell) -> bool:
        """Asks what the accreditation body says, of what it is time to ask about."""
        polled = await self._job().ask_verdicts()
        for one in polled.news:
            log.info("verdict", submission=one.identifier, state=one.state)
        if polled.note:
            log.warning("verdict not asked")
        if polled.news:
            await self._tell("")
        return True

    async def retain(self, told: Tell) -> bool:
        """Removes what need not be kept any longer."""
        today = self._clock().astimezone(zone(self._config.facility.time_zone)).date()
        horizon = horizon_of(self._config, self._ruleset.programme, today)
        with only_job(self._ledger):
            removed = purge(self._ledger, horizon, self._clock(), agent="service", progress=told)
        log.info("retention", before=horizon, removed=sum(removed.to_json().values()))
        return True

    def _job(self) -> Nightly:
        from io_fhir_adapter.pipeline import Nightly  # noqa: PLC0415 - see above

        return Nightly(self._config, self._ledger, self._ruleset)

    async def _night(self, told: Tell, occasion: str) -> Ended:
        with self._ledger.read() as connection:
            last = last_run(connection)
        if occasion and last is not None and last.state == "complete" and last.summary.get("occasion") == occasion:
            log.info("night done already", run=last.id)  # who did it ended before the job could be
            return Ended(done=True)
        self._ruleset = rules_now(self._config, self._ruleset)  # a site's own table may have got rows since the last
        wanted = Wanted(self._config, window_of(self._config).left(self._clock()), occasion)
        if not self._aside:
            return await here(wanted, self._ruleset, self._ledger, told)
        from io_fhir_adapter.serve.night_aside import night_aside  # noqa: PLC0415 - it runs what is here, in its process

        return await night_aside(wanted)

    async def _tell(self, failure: str) -> None:
        from io_fhir_adapter.notify.tell import tell  # noqa: PLC0415 - see above

        now = self._clock()
        today = now.astimezone(zone(self._config.facility.time_zone)).date()
        try:
            await asyncio.to_thread(tell, self._config, self._ledger, self._ruleset, now, today, failure=failure)
        except AdapterError as exc:
            log.error("people not told", code=exc.code)
        except Exception as exc:  # noqa: BLE001 - as for a night
            log.error("people not told", exception=type(exc).__name__)
