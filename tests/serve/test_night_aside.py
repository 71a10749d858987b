"""A night in a process of its own: what keeps it from being done is said here, and it never outlives who wanted it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.classify.ruleset import rules_for
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.lease import BUSY, only_job
from io_fhir_adapter.serve.night_aside import night_aside
from io_fhir_adapter.serve.nights import Nights, Wanted

NIGHT = datetime(2026, 1, 31, 1, 30, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "export.ndjson").write_text("", encoding="utf-8")
    return Config.model_validate({
        "facility": {"code": "A-1", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "export", "kind": "files", "paths": [str(tmp_path / "export.ndjson")]}],
        "ledger": {"path": str(tmp_path / "ledger.sqlite")},
        "output": {"folder": str(tmp_path / "out")},
    })  # fmt: skip


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    assert config.ledger.path is not None
    opened = new_ledger(config.ledger.path)
    yield opened
    opened.close()


def wanted(config: Config) -> Wanted:
    return Wanted(config, None)


def test_another_job_under_way_is_said_by_its_own_code(config: Config, ledger: Ledger) -> None:
    with only_job(ledger), pytest.raises(AdapterError, match="another job is under way") as caught:
        asyncio.run(night_aside(wanted(config)))
    assert caught.value.code == BUSY


def test_a_process_that_dies_is_a_failed_night_and_not_the_end_of_the_service(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AdapterError, match="the process of the night ended early"):
        asyncio.run(night_aside(wanted(config)))
    seen: list[bool] = []
    nights = Nights(config, ledger, rules_for(config), seen.append, lambda: NIGHT, aside=True)
    assert asyncio.run(nights.night(lambda *_: None)) is False
    assert seen == [False]
