"""Opening the ledger: the engine, its settings, and the migrations that bring any earlier schema up to date."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    Text,
    any_,
    cast,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.schema import FACTS_KEY, FACTS_MAPPED, facts
from io_fhir_adapter.ledger.statements import write_tuples
from io_fhir_adapter.ledger.texts import postgresql_texts

__all__ = [
    "Ledger",
    "among",
    "damaged",
    "has_key",
    "is_damage",
    "known_schemas",
    "make_indexes",
    "make_key",
    "open_ledger",
    "timestamp",
    "upsert",
]

_MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION = re.compile(r"v(\d{4})_\w+")  # of a migration's module, by which all are found without loading them
_MODE_OWNER_ONLY = 0o600
_OTHERS = 0o077
_BUSY_MS = 30_000
_CACHE_KIB = 12_288  # six times SQLite's own: ids come in no order, and each touches its page of every index
_LITTLE_KIB = 2_048  # SQLite's own, for who only reads now and then, and has several connections for good
_LOG_PAGES = 8_000  # of the write-ahead log before it is worked in, 32 MiB: an index page is written once, not often
_MODE = "sqlite_begin"
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WRITERS = 0x10FA  # the lock of those who write a PostgreSQL ledger; any number that is always the same


class Ledger:
    """An open ledger: hands out transactions, nothing else."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        reading = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
        self._reading = engine.execution_options(**{_MODE: "DEFERRED"}, **reading)
        self.name = name

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back on any error.

        It is the only one that writes until it ends, so what it reads cannot change under it; a second one in the
        same thread would wait for the first in vain.

        Raises:
            LedgerError: The database refused.
        """
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: it sees the ledger as it was at its first query, and holds up nobody.

        Raises:
            LedgerError: The database refused.
        """
        with self._transaction(self._reading) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as exc:
            if is_damage(exc.__cause__):
                raise damaged(self.name) from exc
            raise _refused(exc, self.name) from exc

    def shorten_log(self) -> None:
        """Works SQLite's write-ahead log in and cuts it off, where nobody reads at the moment; outside transactions.

        Raises:
            LedgerError: The database refused.
        """
        if self._engine.dialect.name != "sqlite":
            return
        try:
            connection = self._engine.raw_connection()  # the engine's own would begin a transaction
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA busy_timeout=0")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                cursor.close()
            finally:
                connection.close()
        except (SQLAlchemyError, sqlite3.Error) as exc:
            if is_damage(exc.__cause__ or exc):
                raise damaged(self.name) from exc
            raise _refused(exc, self.name) from exc

    def close(self) -> None:
        """Gives all connections back; who needs one afterwards gets a new one."""
        self._engine.dispose()


def open_ledger(config: LedgerConfig, *, upgrade: bool = True, frugal: bool = False) -> Ledger:
    """Opens the ledger, makes it where it does not exist yet, and brings its schema up to date.

    A SQLite file is readable by its owner alone.

    Args:
        config: Where it is.
        upgrade: Without it the ledger is taken as it lies, for those who look after it: its schema may be any.
        frugal: Whether each connection keeps but little of a SQLite file in memory: slower to write much at once.

    Raises:
        LedgerError: It cannot be opened, or was written by a newer version of this program.
    """
    if config.url is not None:
        url = make_url(config.url)
        if config.password is not None:
            url = url.set(password=config.password.read("ledger.password"))
        name = url.render_as_string(hide_password=True)
    else:
        path = config.path or Path("ledger.sqlite")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=_MODE_OWNER_ONLY)
            if path.stat().st_mode & _OTHERS:
                path.chmod(_MODE_OWNER_ONLY)
        except OSError as exc:
            raise LedgerError(
                "the ledger cannot be written", where=str(path), do="check the folder and its permissions"
            ) from exc
        url, name = make_url(f"sqlite:///{path}"), str(path)
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_sqlite_settings, _LITTLE_KIB if frugal else _CACHE_KIB))
        event.listen(engine, "begin", _sqlite_begin)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "connect", postgresql_texts)
        event.listen(engine, "begin", _postgresql_begin)
    upgraded = False
    try:
        if upgrade:
            with engine.begin() as connection:
                upgraded = _migrate(connection, name)
    except LedgerError:
        engine.dispose()
        raise
    except SQLAlchemyError as exc:
        engine.dispose()
        raise LedgerError(
            f"the ledger cannot be opened ({type(exc.__cause__ or exc).__name__})",
            where=name,
            do="check that it is one",
        ) from exc
    ledger = Ledger(engine, name)
    if upgraded:
        ledger.shorten_log()  # a table that was written anew leaves a log of its size, for as long as this one is open
    return ledger


def _sqlite_settings(cache_kib: int, connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: never before DDL, nor before a SELECT
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_MS}",
        f"cache_size=-{cache_kib}",
        f"wal_autocheckpoint={_LOG_PAGES}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get(_MODE, 'IMMEDIATE')}")


def _postgresql_begin(connection: Connection) -> None:
    """One writer at a time, as in SQLite; each statement sees what the writers before it committed."""
    if _MODE not in connection.get_execution_options():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def _refused(exc: Exception, where: str) -> LedgerError:
    return LedgerError(
        f"the database refused ({type(exc.__cause__ or exc).__name__})",
        where=where,
        do="check disk space and permissions, and that no other run holds it",
        number=2,
    )


def is_damage(error: BaseException | None) -> bool:
    """Whether an error of SQLite's means that the content of its file is not what it should be."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # the driver's own: of these, a text that is no UTF-8
        return isinstance(error, sqlite3.OperationalError)
    return code & 0xFF in _DAMAGE


def damaged(where: str) -> LedgerError:
    """The error that says so."""
    return LedgerError(
        "the database file is damaged", where=where, do="restore a backup, and have the disk looked at", number=50
    )


def known_schemas() -> list[str]:
    """The revisions of the schema that this version knows, the newest first."""
    found = (_REVISION.fullmatch(path.stem) for path in (_MIGRATIONS / "versions").iterdir())
    return sorted((match[1] for match in found if match), reverse=True)


def _migrate(connection: Connection, where: str) -> bool:
    """Brings the schema up to date, and says whether it was not. As a rule it is, and then Alembic is not loaded.

    Raises:
        LedgerError: It is a newer one.
    """
    stored: list[str] = []
    if inspect(connection).has_table("alembic_version"):
        stored = list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    known = known_schemas()
    if not set(stored) <= set(known):
        raise LedgerError(
            "the ledger was written by a newer version",
            where=where,
            do="install that version or restore a backup",
            number=3,
        )
    outdated = stored != known[:1]
    if outdated:
        from io_fhir_adapter.ledger.migrations.upgrade import upgrade  # noqa: PLC0415

        upgrade(connection)
    make_indexes(connection)
    return outdated


def has_key(connection: Connection) -> bool:
    """Whether the key of facts is there: it is missing only while a ledger is filled for the first time."""
    if connection.dialect.name != "sqlite":
        return True
    query = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?"
    return connection.exec_driver_sql(query, (FACTS_KEY.name,)).first() is not None


def make_key(connection: Connection) -> None:
    """Makes the key of facts where it was put off; of a fact that was written twice meanwhile the last one stays."""
    if not has_key(connection):
        connection.exec_driver_sql(f"PRAGMA cache_size=-{_CACHE_KIB}")  # each row is looked up now
        _create_key(connection)


def _create_key(connection: Connection) -> None:
    try:
        FACTS_KEY.create(connection)
    except IntegrityError:
        last = "SELECT max(rowid) FROM facts GROUP BY source, resource_type, id"
        connection.exec_driver_sql(f"DELETE FROM facts WHERE rowid NOT IN ({last})")  # noqa: S608 - nothing is put in
        FACTS_KEY.create(connection)


def make_indexes(connection: Connection) -> None:
    """Makes indexes of facts that were put off and never made; see first_load."""
    if connection.dialect.name != "sqlite":
        return
    if not has_key(connection):
        _create_key(connection)
    present = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'").scalars())
    for index in sorted(facts.indexes, key=lambda index: index is FACTS_MAPPED):  # last: SQLite looks at that one first
        if index.name not in present:
            index.create(connection)


def timestamp(moment: datetime | None = None) -> str:
    """A moment as the ledger writes it: UTC, microseconds, ``Z``."""
    moment = (moment or datetime.now(UTC)).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    *,
    replace: bool = True,
) -> None:
    """Writes rows, all with the same columns and with values as the driver takes them.

    Args:
        connection: An open transaction.
        table: Where to.
        rows: The rows.
        keys: The columns that tell rows apart.
        replace: Whether a row whose key exists replaces it; else it is left as it is.
    """
    if not rows:
        return
    columns = tuple(rows[0])
    write_tuples(connection, table, columns, [tuple(row.values()) for row in rows], keys, replace=replace)


def among(connection: Connection, column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    """The condition that a text column has one of any number of values, as one parameter."""
    named = [value for value in values if "\0" not in value]  # databases end texts there: it would stand for another
    if connection.dialect.name == "postgresql":
        return column == any_(cast(named, postgresql.ARRAY(Text)))
    each = func.json_each(json.dumps(named)).table_valued("value")
    return column.in_(select(each.c.value))
