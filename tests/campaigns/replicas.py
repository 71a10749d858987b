"""Two services on one PostgreSQL ledger, which are killed at any moment and started again, night after night."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from functools import partial
from pathlib import Path
from random import Random

import yaml
from sqlalchemy import Connection, text
from tests.campaigns.chaos import ROOT
from tests.campaigns.replica_worker import SharedClock
from tests.campaigns.year import ZONE, Clock, Facility

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.jobs import RUNNING, lease_name, stored_jobs
from io_fhir_adapter.ledger.lease import LEASE
from io_fhir_adapter.ledger.outbox import items
from io_fhir_adapter.ledger.runs import last_run, read_state

__all__ = ["Campaign", "Stint", "content", "stints"]

MACHINES = ("replica-a", "replica-b")
PATIENCE_S = 90.0
IDLE_S = 0.5  # so long nobody works before the clock is turned on: a few looks of every service
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Stint:
    """One beginning of a job; ``end`` is when it ended, or when its process was killed."""

    job: str
    process: int
    begin: float
    end: float
    cut_off: bool


def stints(witness: Path, killed: dict[int, float]) -> list[Stint]:
    """What the processes did, in order of its beginning."""
    found: list[Stint] = []
    open_ones: dict[tuple[int, str], float] = {}
    for line in witness.read_text(encoding="ascii").splitlines():
        moment, process, job, what = line.split()
        key = int(process), job
        if what == "begins":
            open_ones[key] = float(moment)
        else:
            found.append(Stint(job, key[0], open_ones.pop(key), float(moment), cut_off=False))
    for (process_id, job), begin in open_ones.items():
        found.append(Stint(job, process_id, begin, killed[process_id], cut_off=True))
    return sorted(found, key=lambda stint: stint.begin)


def content(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """What must be the same however often a service was killed."""
    queries = {
        "facts": "select source, resource_type, id, patient, status, day, mapped, digest from facts",
        "decisions": "select patient, number, date, category, decision, reason from decisions",
        "quarantine": "select source, resource_type, position, reason, code from quarantine",
        "cursors": "select source, resource_type, value from cursors where resource_type <> 'reconciled'",
        "stale": "select patient from stale",
        "draws": "select programme, period, digest, nonce, frame_size from draws",
        "cases": "select number, token, patient, category, role from cases",
        "outbox": "select identifier, period, state from outbox",
    }
    return {name: sorted(tuple(row) for row in connection.execute(text(query))) for name, query in queries.items()}


class Campaign:
    """The replicas, the clock that they share, and who kills them.

    Attributes:
        killed: Process to when it was killed.
        kills: How many of each machine's services were killed.
    """

    def __init__(self, facility: Facility, ledger: Ledger, night: Clock, seed: int) -> None:
        self.facility, self.ledger, self.night = facility, ledger, night
        self.rng = Random(seed)
        self.folder = facility.folder
        self.witness = self.folder / "witness.txt"
        self.witness.touch()
        self.clock = SharedClock(self.folder / "clock.txt")
        self.clock.turn(night.true)
        self.killed: dict[int, float] = {}
        self.kills: Counter[str] = Counter()
        self._running: dict[str, int] = {}
        self._pause = threading.Event()
        self._template = self._start_template()

    # --- processes ----------------------------------------------------------------------------------------------

    def _start_template(self) -> subprocess.Popen[str]:
        with (self.folder / "replicas.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.campaigns.replica_worker"], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def start(self, machine: str) -> None:
        """Starts the service of a machine."""
        config = self.folder / f"{machine}.yaml"
        document = self.facility.document()
        document["output"] = {"folder": str(self.folder / machine)}
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        stdin, stdout = self._template.stdin, self._template.stdout
        assert stdin is not None
        assert stdout is not None
        line = ["serve", str(config), str(self.folder / "clock.txt"), machine, str(self.witness)]
        stdin.write(f"{json.dumps(line)}\n")
        stdin.flush()
        self._running[machine] = int(stdout.readline())

    def kill(self, machine: str) -> None:
        """Kills it, whatever it does."""
        process = self._running.pop(machine)
        os.kill(process, signal.SIGKILL)
        self._until(lambda: not _lives(process), "it did not die")
        self.killed[process] = time.monotonic()
        self.kills[machine] += 1

    def stop(self) -> None:
        """Kills what is left."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        stdin, stdout = self._template.stdin, self._template.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        self._template.wait()
        stdout.close()

    # --- nights -------------------------------------------------------------------------------------------------

    def run_night(self, day: date, kills: int) -> None:
        """One night, in which so many services are killed, and some of them started again only after it."""
        self.night.true = datetime.combine(day, clock_time(), UTC)
        self.facility.hospital.arrive()
        for machine in MACHINES:
            if machine not in self._running:
                self.start(machine)
        self._until(self._is_settled, "nothing was scheduled")
        before = len(self._begun())
        self._turn_to(datetime.combine(day, clock_time(2, 30), ZONE).astimezone(UTC) + SECOND)
        for _ in range(kills):
            self._until(partial(self._is_begun, before, day), "no night began", turn=True)
            if self._is_done(day):
                break
            self._pause.wait(self.rng.uniform(0, 0.6))
            before = len(self._begun())
            self._kill_one()
        self._until(lambda: self._is_done(day), "the night did not end", turn=True)

    def _kill_one(self) -> None:
        """As a rule the one that is at work, sometimes any; it comes back at once, or after the night."""
        working = self._begun()[-1] if self._begun() else 0
        at_work = [machine for machine, process in self._running.items() if process == working]
        victim = at_work[0] if at_work and self.rng.random() < 0.8 else self.rng.choice(sorted(self._running))
        self.kill(victim)
        if not self._running or self.rng.random() < 0.5:
            self.start(victim)

    def _begun(self) -> list[int]:
        """The process of every beginning of a night so far."""
        lines = (line.split() for line in self.witness.read_text(encoding="ascii").splitlines())
        return [int(process) for _, process, job, what in lines if (job, what) == ("nightly", "begins")]

    def _is_begun(self, before: int, day: date) -> bool:
        return len(self._begun()) > before or self._is_done(day)

    def _is_settled(self) -> bool:
        """Whether the services have written down when what is due."""
        with self.ledger.read() as connection:
            return bool(stored_jobs(connection))

    def _is_done(self, day: date) -> bool:
        """Whether the night is complete, its job has ended, and everything in the outbox was accepted."""
        with self.ledger.read() as connection:
            run, job = last_run(connection), stored_jobs(connection).get("nightly")
            sent = all(item.state == "accepted" for item in items(connection))
        complete = run is not None and run.state == "complete" and run.summary["as_of"] == day.isoformat()
        return complete and sent and job is not None and job.outcome != RUNNING

    def _turn_to(self, moment: datetime) -> None:
        """Turns the clock while nobody works: whoever works has a lease that would run out at once."""
        self._until(lambda: self._turned(lambda _connection: moment), "somebody always works")

    def _turn_on(self) -> bool:
        """Turns the clock to when something is due again, or the leases of the dead have run out."""

        def soon(connection: Connection) -> datetime:
            now = self.clock.here
            job = stored_jobs(connection).get("nightly")
            due = datetime.fromisoformat(job.due) if job is not None else now
            busy = now < due < now + timedelta(minutes=10)  # it met a dead one's lease, and tries again
            return max(now + LEASE, due if busy else now) + SECOND

        return self._turned(soon)

    def _turned(self, moment: Callable[[Connection], datetime]) -> bool:
        with self.ledger.begin() as connection:  # nobody claims a job meanwhile
            names = ["job", *(lease_name(name) for name in stored_jobs(connection))]
            holders = [read_state(connection, name).partition(" ")[2] for name in names]
            living = {f"process {process}." for process in self._running.values()}
            if any(holder.startswith(tuple(living)) for holder in holders if holder):
                return False
            self.clock.turn(moment(connection))
            return True

    def _until(self, what: Callable[[], bool], problem: str, *, turn: bool = False) -> None:
        """Waits until it is so; where ``turn`` is, the clock goes on when nobody works any more."""
        end, idle = time.monotonic() + PATIENCE_S, time.monotonic()
        while not what():
            now = time.monotonic()
            assert now < end, f"{problem}: {(self.folder / 'replicas.log').read_text(errors='replace')[-2000:]}"
            if turn and now - idle > IDLE_S:
                self._turn_on()
                idle = now
            self._pause.wait(0.05)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
