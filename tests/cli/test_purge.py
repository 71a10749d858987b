"""purge: what a user sees of it, what it refuses, and what it leaves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.facts import put_decisions
from io_fhir_adapter.ledger.intake import StoredFact, put_facts, stale_patients
from io_fhir_adapter.ledger.lease import take
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import Decision, ProcedureFact

WHO = "Patient/canary-4711"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A facility with one session of long ago."""
    path = tmp_path / "hospital.yaml"
    document = {"facility": {"code": "F-1"}, "sources": [{"name": "s", "kind": "files", "paths": ["x"]}]}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    ledger = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
    with ledger.begin() as connection:
        number = start_run(connection, datetime(2015, 1, 1, tzinfo=UTC))
        fact = ProcedureFact("s", "canary-p", WHO, "completed", "2015-01-01")
        put_facts(connection, [StoredFact(fact, mapped=True)], number)
        put_decisions(connection, WHO, [Decision("s", WHO, "2015-01-01", "tace", "counted", "threshold")])
        assert not stale_patients(connection)
    ledger.close()
    return path


def test_it_says_first_and_then_removes(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = {"procedures": 1, "sessions": 1, "people": 1, "others": 0, "draws": 0, "cases": 0, "waiting": 0}
    for arguments, dry in ((("--dry-run",), True), ((), False)):
        assert run(["purge", "-c", str(config), "--json", *arguments]) == 0
        said = json.loads(capfd.readouterr().out)
        assert said == {"before": said["before"], "dry-run": dry, **expected}
    assert run(["purge", "-c", str(config)]) == 0
    out = capfd.readouterr().out
    assert "removed       what is dated before 20" in out
    assert "0 Procedures and the decisions on 0 sessions" in out
    assert "chain of draws" in out
    assert "canary" not in out
    assert run(["count", "-c", str(config), "--period", "2015", "--json"]) == 0
    assert "2015: 1 sessions counted" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("before", "words"), [("2015", "is not a date"), ("2999-01-01", "is still needed: the reported year")]
)
def test_it_refuses_days_that_are_none_or_too_late(
    config: Path, capfd: pytest.CaptureFixture[str], before: str, words: str
) -> None:
    assert run(["purge", "-c", str(config), "--before", before]) == 2
    assert words in capfd.readouterr().err


def test_it_waits_for_no_other_job(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ledger = open_ledger(LedgerConfig(path=config.parent / "ledger.sqlite"))
    with ledger.begin() as connection:
        take(connection, "process 1.1 on elsewhere", datetime.now(UTC))
    ledger.close()
    assert run(["purge", "-c", str(config), "--before", "2016-01-01"]) == 1
    assert "another job is under way" in capfd.readouterr().err
