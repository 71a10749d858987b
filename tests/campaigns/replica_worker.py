"""Services of the campaign of replicas, each in a process of its own that may be killed at any time.

Everything is imported before the first line on stdin forks one (``chaos_worker.fork_for_each_line``). What is not as in
a hospital: the clock, which others turn; the name of the machine, since each replica has one of its own; how often it
is looked for what is due; and what is drawn, written out and random.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.campaigns.chaos_worker import fork_for_each_line
from tests.campaigns.year import moving, rules_of_few

from io_fhir_adapter import demo
from io_fhir_adapter.cli import service
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.serve import app, jobs
from io_fhir_adapter.serve.jobs import Job, Tell, Work
from io_fhir_adapter.serve.nights import jobs_of

__all__ = ["SharedClock", "as_in_the_campaign"]

LOOK_S = 0.3
NONCE = "5a" * 32


class SharedClock:
    """A clock that several processes read: the machine's own, so far off as a file says."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def here(self) -> datetime:
        """What every replica takes for the time."""
        return datetime.now(UTC) + timedelta(seconds=float(self._path.read_text(encoding="ascii")))

    def seconds(self) -> float:
        """The same in seconds since 1970."""
        return self.here.timestamp()

    def turn(self, moment: datetime) -> None:
        """Makes it that time."""
        part = self._path.with_suffix(".part")
        part.write_text(str((moment - datetime.now(UTC)).total_seconds()), encoding="ascii")
        part.replace(self._path)


def as_in_the_campaign(patch: pytest.MonkeyPatch) -> None:
    """What replicas and the facility that nobody disturbs have in common: few cases, one nonce, no charts."""
    patch.setattr("io_fhir_adapter.submit.announce.secrets", SimpleNamespace(token_hex=lambda _number: NONCE))
    patch.setattr("io_fhir_adapter.pipeline.report_files", lambda *_data, **_how: {})
    patch.setattr("io_fhir_adapter.cli.facility.rules_for", rules_of_few)


def serve(config: str, clock: str, machine: str, witness: str) -> None:
    """The serve command until it is killed; each job that begins and ends is a line in the witness's file."""
    shared = SharedClock(Path(clock))
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(socket, "gethostname", lambda: machine)
        stack.enter_context(moving(shared))
        as_in_the_campaign(patch)
        patch.setattr(jobs, "datetime", datetime)  # APScheduler looks by the true time, for what is due by the other
        patch.setattr(jobs, "_LOOK_S", LOOK_S)
        patch.setattr(app, "Jobs", partial(jobs.Jobs, clock=lambda: shared.here))
        patch.setattr(app, "jobs_of", lambda *what, **_aside: [witnessed(job, witness) for job in jobs_of(*what)])
        run(["serve", "--config", config, "--port", "0"])


def witnessed(job: Job, witness: str) -> Job:
    """The same job, whose every beginning and end is written down with a time that all processes share."""

    def said(what: str) -> None:
        with Path(witness).open("a", encoding="ascii") as lines:
            lines.write(f"{time.monotonic()} {os.getpid()} {job.name} {what}\n")

    def seen(work: Work) -> Work:
        async def done(tell: Tell) -> Any:
            said("begins")
            try:
                return await work(tell)
            finally:
                said("ends")

        return done

    return replace(job, work=seen(job.work))


if __name__ == "__main__":
    assert demo  # brings all that a night needs
    assert service
    fork_for_each_line({"serve": serve})
