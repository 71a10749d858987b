"""The service's jobs: each begun when it is due, by one process alone, in a thread of its own, and ended when asked.

What is due stands in the ledger (``ledger.jobs``); APScheduler says when to look. Requests are answered meanwhile:
neither a job nor the ledger is ever waited for where they are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random, SystemRandom
from typing import Any, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.jobs import RUNNING, claim, end_job, lease_name, put_jobs, stored_jobs
from io_fhir_adapter.ledger.lease import BUSY, holding, new_holder, renew
from io_fhir_adapter.ledger.runs import last_run
from io_fhir_adapter.logs import log
from io_fhir_adapter.serve.schedule import Rule, Window, due_at_start, implausible

__all__ = ["HOURS_OVER", "NIGHTLY", "Apart", "Job", "Jobs", "Tell", "Work"]

Tell = Callable[[str, int, int | None], None]
"""Called by a job with what it is doing; raises CancelledError where it is to end."""
Work = Callable[[Tell], Coroutine[Any, Any, bool]]
"""What a job does; says whether all of it was done."""

NIGHTLY: Final = "nightly"
HOURS_OVER: Final = "IOA-PUL-040"
"""Code of the error that ends a pull when its hours are over."""

_LOOK_S: Final = 10
_BUSY_AGAIN: Final = timedelta(minutes=5)
_GENTLE_S: Final = 4.0
_STOP_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Job:
    """Something that the service does again and again.

    Attributes:
        name: What it is called in the ledger.
        rule: When it is due.
        work: What it does.
        jitter_s: It begins up to so many seconds later.
        pulls: Whether it reads sources, so that it waits for the hours of pulling.
        gentle: Whether it is short, and is rather waited for than ended.
    """

    name: str
    rule: Rule
    work: Work
    jitter_s: int = 0
    pulls: bool = False
    gentle: bool = False


class Apart:
    """One coroutine in a thread and loop of its own, which another thread can end."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    def run(self, work: Work) -> bool:
        """Runs it to its end, in the calling thread."""
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            return runner.run(self._watched(work))

    def stop(self) -> None:
        """Ends it where it waits next, or at its next word; what it did is kept."""
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    async def _watched(self, work: Work) -> bool:
        self._task = asyncio.current_task()
        self._tell("", 0, None)
        try:
            return await work(self._tell)
        finally:
            self._task = None

    def _tell(self, _what: str, _done: int, _total: int | None) -> None:
        if self._stopping.is_set():
            raise asyncio.CancelledError


class Jobs:
    """Does jobs when they are due.

    Args:
        ledger: Knows when that is.
        jobs: What is done.
        window: The hours of pulling.
        clock: Says what time it is.
        rng: For the jitter.
    """

    def __init__(
        self,
        ledger: Ledger,
        jobs: Sequence[Job],
        window: Window,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: Random | None = None,
    ) -> None:
        self._ledger = ledger
        self._jobs = {job.name: job for job in jobs}
        self._window = window
        self._clock = clock
        self._rng = rng or SystemRandom()
        self._holder = new_holder()
        self._under_way: dict[str, tuple[Apart, asyncio.Task[None]]] = {}
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._stopping = False

    # --- for the service ----------------------------------------------------------------------------------------

    def settle(self) -> dict[str, datetime]:
        """Writes down when each job is due, as far as the ledger does not know; gives it by name."""
        now = self._clock()
        with self._ledger.begin() as connection:
            stored = stored_jobs(connection)
            last = last_run(connection)
            due = {
                name: due_at_start(job.rule, stored.get(name), last if name == NIGHTLY else None, now)
                for name, job in self._jobs.items()
            }
            for name, moment in due.items():
                if name not in stored and moment > now:
                    due[name] = moment + self._jitter(self._jobs[name])
            put_jobs(connection, {name: (self._jobs[name].rule.text, moment) for name, moment in due.items()})
        return due

    def start(self) -> None:
        """Looks from now on for what is due, in the running loop."""
        self._scheduler.add_job(
            self._look, "interval", seconds=_LOOK_S, next_run_time=datetime.now(UTC), coalesce=True, max_instances=1,
            misfire_grace_time=None,
        )  # fmt: skip
        self._scheduler.start()

    def stop_soon(self) -> None:
        """Begins nothing any more, and ends what would take long; from any thread, or a signal's handler."""
        self._stopping = True
        for name, (apart, _) in tuple(self._under_way.items()):
            if not self._jobs[name].gentle:
                apart.stop()

    async def stop(self) -> None:
        """Ends everything; returns once it has ended, or cannot be waited for any longer."""
        self.stop_soon()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        for patience in (_GENTLE_S, _STOP_S):
            tasks = [task for _, task in self._under_way.values()]
            if tasks:
                await asyncio.wait(tasks, timeout=patience)
            for apart, _ in tuple(self._under_way.values()):
                apart.stop()

    async def look(self) -> list[str]:
        """Begins what is due; gives its names."""
        begun = [] if self._stopping else await asyncio.to_thread(self._claimed)
        for job in begun:
            apart = Apart()
            task = asyncio.create_task(asyncio.to_thread(self._do, job, apart), name=job.name)
            self._under_way[job.name] = apart, task
            task.add_done_callback(lambda _, name=job.name: self._under_way.pop(name, None))  # type: ignore[misc]
            if self._stopping:
                apart.stop()
        return [job.name for job in begun]

    async def ended(self) -> None:
        """Waits until nothing is under way."""
        while self._under_way:
            await asyncio.gather(*(task for _, task in self._under_way.values()))

    # --- in threads ---------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        try:
            await self.look()
        except AdapterError as exc:  # the ledger is busy, or its server is away: it is looked again soon
            log.error("schedule unread", code=exc.code)

    def _jitter(self, job: Job) -> timedelta:
        return timedelta(seconds=self._rng.uniform(0, job.jitter_s))

    def _claimed(self) -> list[Job]:
        now = self._clock()
        with self._ledger.read() as connection:
            stored = stored_jobs(connection)
        is_open = self._window.is_open(now)
        found = []
        for name, job in self._jobs.items():
            known = stored.get(name)
            if known is None or name in self._under_way or (job.pulls and not is_open):
                continue
            due = datetime.fromisoformat(known.due)
            if implausible(job.rule, due, now):
                self._put_right(job, now)
            elif due <= now or known.outcome == RUNNING:
                with self._ledger.begin() as connection:
                    now = self._clock()  # anew: a lease that began while another wrote might be over already
                    if claim(connection, name, self._holder, now, job.rule.after(now) + self._jitter(job)):
                        found.append(job)
        return found

    def _put_right(self, job: Job, now: datetime) -> None:
        """Gives a job another time, whose own was worked out while the clock was wrong."""
        log.warning("job rescheduled", job=job.name)
        with self._ledger.begin() as connection:
            due = {name: (one.rule, datetime.fromisoformat(one.due)) for name, one in stored_jobs(connection).items()}
            due[job.name] = job.rule.text, job.rule.after(now)
            put_jobs(connection, due)

    def _do(self, job: Job, apart: Apart) -> None:
        began = self._clock()
        try:
            with holding(self._ledger, self._holder, lease_name(job.name), lost=apart.stop):
                outcome, due = self._outcome(job, apart)
                with self._ledger.begin() as connection:
                    if not renew(connection, self._holder, self._clock(), lease_name(job.name)):
                        log.warning("job taken over", job=job.name)  # another does it, and says how it ended
                        return
                    end_job(connection, job.name, self._clock(), outcome, due)
        except AdapterError as exc:  # how it ended could not be written: it counts as cut off, and is done again
            log.error("job not noted", job=job.name, code=exc.code)
            return
        if not job.gentle or outcome != "complete":
            log.info("job ended", job=job.name, outcome=outcome, began=timestamp(began))

    def _outcome(self, job: Job, apart: Apart) -> tuple[str, datetime | None]:
        """How it ended, and when it is due where that is another time than planned."""
        try:
            return ("complete" if apart.run(job.work) else "failed"), None
        except asyncio.CancelledError:
            return "stopped", self._clock()  # as soon as the service runs again
        except AdapterError as exc:
            if exc.code == BUSY:
                return "busy", self._clock() + _BUSY_AGAIN
            if exc.code == HOURS_OVER:
                return "paused", self._clock()  # as soon as its hours begin
            log.error("job failed", job=job.name, code=exc.code)
        except Exception as exc:  # noqa: BLE001 - the service outlives a job; the message may hold anything
            log.error("job failed", job=job.name, exception=type(exc).__name__)
        return "failed", None
