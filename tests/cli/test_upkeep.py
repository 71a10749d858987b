"""backup, restore and doctor: what a user sees, with which exit code, and that none of it names a patient."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import update

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.draws import StoredCase, commit_frame, put_cases, put_nonce
from io_fhir_adapter.ledger.lease import take
from io_fhir_adapter.ledger.outbox import enqueue, settle
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.ledger.schema import runs
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.review.keys import pseudonym_key
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.trust.frame import patient_token

PATIENT = "Patient/canary-4711"
Run = Callable[..., tuple[int, str, str]]


def configured(folder: Path, **more: Any) -> Path:
    """A configuration in that folder."""
    path = folder / "hospital.yaml"
    document = {
        "facility": {"code": "F-1"},
        "sources": [{"name": "a", "kind": "files", "paths": ["x"]}],
        "output": {"folder": "out"},
    }
    path.write_text(yaml.safe_dump(document | more), encoding="utf-8")
    return path


@pytest.fixture
def call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a facility; gives exit code, stdout and stderr, in which no patient is."""
    config = configured(tmp_path)

    def say(*arguments: str | Path) -> tuple[int, str, str]:
        code = run([*map(str, arguments), "--config", str(config)])
        shown = capfd.readouterr()
        assert "canary" not in shown.out + shown.err
        return code, shown.out, shown.err

    return say


@pytest.fixture
def place(tmp_path: Path) -> LedgerConfig:
    """The facility's ledger after a night with a draw."""
    now = datetime.now(UTC)
    config = LedgerConfig(path=tmp_path / "ledger.sqlite")
    key = pseudonym_key(tmp_path / "pseudonym.key")
    ledger = open_ledger(config)
    with ledger.begin() as connection:
        number = start_run(connection, now)
        finish_run(connection, number, now, "complete", {})
        window = ("2025-01-01", "2025-12-31")
        draw = commit_frame(connection, "iasios", "2025", window, b"{}", "sha256:1", 1, now)
        put_nonce(connection, draw, "ab" * 32, "local", now)
        token = patient_token(key, "F-1", PATIENT)
        put_cases(connection, draw, [StoredCase(1, "case", token, PATIENT, "2025-03-01", "tace", ())], now)
        enqueue(connection, "sha256:s", "2025", b"{}", now)
    ledger.close()
    return config


def looked_at(call: Run) -> tuple[int, dict[str, dict[str, str]]]:
    code, shown, _ = call("doctor", "--json")
    return code, {check["name"]: check for check in json.loads(shown)}


def test_there_and_back(call: Run, place: LedgerConfig, tmp_path: Path) -> None:
    code, shown, _ = call("backup", "--out", tmp_path / "b.sqlite")
    assert code == 0
    assert "verified  schema" in shown
    assert "pseudonym.key) is not in it" in shown
    code, _, said = call("backup", "--out", tmp_path / "b.sqlite")
    assert (code, said.count("\n")) == (2, 1)
    code, shown, _ = call("backup", "--out", tmp_path / "b.sqlite", "--force", "--json")
    made = json.loads(shown)
    assert (made["facility"], made["holds"]["rows"]["cases"], made["noted"]) == ("F-1", 1, True)
    code, _, said = call("restore", "--from", tmp_path / "b.sqlite")
    assert (code, said.count("\n")) == (1, 1)
    code, shown, _ = call("restore", "--from", tmp_path / "b.sqlite", "--replace", "--json")
    done = json.loads(shown)
    assert (code, done["ledger"]) == (0, str(place.path))
    assert Path(done["kept"]).is_file()
    assert any("conditional" in warning for warning in done["warnings"])
    assert place.path is not None
    place.path.unlink()
    code, shown, _ = call("restore", "--from", tmp_path / "b.sqlite")
    assert code == 0
    assert "Now run doctor" in shown
    code, checks = looked_at(call)
    assert (code, checks["pseudonym key"]["state"]) == (0, "ok")


def test_wrong_usage(call: Run) -> None:
    for arguments in (("backup",), ("restore",), ("doctor", "--loud")):
        assert call(*arguments)[0] == 2


def test_a_healthy_ledger(call: Run, place: LedgerConfig, tmp_path: Path) -> None:
    code, checks = looked_at(call)
    assert code == 0
    assert {name for name, check in checks.items() if check["state"] != "ok"} == {"backup"}
    assert checks["pseudonym key"]["text"].endswith("it fits the 1 patients of the last draw")
    call("backup", "--out", tmp_path / "b.sqlite")
    code, shown, _ = call("doctor")
    assert (code, "warn" in shown, "FAIL" in shown) == (0, False, False)


def test_nothing_is_made_by_looking(call: Run, tmp_path: Path) -> None:
    code, checks = looked_at(call)
    assert (code, checks["ledger"]["state"]) == (1, "fail")
    assert not (tmp_path / "ledger.sqlite").exists()
    assert not (tmp_path / "pseudonym.key").exists()


Spoil = Callable[[Path], object]


def changed(statement: str, days: int = 0) -> Spoil:
    """Does that to the ledger by hand; ``$ago`` is the moment so many days ago."""

    def do(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
            connection.executescript(statement.replace("$ago", ago(days)))

    return do


def cut(folder: Path) -> None:
    os.truncate(folder / "ledger.sqlite", 40_000)


def in_the_way(folder: Path) -> None:
    (folder / "out").write_text("a file")


def open_to_others(folder: Path) -> None:
    (folder / "pseudonym.key").chmod(0o640)


def another_key(folder: Path) -> None:
    (folder / "pseudonym.key").write_text("cd" * 32)


def no_key(folder: Path) -> None:
    (folder / "pseudonym.key").unlink()


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


FINDINGS: dict[str, tuple[Spoil, str, str, str]] = {
    "cut off": (cut, "ledger schema", "fail", "damaged"),
    "a row without its own": (
        changed("INSERT INTO cleared VALUES (9, 1, 'x', 'x', 'x', 'x')"),
        "ledger integrity",
        "fail",
        "1 rows belong to rows that are gone",
    ),
    "newer": (changed("UPDATE alembic_version SET version_num = '9999'"), "ledger schema", "fail", "newer version"),
    "older": (changed("UPDATE alembic_version SET version_num = '0003'"), "ledger schema", "warn", "older than"),
    "no ledger": (changed("DROP TABLE alembic_version"), "ledger schema", "fail", "this is no ledger"),
    "chain": (
        changed("DROP TRIGGER chain_no_update; UPDATE chain SET at = 'x' WHERE number = 2"),
        "ledger chains",
        "fail",
        "chain, link 2",
    ),
    "chain that is no JSON": (
        changed("DROP TRIGGER chain_no_update; UPDATE chain SET body = 'x'"),
        "ledger chains",
        "fail",
        "chain of draws is broken",
    ),
    "key open": (open_to_others, "pseudonym key", "fail", "others than its owner"),
    "another key": (another_key, "pseudonym key", "fail", "not the one that the cases were drawn with"),
    "no key": (no_key, "pseudonym key", "fail", "missing"),
    "dead job": (
        changed("INSERT INTO state VALUES ('job', '2025-01-01T00:00:00.000000Z process 1.1 on gone')"),
        "job",
        "warn",
        "one died (process 1.1 on gone)",
    ),
    "cut-off run": (changed("INSERT INTO runs VALUES (9, 'x', NULL, 'running', '{}', '')"), "last run", "warn", "cut"),
    "failed run": (
        changed("INSERT INTO runs VALUES (9, 'x', 'x', 'failed', '{}', 'no answer [IOA-NET-001]')"),
        "last run",
        "warn",
        "no answer [IOA-NET-001]",
    ),
    "late": (changed("UPDATE runs SET finished = '$ago'", 3), "last complete run", "warn", "3 days ago"),
    "too late": (changed("UPDATE runs SET finished = '$ago'", 8), "last complete run", "fail", "8 days ago"),
    "never complete": (changed("UPDATE runs SET state = 'failed'"), "last complete run", "fail", "none yet"),
    "never run": (changed("DELETE FROM runs"), "last run", "warn", "none yet"),
    "parked": (changed("UPDATE outbox SET state = 'parked'"), "outbox 2025", "fail", "parked"),
    "rejected": (changed("UPDATE outbox SET state = 'rejected'"), "outbox 2025", "fail", "rejected"),
    "stuck": (changed("UPDATE outbox SET created = '$ago'", 4), "outbox 2025", "warn", "queued"),
    "unapproved": (
        changed("UPDATE outbox SET state = 'held', created = '$ago'", 15),
        "outbox 2025",
        "warn",
        "held",
    ),
    "set aside": (
        changed(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 101) "
            "INSERT INTO quarantine SELECT 'a', 'Procedure', i, 'x', 'x', 1 FROM n"
        ),
        "quarantine",
        "warn",
        "101 resources (100.0%), 101",
    ),
    "old backup": (changed("INSERT INTO state VALUES ('backup', '$ago')", 9), "backup", "warn", "9 days ago"),
    "output": (in_the_way, "output folder", "fail", "cannot be written to"),
}


@pytest.mark.parametrize("case", FINDINGS)
def test_what_it_finds(call: Run, place: LedgerConfig, tmp_path: Path, case: str) -> None:
    spoil, name, state, said = FINDINGS[case]
    spoil(tmp_path)
    code, checks = looked_at(call)
    assert checks[name]["state"] == state
    assert said in checks[name]["text"]
    assert checks[name]["do"]
    assert code == (1 if state == "fail" else 0)


def test_what_is_as_it_should_be_is_not_complained_of(call: Run, place: LedgerConfig) -> None:
    ledger = open_ledger(place)
    with ledger.begin() as connection:
        assert take(connection, f"process {os.getpid()}.1 on elsewhere", datetime.now(UTC)) == ""
        start_run(connection, datetime.now(UTC))
        settle(connection, "sha256:s", "rejected")
        enqueue(connection, "sha256:t", "2025", b"{}", datetime.now(UTC) + timedelta(seconds=1))
        settle(connection, "sha256:t", "accepted")
    with ledger.begin() as connection:
        connection.execute(update(runs).where(runs.c.id == 1).values(finished=ago(1)))
    ledger.close()
    code, checks = looked_at(call)
    assert (code, "last run" in checks, checks["outbox"]["state"]) == (0, False, "ok")
    assert checks["job"]["text"].startswith("under way (process")


def test_servers_are_asked_for_their_clock_alone(
    place: LedgerConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with LoopbackServer(create_app(SandboxStore.from_resources([]))) as server:
        source = {"name": "s", "kind": "fhir", "url": f"{server.base_url}/fhir"}
        config = configured(tmp_path, sources=[source], submission={"url": f"{server.base_url}/nowhere"})
        code = run(["doctor", "--json", "--config", str(config)])
    checks = {check["name"]: check for check in json.loads(capfd.readouterr().out)}
    assert (code, checks["source s"]["state"], checks["source s clock"]["state"]) == (0, "ok", "ok")
    assert checks["submission"]["state"] == "warn"
    assert "run check" in checks["submission"]["do"]
    bad = tmp_path / "client.pem"
    bad.write_text("no certificate")
    config = configured(tmp_path, sources=[source | {"client_cert_file": "client.pem"}])
    assert run(["doctor", "--json", "--config", str(config)]) == 1
    checks = {check["name"]: check for check in json.loads(capfd.readouterr().out)}
    assert checks["source s"]["state"] == "fail"
    assert "client certificate" in checks["source s"]["text"]
