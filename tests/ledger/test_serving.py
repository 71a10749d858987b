"""Who may work on a ledger: one service on a file, and of holders of a lease only those that are alive."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from tests.ledgers import new_ledger

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger import lease
from io_fhir_adapter.ledger.lease import LEASE, holding, new_holder, take
from io_fhir_adapter.ledger.serving import only_service

NOW = datetime(2026, 1, 30, 2, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_a_second_service_on_a_file_is_told_so_and_the_next_may_begin(tmp_path: Path) -> None:
    config = LedgerConfig(path=tmp_path / "ledger.sqlite")
    for _ in range(2):
        with only_service(config):
            refusal = pytest.raises(LedgerError, match="another service runs on this ledger")
            with refusal as refused, only_service(config):
                pytest.fail("two at a time")
            assert (refused.value.code, refused.value.transient) == ("IOA-LED-009", True)


def test_postgresql_takes_several() -> None:
    config = LedgerConfig.model_validate({"url": "postgresql+psycopg://adapter@db.example/ledger"})
    with only_service(config), only_service(config):
        pass


def test_the_command_says_it_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "facility": {"code": "S-1", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "export", "kind": "files", "paths": ["none.ndjson"]}],
    }
    path = tmp_path / "facility.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    new_ledger(tmp_path / "ledger.sqlite").close()
    with only_service(LedgerConfig(path=tmp_path / "ledger.sqlite")):
        assert run(["serve", "--config", str(path), "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert "another service runs on this ledger, which is a file and takes one" in said
    assert "ledger.url" in said
    assert len(said.splitlines()) == 1


def test_of_another_machine_or_container_with_the_same_name_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes have numbers of their own: that there is none of this number here says nothing."""
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    monkeypatch.setattr("os.getpid", lambda: 4_194_305)  # larger than any
    dead = new_holder()
    elsewhere = dead.replace("(", "(0")
    assert elsewhere != dead
    with ledger.begin() as connection:
        take(connection, elsewhere, NOW)
        assert take(connection, "b", NOW + SECOND) == elsewhere
        assert take(connection, "b", NOW + LEASE + SECOND) == ""
        take(connection, dead, NOW + 3 * LEASE)
        assert take(connection, "b", NOW + 3 * LEASE + SECOND) == ""
    ledger.close()


def test_who_lost_a_lease_hears_of_it_and_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    monkeypatch.setattr(lease, "_RENEW_S", 0.01)
    lost = threading.Event()
    with ledger.begin() as connection:
        take(connection, "a", NOW)
    with holding(ledger, "a", lost=lost.set):
        with ledger.begin() as connection:  # "a" stood still for too long
            assert take(connection, "b", datetime.now(UTC) + 2 * LEASE) == ""
        assert lost.wait(20)
    with ledger.read() as connection:
        assert lease.job_of(connection, datetime.now(UTC))[0] == "b"
    ledger.close()
