"""Jobs of the service: once each, by one process, caught up once, done again where they were cut off."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.errors import LedgerError, PullError
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.jobs import MOST_TRIES, StoredJob, stored_jobs
from io_fhir_adapter.ledger.runs import write_state
from io_fhir_adapter.serve.jobs import Job, Jobs, Tell
from io_fhir_adapter.serve.schedule import Cron, Window

BERLIN = "Europe/Berlin"
EVENING = datetime(2026, 1, 30, 18, 0, tzinfo=UTC)
NIGHT = datetime(2026, 1, 31, 1, 30, tzinfo=UTC)  # 02:30 in Berlin


class Clock:
    def __init__(self, now: datetime = EVENING) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Work:
    """Counts how often it was done, and does what it is told to."""

    def __init__(self) -> None:
        self.done = 0
        self.then: Callable[[Tell], Coroutine[Any, Any, bool]] | None = None

    async def __call__(self, tell: Tell) -> bool:
        self.done += 1
        return await self.then(tell) if self.then is not None else True


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = new_ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def service(ledger: Ledger, work: Work, clock: Clock, hours: str = "", cron: str = "30 2 * * *", **more: Any) -> Jobs:
    job = Job("nightly", Cron(cron, BERLIN), work, pulls=True, **more)
    made = Jobs(ledger, [job], Window(hours, job.rule._trigger.timezone), clock=clock)  # type: ignore[attr-defined]
    made.settle()
    return made


def look(*services: Jobs) -> list[list[str]]:
    """All look at the same time, and what they begin is waited for."""

    async def together() -> list[list[str]]:
        found = await asyncio.gather(*(one.look() for one in services))
        for one in services:
            await one.ended()
        return found

    return asyncio.run(together())


def known(ledger: Ledger) -> StoredJob:
    with ledger.read() as connection:
        return stored_jobs(connection)["nightly"]


def fails(error: BaseException) -> Callable[[Tell], Coroutine[Any, Any, bool]]:
    async def work(_tell: Tell) -> bool:
        raise error

    return work


def test_a_job_is_done_when_it_is_due_and_not_before(ledger: Ledger) -> None:
    clock, work = Clock(), Work()
    one = service(ledger, work, clock)
    assert (look(one), known(ledger).due) == ([[]], timestamp(NIGHT))
    clock.now = NIGHT
    assert look(one) == [["nightly"]]
    assert look(one) == [[]]
    found = known(ledger)
    assert (work.done, found.outcome, found.due) == (1, "complete", timestamp(NIGHT + timedelta(days=1)))


def test_of_two_replicas_one_does_it(ledger: Ledger) -> None:
    clock, work = Clock(), Work()
    both = service(ledger, work, clock), service(ledger, work, clock)
    for day in range(3):
        clock.now = NIGHT + timedelta(days=day)
        assert sorted(look(*both)) == [[], ["nightly"]]
    assert work.done == 3


def test_missed_nights_are_caught_up_once_by_whoever_starts(ledger: Ledger) -> None:
    clock, work = Clock(), Work()
    service(ledger, work, clock)
    clock.now = NIGHT + timedelta(days=4, hours=7)
    again = service(ledger, work, clock)
    assert (look(again), look(again)) == ([["nightly"]], [[]])
    assert (work.done, known(ledger).due) == (1, timestamp(NIGHT + timedelta(days=5)))


def test_what_was_cut_off_is_done_again_a_few_times(ledger: Ledger) -> None:
    clock, work = Clock(NIGHT - timedelta(hours=1)), Work()
    one = service(ledger, work, clock)
    clock.now = NIGHT
    work.then = fails(SystemExit())  # as if the process had gone: nothing is written any more
    for attempt in range(MOST_TRIES + 2):
        clock.now += timedelta(minutes=10)
        begun = attempt < MOST_TRIES
        try:
            assert look(one) == [["nightly"] if begun else []]
        except SystemExit:
            assert begun
        one = service(ledger, work, clock)
    assert (work.done, known(ledger).due) == (MOST_TRIES, timestamp(NIGHT + timedelta(days=1)))
    work.then, clock.now = None, NIGHT + timedelta(days=1)
    assert look(one) == [["nightly"]]
    assert (known(ledger).outcome, known(ledger).tries) == ("complete", 0)


def test_a_living_replica_is_waited_for_and_a_dead_one_taken_over(ledger: Ledger) -> None:
    clock, work = Clock(), Work()
    one = service(ledger, work, clock)
    clock.now = NIGHT
    with ledger.begin() as connection:
        write_state(connection, "job nightly", f"{timestamp(NIGHT + timedelta(minutes=3))} process 1.7 on elsewhere")
    assert look(one) == [[]]
    clock.now += timedelta(minutes=4)
    assert look(one) == [["nightly"]]
    with ledger.begin() as connection:  # of this machine it is known that the process is gone
        holder = f"process 4194305.7 on {socket.gethostname()}"
        write_state(connection, "job nightly", f"{timestamp(clock.now + timedelta(days=2))} {holder}")
    clock.now = NIGHT + timedelta(days=1)
    assert look(one) == [["nightly"]]


@pytest.mark.parametrize(
    ("error", "outcome", "wait"),
    [
        (LedgerError("another job is under way", number=6), "busy", timedelta(minutes=5)),
        (PullError("the hours are over", number=40), "paused", timedelta()),
        (PullError("no answer", number=2), "failed", timedelta(days=1)),
        (ZeroDivisionError("Erika Mustermann"), "failed", timedelta(days=1)),
    ],
)
def test_how_a_job_ended_says_when_it_comes_again(
    ledger: Ledger, capfd: pytest.CaptureFixture[str], error: Exception, outcome: str, wait: timedelta
) -> None:
    clock, work = Clock(), Work()
    one = service(ledger, work, clock)
    clock.now, work.then = NIGHT, fails(error)
    look(one)
    found = known(ledger)
    assert (found.outcome, found.due) == (outcome, timestamp(NIGHT + wait))
    assert "Mustermann" not in "".join(capfd.readouterr())


def test_nothing_is_pulled_outside_its_hours(ledger: Ledger) -> None:
    clock, work = Clock(), Work()
    one = service(ledger, work, clock, hours="03:00-05:00")
    clock.now = NIGHT
    assert look(one) == [[]]
    clock.now = NIGHT + timedelta(minutes=30)
    assert look(one) == [["nightly"]]
    clock.now = NIGHT + timedelta(days=2, hours=7)  # a night was missed, and now it is day
    assert look(one) == [[]]
    clock.now = NIGHT + timedelta(days=2, hours=24, minutes=30)
    assert (look(one), look(one)) == ([["nightly"]], [[]])


def test_a_clock_set_back_does_not_do_it_twice_and_one_far_ahead_is_put_right(ledger: Ledger) -> None:
    clock, work = Clock(), Work()
    one = service(ledger, work, clock)
    clock.now = NIGHT
    look(one)
    clock.now = NIGHT - timedelta(hours=1)
    look(one)
    clock.now = NIGHT
    look(one)
    assert work.done == 1
    clock.now = NIGHT + timedelta(days=3000)
    look(one)
    clock.now = NIGHT + timedelta(days=1, minutes=-1)
    assert (look(one), known(ledger).due) == ([[]], timestamp(NIGHT + timedelta(days=1)))


@pytest.mark.parametrize("gentle", [False, True])
def test_a_stopped_job_is_done_again_and_a_short_one_is_waited_for(ledger: Ledger, gentle: bool) -> None:
    clock, work = Clock(), Work()
    one = service(ledger, work, clock, gentle=gentle)
    clock.now = NIGHT

    async def until_told(tell: Tell) -> bool:
        for _ in range(20 if gentle else 2_000):
            await asyncio.sleep(0.01)
            tell("reading", 1, None)
        return True

    async def begin_and_stop() -> None:
        await one.look()
        await one.stop()
        assert await one.look() == []

    work.then = until_told
    asyncio.run(begin_and_stop())
    found = known(ledger)
    if gentle:
        assert found.outcome == "complete"
        return
    assert (found.outcome, found.due) == ("stopped", timestamp(NIGHT))
    work.then = None
    assert look(service(ledger, work, clock)) == [["nightly"]]


def test_a_job_that_is_not_configured_any_more_is_forgotten(ledger: Ledger) -> None:
    clock, work = Clock(), Work()
    service(ledger, work, clock)
    Jobs(ledger, [Job("other", Cron("0 1 * * *", BERLIN), work)], Window("", UTC), clock=clock).settle()
    with ledger.read() as connection:
        assert set(stored_jobs(connection)) == {"other"}
