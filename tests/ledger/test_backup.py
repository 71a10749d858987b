"""Backups: whole, of one moment, verified; restored only where nothing is lost, and never half."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Connection, create_engine, insert, select

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError, UsageError
from io_fhir_adapter.ledger import backup, database
from io_fhir_adapter.ledger.audit import entries, note
from io_fhir_adapter.ledger.backup import LAST_BACKUP, Backup, back_up, manifest_of, verify_backup
from io_fhir_adapter.ledger.database import Ledger, known_schemas, open_ledger, timestamp
from io_fhir_adapter.ledger.draws import commit_frame
from io_fhir_adapter.ledger.lease import job_of, take
from io_fhir_adapter.ledger.outbox import enqueue, pending, settle, supersede_open
from io_fhir_adapter.ledger.restore import Restored, restore
from io_fhir_adapter.ledger.runs import finish_run, read_state, start_run, write_state
from io_fhir_adapter.ledger.schema import runs, sign_ins
from io_fhir_adapter.ledger.soundness import census, check_database, check_hashes, check_schema
from io_fhir_adapter.ledger.upkeep import Waiting, fares, newest_drawn

NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


@pytest.fixture
def config(tmp_path: Path) -> LedgerConfig:
    """A ledger with something of everything that a backup has to do with."""
    made = LedgerConfig(path=tmp_path / "place" / "ledger.sqlite")
    ledger = open_ledger(made)
    with ledger.begin() as connection:
        assert take(connection, "process 1.1 on elsewhere", NOW) == ""
        start_run(connection, NOW)
        commit_frame(connection, "iasios", "2025", ("2025-01-01", "2025-12-31"), b"{}", "sha256:1", 100, NOW)
        enqueue(connection, "sha256:s", "2025", b"{}", NOW)
        enqueue(connection, "sha256:t", "2025", b"{}", NOW, held=True)
        note(connection, at=NOW, agent="weber", role="reviewer", action="E", entity="Account/weber")
        words = dict.fromkeys(("id", "account", "display", "roles", "began", "seen"), "x")
        connection.execute(insert(sign_ins).values(**words, one_time=False))
    ledger.close()
    return made


@pytest.fixture
def made(config: LedgerConfig, tmp_path: Path) -> Backup:
    """A backup of it."""
    return back_up(config, "F-1", tmp_path / "b.sqlite", NOW)


def put_back(config: LedgerConfig, file: Path, **how: Any) -> Restored:
    return restore(config, "F-1", file, LATER, **how)


def elsewhere(tmp_path: Path) -> LedgerConfig:
    return LedgerConfig(path=tmp_path / "new" / "ledger.sqlite")


def held_by(config: LedgerConfig) -> bytes:
    assert config.path is not None
    return config.path.read_bytes()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond this size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_backup_is_the_ledger_and_says_what_it_is(config: LedgerConfig, tmp_path: Path) -> None:
    ledger = open_ledger(config)
    with ledger.read() as connection:
        held = census(connection)
    made = back_up(config, "F-1", tmp_path, NOW)
    assert made.file == tmp_path / "ledger-F-1-20260130T030000Z.sqlite"
    assert made.noted
    assert made.manifest.holds == held
    assert made.manifest.sha256 == hashlib.sha256(made.file.read_bytes()).hexdigest()
    assert verify_backup(made.file) == made.manifest
    kept = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir() if file.is_file()}
    assert kept == {made.file.name: "0o600", manifest_of(made.file).name: "0o600"}
    with ledger.read() as connection:
        assert read_state(connection, LAST_BACKUP) == timestamp(NOW)
        last = list(entries(connection))[-1]
    assert (last.action, last.entity, last.detail) == ("R", "Ledger", f"backup {made.manifest.sha256}")
    ledger.close()


def test_a_backup_waits_for_nobody(config: LedgerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_MS", 1)
    assert config.path is not None
    with closing(sqlite3.connect(config.path, isolation_level=None)) as night:
        night.execute("BEGIN IMMEDIATE")
        night.execute("INSERT INTO state VALUES ('half', 'written')")
        made = back_up(config, "F-1", tmp_path / "b.sqlite", NOW)
        assert not made.noted
        night.execute("COMMIT")
    restored = put_back(elsewhere(tmp_path), made.file)
    with closing(sqlite3.connect(restored.ledger)) as connection:
        assert connection.execute("SELECT count(*) FROM state WHERE name = 'half'").fetchone() == (0,)


def test_the_targets_that_are_refused(config: LedgerConfig, made: Backup, tmp_path: Path) -> None:
    assert config.path is not None
    key = tmp_path / "pseudonym.key"
    key.write_text("ab" * 32)
    for out, force, number in (
        (made.file, False, "053"),
        (key, True, "052"),
        (config.path, True, "052"),
        (tmp_path / "unmounted" / "b.sqlite", False, "051"),
    ):
        with pytest.raises(UsageError, match=f"IOA-USE-{number}"):
            back_up(config, "F-1", out, LATER, force=force)
    assert key.read_text() == "ab" * 32
    assert verify_backup(made.file) == made.manifest
    again = back_up(config, "F-1", made.file, LATER, force=True)
    assert again.manifest != made.manifest
    assert verify_backup(made.file) == again.manifest


def test_no_ledger_no_backup(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger yet"):
        back_up(LedgerConfig(path=tmp_path / "none.sqlite"), "F-1", tmp_path / "b.sqlite", NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_full_target_leaves_nothing(config: LedgerConfig, made: Backup, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    with largest_file(70_000):
        with pytest.raises(LedgerError, match="the backup cannot be written"):
            back_up(config, "F-1", full, NOW)
        with pytest.raises(LedgerError, match="the ledger cannot be written"):
            put_back(LedgerConfig(path=full / "ledger.sqlite"), made.file)
        before = held_by(config)
        with pytest.raises(LedgerError, match="the backup cannot be written"):
            back_up(config, "F-1", made.file, LATER, force=True)
    assert list(full.iterdir()) == []
    assert held_by(config) == before
    assert verify_backup(made.file) == made.manifest


def test_too_little_room_is_said_before(config: LedgerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(LedgerError, match="MiB are free"):
        back_up(config, "F-1", tmp_path / "b.sqlite", NOW)


def test_a_damaged_ledger_is_not_copied(config: LedgerConfig, tmp_path: Path) -> None:
    assert config.path is not None
    with config.path.open("r+b") as file:
        file.seek(8_192)
        file.write(b"\xa5" * 60_000)
    with pytest.raises(LedgerError, match="the database file is damaged; restore a backup"):
        back_up(config, "F-1", tmp_path / "b.sqlite", NOW)
    assert [file.name for file in tmp_path.iterdir()] == ["place"]


def test_a_copy_that_lacks_something_is_thrown_away(
    config: LedgerConfig, made: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backup._copy

    def lossy(connection: Connection, part: Path, source: str) -> None:
        whole(connection, part, source)
        with closing(sqlite3.connect(part)) as copy:
            copy.execute("DELETE FROM outbox")
            copy.commit()

    monkeypatch.setattr(backup, "_copy", lossy)
    with pytest.raises(LedgerError, match="the copy does not hold what the ledger holds"):
        back_up(config, "F-1", made.file, LATER, force=True)
    assert verify_backup(made.file) == made.manifest


def test_a_chain_that_was_changed_is_not_copied(config: LedgerConfig, tmp_path: Path) -> None:
    assert config.path is not None
    with closing(sqlite3.connect(config.path)) as connection:
        connection.execute("DROP TRIGGER chain_no_update")
        connection.execute("UPDATE chain SET body = '{}'")
        connection.commit()
    with pytest.raises(LedgerError, match="the chain of draws is broken"):
        back_up(config, "F-1", tmp_path / "b.sqlite", NOW)


def test_restored_it_is_what_it_was_but_for_who_was_at_work(made: Backup, tmp_path: Path) -> None:
    place = elsewhere(tmp_path)
    done = put_back(place, made.file)
    assert (done.ledger, done.kept, done.schema) == (place.path, None, known_schemas()[0])
    assert oct(done.ledger.stat().st_mode & 0o777) == "0o600"
    assert [file.name for file in done.ledger.parent.iterdir()] == ["ledger.sqlite"]
    ledger = open_ledger(place)
    with ledger.begin() as connection:
        assert job_of(connection, NOW) == ("", False)
        assert connection.execute(select(sign_ins)).all() == []
        assert read_state(connection, LAST_BACKUP) == made.manifest.made
        assert [item.identifier for item in pending(connection)] == ["sha256:s"]
        found = census(connection)
        assert (found.chain, found.audit.number) == (made.manifest.holds.chain, made.manifest.holds.audit.number + 1)
        assert f"restored from the backup of {made.manifest.made}" in list(entries(connection))[-1].detail
        start_run(connection, LATER)
        states = connection.execute(select(runs.c.state).order_by(runs.c.id)).scalars().all()
        assert states == ["failed", "running"]  # what was cut off by the restore is known as that
    ledger.close()
    said = "\n".join(done.warnings)
    assert "submissions that waited to be sent at 2026-01-30T03:00Z: 1;" in said
    assert "harmless, because every entry is conditional" in said
    assert "submissions that waited for approval at 2026-01-30T03:00Z: 1;" in said
    assert "chain of 1 links" in said


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "cut":
        del data[-5_000:]
    elif how == "flipped":
        data[len(data) // 2] ^= 1
    file.write_bytes(data)


def forge(file: Path, change: Callable[[sqlite3.Connection], object], **holds: Any) -> None:
    """Changes a backup and its manifest with it."""
    with closing(sqlite3.connect(file)) as connection:
        change(connection)
        connection.commit()
    manifest = json.loads(manifest_of(file).read_text())
    data = file.read_bytes()
    manifest |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["holds"] |= holds
    manifest_of(file).write_text(json.dumps(manifest))


def newer(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE alembic_version SET version_num = '9999'")


def orphans(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM draws")
    connection.execute("INSERT INTO cleared VALUES (7, 1, 'x', 'x', 'x', 'x')")


def emptied(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM outbox")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda file: damage(file, "cut"), "copied in part"),
    "flipped": (lambda file: damage(file, "flipped"), "changed, damaged or copied"),
    "no manifest": (lambda file: manifest_of(file).unlink(), "manifest is missing"),
    "no backup": (lambda file: file.unlink(), "there is no such backup"),
    "half a manifest": (lambda file: damage(manifest_of(file), "cut"), "cannot be read"),
    "newer": (lambda file: forge(file, newer, schema="9999"), "written by a newer version"),
    "orphans": (lambda file: forge(file, orphans), "rows belong to rows that are gone"),
    "emptied": (lambda file: forge(file, emptied), "does not hold what its manifest tells"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_whole_backup_is_refused(config: LedgerConfig, made: Backup, case: str) -> None:
    spoil, said = REFUSED[case]
    spoil(made.file)
    before = held_by(config)
    with pytest.raises(LedgerError, match=said):
        put_back(config, made.file, replace=True)
    assert held_by(config) == before


def test_of_another_facility(made: Backup, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="the backup is of facility F-1, not of F-2"):
        restore(elsewhere(tmp_path), "F-2", made.file, LATER)


def test_a_ledger_that_lies_there_gives_way_only_when_told(config: LedgerConfig, made: Backup) -> None:
    ledger = open_ledger(config)
    with ledger.begin() as connection:
        write_state(connection, "after", "the backup")
        commit_frame(connection, "degir", "2025", ("2025-01-01", "2025-12-31"), b"{}", "sha256:2", 100, NOW)
    ledger.close()
    before = held_by(config)
    with pytest.raises(LedgerError, match="a ledger lies there already"):
        put_back(config, made.file)
    assert held_by(config) == before
    done = put_back(config, made.file, replace=True)
    assert done.kept is not None
    assert "the chain of draws had 2 links in the ledger that was replaced, and has 1" in "\n".join(done.warnings)
    kept, now = (open_ledger(LedgerConfig(path=path)) for path in (done.kept, done.ledger))
    for opened, value in ((kept, "the backup"), (now, "")):
        with opened.read() as connection:
            assert read_state(connection, "after") == value
        opened.close()


def test_a_ledger_in_use_is_left_alone(config: LedgerConfig, made: Backup) -> None:
    before = held_by(config)
    with pytest.raises(LedgerError, match=r"a job is under way on it, process 1\.1 on elsewhere"):
        restore(config, "F-1", made.file, NOW, replace=True)
    ledger = open_ledger(config)  # as the service has it all day, without a job
    with ledger.read() as connection:
        read_state(connection, "x")
    with pytest.raises(LedgerError, match="another process has it open"):
        put_back(config, made.file, replace=True)
    ledger.close()
    assert held_by(config) == before
    assert [file.name for file in config.path.parent.iterdir()] == ["ledger.sqlite"] if config.path else False
    assert put_back(config, made.file, replace=True).kept is not None


@pytest.mark.parametrize(
    "rest",
    [b"no database, but long enough to be looked at as one" * 99, b"", b"SQLite format 3\0"],
    ids=["text", "empty", "start"],
)
def test_a_ledger_that_is_none_any_more_gives_way_too(config: LedgerConfig, made: Backup, rest: bytes) -> None:
    assert config.path is not None
    config.path.write_bytes(rest)
    done = put_back(config, made.file, replace=True)
    assert done.kept is not None
    assert done.kept.read_bytes().startswith(rest)
    ledger = open_ledger(config)
    with ledger.read() as connection:
        assert pending(connection)
    ledger.close()


def test_an_older_backup_is_made_without_upgrading_and_restored_with(tmp_path: Path) -> None:
    old = LedgerConfig(path=tmp_path / "old.sqlite")
    engine = create_engine(f"sqlite:///{old.path}")
    migrations = AlembicConfig()
    migrations.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        migrations.attributes["connection"] = connection
        command.upgrade(migrations, "0001")
        connection.execute(insert(runs).values(started="x", state="complete", summary="{}", error=""))
    engine.dispose()
    made = back_up(old, "F-1", tmp_path / "b.sqlite", NOW)
    assert (made.manifest.holds.schema, made.manifest.holds.rows["runs"], made.noted) == ("0001", 1, True)
    done = put_back(elsewhere(tmp_path), made.file)
    assert done.schema == known_schemas()[0]
    ledger = open_ledger(elsewhere(tmp_path))
    with ledger.read() as connection:
        assert census(connection).rows["runs"] == 1
    ledger.close()


def test_how_either_ledger_fares(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        finish_run(connection, start_run(connection, NOW), NOW, "complete", {})
        assert take(connection, "process 1.1 on elsewhere", NOW) == ""
        for number, (period, state) in enumerate((("2024", "parked"), ("2024", "accepted"), ("2025", "rejected"))):
            enqueue(connection, f"sha256:{number}", period, b"{}", NOW + timedelta(seconds=number))
            settle(connection, f"sha256:{number}", state)
        enqueue(connection, "sha256:4", "2025", b"{}", NOW + timedelta(seconds=9))
        supersede_open(connection, "2025")
    with ledger.read() as connection:
        check_schema(connection, ledger.name)
        check_database(connection, ledger.name)
        check_hashes(connection, ledger.name)
        found = fares(connection, NOW, timedelta(days=7))
        assert census(connection).rows["outbox"] == 4
        assert newest_drawn(connection) is None
    assert found.waiting == (Waiting("2025", "rejected", timestamp(NOW + timedelta(seconds=2))),)
    assert (found.complete, found.copied, found.facts, found.set_aside) == (timestamp(NOW), "", 0, 0)
    assert (found.holder, found.alive) == ("process 1.1 on elsewhere", True)


def test_postgresql_has_its_own_tools(tmp_path: Path) -> None:
    config = LedgerConfig.model_validate(
        {"url": "postgresql+psycopg://adapter@db.example/ledger", "password": {"env": "X"}}
    )
    with pytest.raises(UsageError) as caught:
        back_up(config, "F-1", tmp_path, NOW)
    command = f"pg_dump --format=custom --file={tmp_path}/ledger.dump --dbname=postgresql://adapter@db.example/ledger"
    assert f"run {command} (it asks for the password" in caught.value.sentence
    with pytest.raises(UsageError, match="pg_restore --clean --if-exists --single-transaction --dbname=postgresql"):
        put_back(config, tmp_path / "ledger.dump")
