"""Opening the ledger: the engine, its settings, and the migrations that bring any earlier schema up to date."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
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
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError

__all__ = ["Ledger", "among", "open_ledger", "timestamp", "upsert"]

_MIGRATIONS = Path(__file__).parent / "migrations"
_MODE_OWNER_ONLY = 0o600
_OTHERS = 0o077
_BUSY_MS = 30_000
_CACHE_KIB = 16_384  # eight times SQLite's own: ids come in no order, and each touches its page of every index
_MODE = "sqlite_begin"


class Ledger:
    """An open ledger: hands out transactions, nothing else."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._reading = engine.execution_options(**{_MODE: "DEFERRED"})
        self.name = name

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back on any error.

        In SQLite it is the only one that writes until it ends, so what it reads cannot change under it; a second
        one in the same thread would wait for the first in vain.

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
            cause = type(exc.__cause__ or exc).__name__
            raise LedgerError(
                f"the database refused ({cause})",
                where=self.name,
                do="check disk space and permissions, and that no other run holds it",
                number=2,
            ) from exc

    def close(self) -> None:
        """Gives all connections back."""
        self._engine.dispose()


def open_ledger(config: LedgerConfig) -> Ledger:
    """Opens the ledger, makes it where it does not exist yet, and brings its schema up to date.

    A SQLite file is readable by its owner alone.

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
        event.listen(engine, "connect", _sqlite_settings)
        event.listen(engine, "begin", _sqlite_begin)
    try:
        with engine.begin() as connection:
            _migrate(connection)
    except CommandError as exc:
        engine.dispose()
        raise LedgerError(
            "the ledger was written by a newer version",
            where=name,
            do="install that version or restore a backup",
            number=3,
        ) from exc
    except SQLAlchemyError as exc:
        engine.dispose()
        raise LedgerError(
            f"the ledger cannot be opened ({type(exc.__cause__ or exc).__name__})",
            where=name,
            do="check that it is one",
        ) from exc
    return Ledger(engine, name)


def _sqlite_settings(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: never before DDL, nor before a SELECT
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_MS}",
        f"cache_size=-{_CACHE_KIB}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get(_MODE, 'IMMEDIATE')}")


def _migrate(connection: Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


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
    insert = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
    insert = insert.values(dict.fromkeys(rows[0]))
    others = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    statement = (
        insert.on_conflict_do_update(index_elements=list(keys), set_=others)
        if replace and others
        else insert.on_conflict_do_nothing(index_elements=list(keys))
    )
    compiled = statement.compile(dialect=connection.dialect)
    order = compiled.positiontup  # straight to the driver: converting each value takes longer than storing it
    if order is None:
        connection.exec_driver_sql(str(compiled), [dict(row) for row in rows])
    elif len(order) == 1:
        connection.exec_driver_sql(str(compiled), [(row[order[0]],) for row in rows])
    else:
        connection.exec_driver_sql(str(compiled), list(map(itemgetter(*order), rows)))


def among(connection: Connection, column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    """The condition that a text column has one of any number of values, as one parameter."""
    if connection.dialect.name == "postgresql":
        return column == any_(cast(list(values), postgresql.ARRAY(Text)))
    each = func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(select(each.c.value))
