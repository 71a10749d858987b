"""The nightly job is killed again and again, wherever it is; the run that gets through ends as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.lease import give_back
from io_fhir_adapter.ledger.runs import read_state
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore

WORKER = Path(__file__).with_name("worker.py")
CLOCK = datetime(2026, 1, 30, 2, 30, tzinfo=UTC)
SEED = 20260130


class Worker:
    """The process that jobs are forked from."""

    def __init__(self, stack: ExitStack) -> None:
        self._process = stack.enter_context(
            subprocess.Popen([sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert self._process.stdin is not None
        stack.callback(self._process.stdin.close)

    def _hear(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def run(self, arguments: list[str | int], started: Callable[[int], None]) -> int:
        """Runs one job; gives the number of its transactions, 0 where it was killed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(arguments)}\n")
        self._process.stdin.flush()
        started(self._hear())
        said = self._hear()
        if said > 0:
            assert self._hear() == 0
            return said
        assert said == -signal.SIGKILL
        return 0


class Deadly:
    """An application whose n-th request from now (of one method) kills its maker, before it is answered or after."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.victim = 0
        self.at = 0
        self.answered = False
        self.method = ""
        self.served = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        mine = scope["type"] == "http" and scope["method"].startswith(self.method)
        self.served += mine
        number = self.served
        if mine and number == self.at and not self.answered:
            os.kill(self.victim, signal.SIGKILL)
        await self._app(scope, receive, send)
        if mine and number == self.at and self.answered:
            os.kill(self.victim, signal.SIGKILL)


class Site:
    """A hospital, a receiver, and the adapter's folder between them."""

    def __init__(self, hospital: Hospital, worker: Worker, folder: Path, stack: ExitStack) -> None:
        resources = [resource for found in hospital.resources.values() for resource in found]
        self.store = SandboxStore.from_resources(resources, hospital.broken, hospital.later, clock=lambda: CLOCK)
        self.received = ReceiverStore(f"sqlite:///{folder / 'receiver.sqlite'}")
        stack.callback(self.received.close)
        self.hospital, self.receiver = Deadly(sandbox_app(self.store)), Deadly(receiver_app(self.received))
        self._source = stack.enter_context(LoopbackServer(self.hospital)).base_url
        self._target = stack.enter_context(LoopbackServer(self.receiver)).base_url
        self._worker = worker
        self.folder = folder
        key = folder / "pseudonym.key"
        key.write_text("5a" * 32)
        key.chmod(0o600)

    def run(self, transaction: int = 0, kind: str = "committed") -> int:
        """One night, killed at that transaction; gives the number of its transactions, 0 where it was killed."""

        def started(process: int) -> None:
            self.hospital.victim = self.receiver.victim = process

        arguments: list[str | int] = [
            f"{self._source}/fhir",
            f"{self._target}/fhir",
            str(self.folder),
            "2026-01-30",
            transaction,
            kind,
        ]
        done = self._worker.run(arguments, started)
        self.hospital.at = self.receiver.at = 0
        if not done:
            self._outlive_the_leases()
        return done

    def run_until_request(self, server: Deadly, number: int, *, answered: bool, method: str = "") -> None:
        """One night that is killed at a request."""
        server.at, server.answered, server.method = server.served + number, answered, method
        assert self.run() == 0
        server.method = ""

    def _outlive_the_leases(self) -> None:
        """As if the killed job's leases had run out: that on the ledger and that on what it was sending."""
        ledger = open_ledger(LedgerConfig(path=self.folder / "ledger.sqlite"))
        with ledger.begin() as connection:
            give_back(connection, read_state(connection, "job").partition(" ")[2])
            connection.exec_driver_sql("update outbox set lease_until = ''")
        ledger.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger, in order."""
        connection = sqlite3.connect(self.folder / "ledger.sqlite")
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """What must be the same however often the job was killed."""
        return {
            "facts": self.rows(
                "select source, resource_type, id, patient, status, day, mapped, known_system, digest, data"
                " from facts order by 1, 2, 3"
            ),
            "decisions": self.rows("select * from decisions order by patient, number"),
            "quarantine": self.rows(
                "select source, resource_type, position, reason, code from quarantine order by 1, 2, 3"
            ),
            "cursors": self.rows(  # when everything was last read is a time of our own clock
                "select source, resource_type, value from cursors where resource_type <> 'reconciled'"
            ),
            "stale": self.rows("select patient from stale"),
            "draws": self.rows("select programme, period, window_start, window_end, digest, frame_size from draws"),
            "cases": self.rows("select patient from cases order by patient"),  # the rest hangs on the nonce
            "outbox": self.rows("select period, state from outbox order by created"),
        }

    def nonces(self) -> set[str]:
        """What was drawn with so far."""
        return {nonce for (nonce,) in self.rows("select nonce from draws where nonce <> ''")}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are forked here")
def test_a_job_killed_anywhere_ends_like_one_that_was_not(tmp_path: Path) -> None:
    rng = Random(SEED)
    drawn: set[str] = set()
    made = build_hospital(patients=60, procedures=1500)
    with ExitStack() as stack:
        worker = Worker(stack)
        folders = [tmp_path / name for name in ("undisturbed", "killed")]
        for folder in folders:
            folder.mkdir()
        other, site = (Site(made, worker, folder, stack) for folder in folders)

        transactions = other.run()
        site.run_until_request(site.hospital, rng.randint(1, 4), answered=rng.random() < 0.5)
        for method in ("PUT", "GET"):  # announcing the frame, asking for the nonce
            for answered in (False, True):
                site.run_until_request(site.receiver, 1, answered=answered, method=method)
                assert not site.nonces()
        for kind in ("open", "committed", "open", "committed"):
            # a run after one that got far has less to do
            assert site.run(rng.randint(3, transactions // 3), kind) == 0
            drawn |= site.nonces()
        for answered in (False, True):  # the receiver has it then, and the adapter does not know
            site.run_until_request(site.receiver, 1, answered=answered, method="POST")
            drawn |= site.nonces()
        assert len(site.received.submissions()) == 1
        assert site.rows("select state, attempts >= 2 from outbox") == [("sending", 1)]
        assert site.run() > 0
        assert site.rows("select state, attempts >= 3 from outbox") == [("accepted", 1)]
        assert len(site.received.submissions()) == 1
        assert site.content() == other.content()

        for one in (other, site):
            one.store.apply_later()
        transactions = other.run()
        site.run_until_request(site.hospital, rng.randint(2, 4), answered=True)
        for kind in ("open", "committed", "committed"):
            assert site.run(rng.randint(3, transactions // 3), kind) == 0
        assert site.run() > 0
        assert site.content() == other.content()
        assert len(drawn | site.nonces()) == 1
        assert len(site.received.submissions()) == len(other.received.submissions())
