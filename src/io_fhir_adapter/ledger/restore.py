"""Putting a backup in the ledger's place: verified first, brought up to date beside it, then there at once.

What lay there is kept. What the restored ledger does not know is said, for the accreditation system and people do.
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

from sqlalchemy import Connection, delete, func, select

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.backup import LAST_BACKUP, Manifest, sqlite_file, verify_backup
from io_fhir_adapter.ledger.database import damaged, known_schemas, open_ledger
from io_fhir_adapter.ledger.lease import forget_job, job_of
from io_fhir_adapter.ledger.runs import write_state
from io_fhir_adapter.ledger.schema import draws, outbox, sign_ins
from io_fhir_adapter.ledger.soundness import Census, census, has_table

__all__ = ["Restored", "restore"]

_OWNER_ONLY: Final = 0o600
_BESIDE: Final = ("", "-wal", "-shm")
_IN_USE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_MAY_HAVE_LEFT: Final = ("queued", "sending", "parked")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, and what to know about it.

    Attributes:
        ledger: Where the ledger lies now.
        manifest: Of the backup.
        schema: The revision of the schema now.
        kept: What lay there before, where something did.
        warnings: What the restored ledger cannot know; one sentence each.
    """

    ledger: Path
    manifest: Manifest
    schema: str
    kept: Path | None
    warnings: tuple[str, ...]


def restore(config: LedgerConfig, facility: str, file: Path, now: datetime, *, replace: bool = False) -> Restored:
    """Puts a backup in the ledger's place.

    Whoever was signed in has to sign in again, and no job holds the restored ledger.

    Args:
        config: Where the ledger is to be.
        facility: The facility's code.
        file: The backup.
        now: When.
        replace: Whether a ledger that lies there gives way; it is kept beside.

    Raises:
        UsageError: The ledger is in PostgreSQL.
        LedgerError: The backup cannot be used, the place is taken or in use, or it cannot be written to.
    """
    tool = f"pg_restore --clean --if-exists --single-transaction --dbname={{url}} {shlex.quote(str(file))}"
    target = sqlite_file(config, tool)
    manifest = verify_backup(file)
    if manifest.facility != facility:
        raise LedgerError(
            f"the backup is of facility {manifest.facility}, not of {facility}",
            where=str(file),
            do="name that facility's configuration, or another backup",
            number=60,
        )
    taken = any(target.with_name(target.name + end).exists() for end in _BESIDE)
    if taken and not replace:
        raise LedgerError(
            "a ledger lies there already",
            where=str(target),
            do="give --replace to put the backup in its place; it is kept beside",
            number=61,
        )
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    kept = target.with_name(f"{target.name}.replaced-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}") if taken else None
    try:
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _take_copy(file, part, manifest)
            warnings = _made_ready(part, manifest, now)
            if kept is None:
                part.replace(target)
            else:
                with _held(target, now) as before:
                    for end in _BESIDE:
                        old = target.with_name(target.name + end)
                        if old.exists():
                            old.replace(kept.with_name(kept.name + end))
                    part.replace(target)
                warnings = (*_behind(before, manifest.holds), *warnings)
    finally:
        for end in (*_BESIDE, "-journal"):
            part.with_name(part.name + end).unlink(missing_ok=True)
    return Restored(target, manifest, known_schemas()[0], kept, warnings)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LedgerError(
            f"the ledger cannot be written ({exc.strerror or type(exc).__name__})",
            where=str(target),
            do="make room, or check the folder and its permissions",
            number=62,
        ) from exc


def _take_copy(file: Path, part: Path, manifest: Manifest) -> None:
    """Copies the backup; what arrives is what was verified."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with file.open("rb") as source, os.fdopen(handle, "r+b") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
        copy.seek(0)
        if hashlib.file_digest(copy, "sha256").hexdigest() != manifest.sha256:
            raise LedgerError("the backup changed while it was read", where=str(file), do="restore it again", number=58)


def _made_ready(part: Path, manifest: Manifest, now: datetime) -> tuple[str, ...]:
    """Brings the copy's schema up to date and takes out what held for the moment of the backup alone."""
    ledger = open_ledger(LedgerConfig(path=part))
    try:
        with ledger.begin() as connection:
            forget_job(connection)
            connection.execute(delete(sign_ins))
            write_state(connection, LAST_BACKUP, manifest.made)
            detail = f"restored from the backup of {manifest.made}, {manifest.sha256}"
            note(connection, at=now, agent="console", role="", action="E", entity="Ledger", detail=detail)
            warnings = tuple(_unknown_since(connection, manifest))
    finally:
        ledger.close()
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as whole:
            whole.execute("PRAGMA journal_mode=DELETE")  # one file again, which moves in one step
    except sqlite3.Error as exc:
        raise LedgerError(
            f"the ledger cannot be written ({type(exc).__name__})", where=str(part.parent), do="make room", number=62
        ) from exc
    return warnings


def _unknown_since(connection: Connection, manifest: Manifest) -> Iterator[str]:
    made = f"{manifest.made[:16]}Z"
    columns = outbox.c
    by_state = select(columns.state, func.count()).group_by(columns.state)
    states = {row[0]: row[1] for row in connection.execute(by_state)}
    open_ones = sum(states.get(state, 0) for state in _MAY_HAVE_LEFT)
    if open_ones:
        yield (
            f"submissions that waited to be sent at {made}: {open_ones}; accepted since or not, they are sent "
            "again, which is harmless, because every entry is conditional"
        )
    if states.get("held"):
        yield f"submissions that waited for approval at {made}: {states['held']}; an approval since then is lost"
    latest = connection.execute(select(draws.c.period).order_by(draws.c.id.desc()).limit(1)).scalar()
    yield (
        f"what was announced, drawn or taken out of a sample after {made} is not in it "
        f"(newest draw: {latest or 'none'}; chain of {manifest.holds.chain.number} links): if there was any, restore a "
        "later backup, or tell the accreditation body before the next night, for the same year would be drawn again"
    )
    yield (
        f"case reviews, signatures, accounts and roles are those of {made}: look through them; "
        "passwords and lock-outs since then are undone"
    )
    yield "the pseudonym key is not part of a backup: doctor says whether the one in place fits"


def _behind(before: Census | None, restored: Census) -> Iterator[str]:
    """What the ledger that gave way had beyond the backup; nothing is said where it could not be read."""
    if before is None:
        yield "the ledger that was replaced is too damaged to say what it had beyond the backup"
        return
    if before.chain.number > restored.chain.number:
        yield (
            f"the chain of draws had {before.chain.number} links in the ledger that was replaced, "
            f"and has {restored.chain.number} in the restored one"
        )
    if before.audit.number > restored.audit.number + 1:  # the first entry after a backup is the backup's own
        yield (
            f"the audit had {before.audit.number} entries in the ledger that was replaced, and "
            f"{restored.audit.number} in the backup"
        )


@contextmanager
def _held(target: Path, now: datetime) -> Iterator[Census | None]:
    """Keeps everybody else off the ledger that gives way; gives what it holds, None where it cannot be read.

    Raises:
        LedgerError: A job is under way on it, or another process has it open.
    """
    before = _look(target, now)
    connection = sqlite3.connect(target, isolation_level=None, timeout=0)
    try:
        if before is not None:
            try:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                # refused while another has it open; and puts all that was written into the one file
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error as exc:
                if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _IN_USE:
                    raise _in_use(target, "another process has it open") from exc
                before = None  # damaged where the look did not come by; that is why it is replaced
        yield before
    finally:
        connection.close()


def _look(target: Path, now: datetime) -> Census | None:
    ledger = open_ledger(LedgerConfig(path=target), upgrade=False)
    try:
        with ledger.read() as connection:
            holder, alive = job_of(connection, now) if has_table(connection, "state") else ("", False)
            found = census(connection)
    except LedgerError as exc:
        if exc.code == damaged("").code:  # which is why it is replaced
            return None
        raise
    finally:
        ledger.close()
    if alive:
        raise _in_use(target, f"a job is under way on it, {holder}")
    return found


def _in_use(target: Path, what: str) -> LedgerError:
    return LedgerError(
        f"the ledger is in use ({what})",
        where=str(target),
        do="stop the service and wait until its job has ended",
        number=63,
        transient=True,
    )
