"""The tables of the receiver's store, and how its database is opened."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

__all__ = [
    "CHAIN",
    "KEYS",
    "META",
    "RESOURCES",
    "SEALS",
    "SUBMISSIONS",
    "VERDICTS",
    "VERSIONS",
    "WITHDRAWALS",
    "WRITES",
    "in_memory",
    "open_database",
]

WRITES = "receiver_write"
"""The execution option of a connection that is going to write."""

META = sa.MetaData()

RESOURCES = sa.Table(
    "resources",
    META,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("facility", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
)
VERSIONS = sa.Table(
    "versions",
    META,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("updated", sa.String(32), nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
)
KEYS = sa.Table(
    "keys",
    META,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("by", sa.String(16), primary_key=True),
    sa.Column("system", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("facility", sa.String(64), nullable=False),
    sa.Index("keys_by_value", "value", "kind", "by", "facility"),
)
SUBMISSIONS = sa.Table(
    "submissions",
    META,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("facility", sa.String(64), nullable=False),
    sa.Column("identifier", sa.String(128), nullable=False),
    sa.Column("programme", sa.String(64), nullable=False),
    sa.Column("period_start", sa.String(10), nullable=False),
    sa.Column("period_end", sa.String(10), nullable=False),
    sa.Column("populations", sa.JSON, nullable=False),
    sa.Column("cases", sa.Integer, nullable=False),
    sa.Column("received", sa.String(32), nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("results", sa.JSON, nullable=False),
    sa.Column("bundle", sa.JSON, nullable=False),
    sa.UniqueConstraint("facility", "identifier"),
)
SEALS = sa.Table(
    "seals",
    META,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("signed", sa.String(16), nullable=False),
    sa.Column("kid", sa.Text, nullable=False),
    sa.Column("replaces", sa.JSON, nullable=False),
)
"""Of each submission, by its number: what was found of its signature, and the submissions that it corrects."""
WITHDRAWALS = sa.Table(
    "withdrawals",
    META,
    sa.Column("facility", sa.String(64), primary_key=True),
    sa.Column("withdrawn", sa.String(128), primary_key=True),
    sa.Column("identifier", sa.String(128), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("signed", sa.String(16), nullable=False),
    sa.Column("kid", sa.Text, nullable=False),
    sa.Column("received", sa.String(32), nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("results", sa.JSON, nullable=False),
    sa.Column("bundle", sa.JSON, nullable=False),
    sa.UniqueConstraint("facility", "identifier"),
)
"""The submissions that were taken back, each once."""
VERDICTS = sa.Table(
    "verdicts",
    META,
    sa.Column("facility", sa.String(64), primary_key=True),
    sa.Column("identifier", sa.String(128), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("verdict", sa.String(32), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("given_by", sa.Text, nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
)
"""What the body said of each submission, in order, and who of the body said it."""
CHAIN = sa.Table(
    "chain",
    META,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
)
"""Everything that was accepted, withdrawn or judged, as a hash chain."""


def in_memory(url: str) -> bool:
    """Whether a database of that URL is gone when it is closed."""
    return url in ("sqlite://", "sqlite:///:memory:")


def open_database(url: str) -> sa.Engine:
    """The engine of a SQLAlchemy URL."""
    memory = in_memory(url)
    # What a statement carried must not come out in an error or a log.
    options: dict[str, Any] = {"hide_parameters": True}
    if memory:
        options["poolclass"] = StaticPool
    if url.startswith("sqlite"):
        options["connect_args"] = {"check_same_thread": False, "timeout": 30}
    engine = sa.create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        _tune_sqlite(engine, memory)
    return engine


def _tune_sqlite(engine: sa.Engine, memory: bool) -> None:
    """Real transactions: the driver's own habit of beginning late would let two writers read the same state."""

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        if not memory:
            connection.execute("PRAGMA journal_mode=WAL").close()
            connection.execute("PRAGMA synchronous=FULL").close()

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
