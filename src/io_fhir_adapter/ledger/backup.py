"""Backups of a SQLite ledger: a copy of one moment, made while others write, looked through before it counts as one.

Beside the copy lies its manifest: what the copy must be (bytes, SHA-256) and hold (schema, rows, ends of both chains).
A copy without one is none: it was not finished, or is not ours. The pseudonym key is in neither.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from sqlalchemy import Connection, create_engine, make_url

from io_fhir_adapter import __version__
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.durable import to_disk
from io_fhir_adapter.errors import LedgerError, UsageError
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.database import Ledger, damaged, is_damage, open_ledger, timestamp
from io_fhir_adapter.ledger.runs import write_state
from io_fhir_adapter.ledger.soundness import (
    Census,
    census,
    check_database,
    check_hashes,
    check_schema,
    has_table,
)

__all__ = ["LAST_BACKUP", "Backup", "Manifest", "back_up", "ledger_file", "manifest_of", "sqlite_file", "verify_backup"]

LAST_BACKUP: Final = "backup"
"""The name under which the ledger remembers when it was last copied."""

_OWNER_ONLY: Final = 0o600
_KIND: Final = "io-fhir-adapter backup 1"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies beside a backup.

    Attributes:
        kind: Tells that this is one, and of which form.
        made: When, UTC.
        program: The version of this program that made it.
        facility: The facility's code.
        size: Bytes of the copy.
        sha256: Of the copy, hexadecimal.
        holds: What is in it.
    """

    kind: str
    made: str
    program: str
    facility: str
    size: int
    sha256: str
    holds: Census


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made and verified; ``noted`` is whether the ledger could be told, which was busy where not."""

    file: Path
    manifest: Manifest
    noted: bool


def manifest_of(file: Path) -> Path:
    """Where a backup's manifest lies."""
    return file.with_name(f"{file.name}.manifest.json")


def ledger_file(config: LedgerConfig) -> Path | None:
    """The file of a SQLite ledger; None where the ledger is in another database."""
    if config.url is None:
        return config.path or Path("ledger.sqlite")
    url = make_url(config.url)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def sqlite_file(config: LedgerConfig, instead: str) -> Path:
    """The file of a ledger that has to be SQLite's.

    Args:
        config: Where the ledger is.
        instead: What to run where the ledger is in PostgreSQL; ``{url}`` in it becomes the database's address.

    Raises:
        UsageError: The ledger is no SQLite file.
    """
    file = ledger_file(config)
    if file is not None:
        return file
    url = make_url(config.url or "")
    address = url.set(drivername=url.get_backend_name(), password=None).render_as_string(hide_password=False)
    raise UsageError(
        "the ledger is in PostgreSQL, whose own tool does this",
        where="ledger.url",
        do=f"run {instead.format(url=shlex.quote(address))} (it asks for the password, or reads ~/.pgpass)",
        number=50,
    )


def back_up(config: LedgerConfig, facility: str, out: Path, now: datetime, *, force: bool = False) -> Backup:
    """Copies the ledger as it is at one moment; nobody who works on it has to wait.

    The schema is left as it is, so that an upgrade can be preceded by a backup. The ledger remembers that it was
    copied, in its audit too.

    Args:
        config: Where the ledger is.
        facility: The facility's code.
        out: The file to make, or a folder to make one in.
        now: When.
        force: Whether an earlier backup of that name is replaced.

    Raises:
        UsageError: The ledger is in PostgreSQL, or the target is not one to write to.
        LedgerError: The ledger or the copy is not sound, or the target cannot be written.
    """
    dump = out / "ledger.dump" if out.is_dir() else out
    source = sqlite_file(config, f"pg_dump --format=custom --file={shlex.quote(str(dump))} --dbname={{url}}")
    if not source.is_file():
        raise LedgerError("there is no ledger yet", where=str(source), do="run pull first", number=7)
    name = f"ledger-{facility}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.sqlite"
    target = out / name if out.is_dir() else out
    _check_target(target, source, force=force)
    ledger = open_ledger(config, upgrade=False)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        with _writing(target), _removed(part):
            with ledger.read() as connection:
                check_schema(connection, ledger.name)
                held = census(connection)
                _copy(connection, part, ledger.name)
            manifest = _looked_through(part, source, target, held, facility, now)
            manifest_of(target).unlink(missing_ok=True)  # first: it does not fit what takes the file's place
            part.replace(target)
            _write_whole(manifest_of(target), msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
            to_disk(target.parent)
        return Backup(target, manifest, _noted(ledger, manifest, now))
    finally:
        ledger.close()


def _noted(ledger: Ledger, manifest: Manifest, now: datetime) -> bool:
    """Tells the ledger that it was copied, in its audit too; the copy is good without that."""
    try:
        with ledger.begin() as connection:
            write_state(connection, LAST_BACKUP, timestamp(now))
            if has_table(connection, "audit"):
                detail = f"backup {manifest.sha256}"
                note(connection, at=now, agent="console", role="", action="R", entity="Ledger", detail=detail)
    except LedgerError:
        return False
    return True


def _check_target(target: Path, source: Path, *, force: bool) -> None:
    do = "choose another --out"
    if not target.parent.is_dir():
        raise UsageError(
            "the folder of the backup does not exist",
            where=str(target.parent),
            do="make it, or mount the disk that it should be on",
            number=51,
        )
    if target.exists():
        if target.samefile(source) or not manifest_of(target).is_file():
            raise UsageError("a file that is no backup lies there already", where=str(target), do=do, number=52)
        if not force:
            do += ", or replace that backup with --force"
            raise UsageError("a backup lies there already", where=str(target), do=do, number=53)
    try:
        free, needed = shutil.disk_usage(target.parent).free, source.stat().st_size
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    if free < needed:
        raise LedgerError(
            f"the backup needs {needed / (1 << 20):,.0f} MiB, and {free / (1 << 20):,.0f} MiB are free",
            where=str(target.parent),
            do="make room, or choose another --out",
            number=53,
        )


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Says in one sentence what keeps the target from being written."""
    try:
        yield
    except OSError as exc:
        raise _unwritable(target, exc) from exc


def _unwritable(target: Path, exc: OSError) -> LedgerError:
    return LedgerError(
        f"the backup cannot be written ({exc.strerror or type(exc).__name__})",
        where=str(target),
        do="make room, check permissions, or choose another --out",
        number=54,
    )


@contextmanager
def _removed(part: Path) -> Iterator[None]:
    """Leaves nothing of a copy that was not finished."""
    try:
        yield
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            part.with_name(part.name + end).unlink(missing_ok=True)


def _copy(connection: Connection, part: Path, source: str) -> None:
    """Copies what the transaction sees, all in one step, and makes it one file that needs no others beside it."""
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY))
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        msg = "only a SQLite ledger is copied"
        raise TypeError(msg)
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous=OFF")  # it is brought to the disk once, at its end
            driver.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as exc:
        if is_damage(exc):
            raise damaged(source) from exc
        raise LedgerError(
            f"the backup cannot be written ({getattr(exc, 'sqlite_errorname', type(exc).__name__)})",
            where=str(part.parent),
            do="make room, check permissions, or choose another --out",
            number=54,
        ) from exc
    to_disk(part)


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _looked_through(part: Path, source: Path, target: Path, held: Census, facility: str, now: datetime) -> Manifest:
    """The manifest of a copy that is sound and holds what the ledger held."""
    found = _sound(part, source)
    if found != held:
        raise LedgerError(
            "the copy does not hold what the ledger holds, so no backup was made",
            where=str(target),
            do="try another --out, and have the disk looked at",
            number=55,
        )
    return Manifest(_KIND, timestamp(now), __version__, facility, part.stat().st_size, _digest(part), found)


def _sound(file: Path, named: Path) -> Census:
    """What a copy holds that nobody writes to, after every check; nothing is written beside it."""
    engine = create_engine(f"sqlite:///file:{quote(str(file.absolute()))}?mode=ro&immutable=1&uri=true")
    ledger = Ledger(engine, str(named))
    try:
        with ledger.read() as connection:
            check_schema(connection, ledger.name)
            check_database(connection, ledger.name)
            check_hashes(connection, ledger.name)
            return census(connection)
    finally:
        ledger.close()


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def verify_backup(file: Path) -> Manifest:
    """The manifest of a backup that is what its manifest says, sound, and of a schema that this version knows.

    Raises:
        LedgerError: It is not.
    """
    beside = manifest_of(file)
    try:
        manifest = msgspec.json.decode(beside.read_bytes(), type=Manifest)
        size = file.stat().st_size
        same = manifest.kind == _KIND and size == manifest.size and _digest(file) == manifest.sha256
    except FileNotFoundError as exc:
        what = "the backup's manifest is missing" if file.is_file() else "there is no such backup"
        do = f"put {beside.name} beside it, or take another backup" if file.is_file() else "check the path"
        raise LedgerError(what, where=str(file), do=do, number=57) from exc
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise LedgerError(
            "the backup or its manifest cannot be read", where=str(beside), do="take another backup", number=57
        ) from exc
    if not same:
        raise LedgerError(
            "the backup is not the file that its manifest tells of",
            where=str(file),
            do="it was changed, damaged or copied in part; take another backup",
            number=58,
        )
    if _sound(file, file) != manifest.holds:
        raise LedgerError(
            "the backup does not hold what its manifest tells", where=str(file), do="take another backup", number=58
        )
    return manifest
