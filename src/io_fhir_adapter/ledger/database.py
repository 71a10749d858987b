"""Opening the ledger: the engine, its settings, and the migrations that bring any earlier schema up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError

__all__ = ["Ledger", "open_ledger", "timestamp", "upsert"]

_MIGRATIONS = Path(__file__).parent / "migrations"
_MODE_OWNER_ONLY = 0o600
_BUSY_MS = 30_000


class Ledger:
    """An open ledger: hands out transactions, nothing else."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back on any error.

        Raises:
            LedgerError: The database refused.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as exc:
            cause = type(exc.__cause__ or exc).__name__
            raise LedgerError(
                f"the database refused ({cause})", where=self.name, do="check disk space and permissions", number=2
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
        except OSError as exc:
            raise LedgerError(
                "the ledger cannot be written", where=str(path), do="check the folder and its permissions"
            ) from exc
        url, name = make_url(f"sqlite:///{path}"), str(path)
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_settings)
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
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(connection: Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def timestamp(moment: datetime | None = None) -> str:
    """A moment as the ledger writes it: UTC, microseconds, ``Z``."""
    moment = (moment or datetime.now(UTC)).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Writes rows; those whose key exists are replaced."""
    if not rows:
        return
    insert = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
    replaced = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    statement = insert.on_conflict_do_update(index_elements=list(keys), set_=replaced)
    connection.execute(statement, list(rows))
