"""Nights of the service: each once, with its output, whenever a process ends; and those in a process of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import new_ledger
from tests.serve.test_jobs import Clock, known, look

from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.lease import BUSY, only_job
from io_fhir_adapter.ledger.runs import recent_runs
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.serve.jobs import Jobs
from io_fhir_adapter.serve.night_aside import night_aside
from io_fhir_adapter.serve.nights import Nights, Wanted, jobs_of, window_of

NIGHT = datetime(2026, 1, 31, 1, 30, tzinfo=UTC)  # 02:30 in Berlin
SOON = timedelta(minutes=10)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    procedure = {
        "resourceType": "Procedure", "id": "p", "status": "completed", "subject": {"reference": "Patient/1"},
        "performedDateTime": "2025-05-02", "code": {"text": "synthetic"},
    }  # fmt: skip
    (tmp_path / "export.ndjson").write_text(json.dumps(procedure), encoding="utf-8")
    return Config.model_validate({
        "facility": {"code": "A-1", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "export", "kind": "files", "paths": [str(tmp_path / "export.ndjson")]}],
        "ledger": {"path": str(tmp_path / "ledger.sqlite")},
        "schedule": {"cron": "30 2 * * *", "jitter_s": 0, "reconcile": None, "retention": None},
        "output": {"folder": str(tmp_path / "out")},
    })  # fmt: skip


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    assert config.ledger.path is not None
    opened = new_ledger(config.ledger.path)
    yield opened
    opened.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, of runs too."""
    made = Clock(NIGHT - SOON)

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return made.now.astimezone(tz)

    monkeypatch.setattr("io_fhir_adapter.pipeline.datetime", Moved)
    return made


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts take seconds to load."""
    monkeypatch.setattr("io_fhir_adapter.pipeline.report_files", lambda *_data, **_how: {"report.html": b"drawn"})


def service(config: Config, ledger: Ledger, clock: Clock) -> Jobs:
    jobs = jobs_of(config, ledger, load_ruleset(), lambda _: None, clock)
    made = Jobs(ledger, jobs, window_of(config), clock=clock)
    made.settle()
    return made


def states(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return [run.state for run in reversed(recent_runs(connection, 9))]


def killed(*_: Any, **__: Any) -> None:
    raise SystemExit


async def killed_telling(*_: Any) -> None:
    raise SystemExit


def killed_in(owner: type, name: str, by: Callable[..., Any], jobs: Jobs, clock: Clock) -> None:
    """The service begins its night and is killed there."""
    clock.now = NIGHT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, by)
        with pytest.raises(SystemExit):
            look(jobs)


@pytest.fixture
def killed_at_the_end(config: Config, ledger: Ledger, clock: Clock) -> None:
    """A service that did its night and was killed before it had written that down."""
    killed_in(Nights, "_tell", killed_telling, service(config, ledger, clock), clock)
    assert (states(ledger), known(ledger).outcome) == (["complete"], "running")
    assert (config.output.folder / "report.html").read_bytes() == b"drawn"


@pytest.mark.usefixtures("killed_at_the_end")
def test_a_night_that_is_done_is_not_done_again(config: Config, ledger: Ledger, clock: Clock) -> None:
    clock.now += SOON
    assert look(service(config, ledger, clock)) == [["nightly"]]
    assert (states(ledger), known(ledger).outcome) == (["complete"], "complete")
    clock.now = NIGHT + timedelta(days=1)
    assert look(service(config, ledger, clock)) == [["nightly"]]
    assert states(ledger) == ["complete", "complete"]


@pytest.mark.usefixtures("killed_at_the_end")
def test_a_service_that_is_back_after_its_next_night_does_that_one(
    config: Config, ledger: Ledger, clock: Clock
) -> None:
    clock.now = NIGHT + timedelta(days=3)
    assert look(service(config, ledger, clock)) == [["nightly"]]
    assert states(ledger) == ["complete", "complete"]


def test_a_night_whose_output_was_not_written_is_not_done(config: Config, ledger: Ledger, clock: Clock) -> None:
    killed_in(Nightly, "write_output", killed, service(config, ledger, clock), clock)
    assert states(ledger) == ["failed"]
    clock.now += SOON
    assert look(service(config, ledger, clock)) == [["nightly"]]
    assert states(ledger) == ["failed", "complete"]
    assert (config.output.folder / "report.html").exists()


def test_output_that_cannot_be_written_fails_the_night_and_not_the_run(config: Config, ledger: Ledger) -> None:
    config.output.folder.write_text("in the way", encoding="utf-8")
    seen: list[bool] = []
    assert asyncio.run(Nights(config, ledger, load_ruleset(), seen.append).night(lambda *_: None)) is False
    assert (seen, states(ledger)) == ([False], ["complete"])


def test_who_is_told_to_stop_while_people_are_told_has_done_the_night(
    config: Config, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(Nights, "_tell", stopped)
    one = service(config, ledger, clock)
    clock.now = NIGHT
    assert look(one) == [["nightly"]]
    assert (states(ledger), known(ledger).outcome) == (["complete"], "complete")


def test_another_job_under_way_is_said_by_its_own_code(config: Config, ledger: Ledger) -> None:
    with only_job(ledger), pytest.raises(AdapterError, match="another job is under way") as caught:
        asyncio.run(night_aside(Wanted(config, None)))
    assert caught.value.code == BUSY


def test_a_process_that_dies_is_a_failed_night_and_not_the_end_of_the_service(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AdapterError, match="the process of the night ended early"):
        asyncio.run(night_aside(Wanted(config, None)))
    seen: list[bool] = []
    nights = Nights(config, ledger, load_ruleset(), seen.append, lambda: NIGHT, aside=True)
    assert asyncio.run(nights.night(lambda *_: None)) is False
    assert seen == [False]
