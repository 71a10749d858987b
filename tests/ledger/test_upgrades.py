"""A ledger of any earlier schema is brought up to date with every row as it was, in either database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from sqlalchemy import Boolean, Connection, Integer, LargeBinary, MetaData, Table, create_engine, insert, select

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger import database
from io_fhir_adapter.ledger.database import known_schemas, open_ledger
from io_fhir_adapter.ledger.schema import METADATA
from io_fhir_adapter.ledger.soundness import census, check_database, check_hashes, schema_of
from io_fhir_adapter.trust.chain import START, link_digest

EARLIER = known_schemas()[::-1]
MIGRATIONS = Path(database.__file__).parent / "migrations"
Rows = dict[str, list[dict[str, Any]]]


def build(connection: Connection, revision: str) -> Rows:
    """Makes the schema of that revision with two rows in every table, which belong together."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    found = MetaData()
    found.reflect(connection)
    rows: Rows = {}
    for table in found.sorted_tables:
        if table.name == "alembic_version":
            continue
        rows[table.name] = linked(table.name) or [filled(table, number) for number in (1, 2)]
        connection.execute(insert(table), rows[table.name])
    return rows


def filled(table: Table, number: int) -> dict[str, Any]:
    """A row whose values hang on their columns' names, so that references meet."""
    row: dict[str, Any] = {}
    for column in table.columns:
        if isinstance(column.type, Boolean):
            row[column.name] = number == 1
        elif isinstance(column.type, Integer):
            row[column.name] = number
        elif isinstance(column.type, LargeBinary):
            row[column.name] = b"\x00\xff" + bytes([number])
        else:
            row[column.name] = f"{column.name}-{number}"[-(getattr(column.type, "length", None) or 99) :]
    return row


def linked(name: str) -> list[dict[str, Any]]:
    """Two rows of a table that is a hash chain; none for the others."""
    rows, previous = [], START
    for number in (1, 2):
        at = f"2025-01-0{number}T00:00:00.000000Z"
        if name == "chain":
            body: dict[str, Any] = {"frame": f"sha256:{number}"}
            row = {"kind": "frame-committed", "body": json.dumps(body).encode()}
            previous = link_digest(previous, at, "frame-committed", body)
        elif name == "audit":
            row = dict.fromkeys(("action", "outcome", "agent", "role", "entity", "detail"), str(number))
            previous = link_digest(previous, at, "audit", row)
        else:
            return []
        rows.append({"number": number, "at": at, **row, "digest": previous})
    return rows


def contents(connection: Connection, rows: Rows) -> Rows:
    """What the ledger holds now in the columns that the rows had."""
    found = MetaData()
    found.reflect(connection)
    held: Rows = {}
    for name, given in rows.items():
        query = select(*(found.tables[name].c[column] for column in given[0]))
        read = [dict(row) for row in connection.execute(query).mappings()]
        held[name] = sorted(read, key=lambda row: [row[column.name] for column in found.tables[name].primary_key])
    return held


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], LedgerConfig]:
    """Where a ledger may be made: an empty database of either kind."""
    if request.param == "sqlite":
        return lambda: LedgerConfig(path=tmp_path / "ledger.sqlite")
    server = request.getfixturevalue("postgres")

    def make() -> LedgerConfig:
        name = server.make(empty=True)
        request.addfinalizer(lambda: server.drop(name))
        config: LedgerConfig = server.config(name)
        return config

    return make


@pytest.mark.parametrize("revision", EARLIER)
def test_every_earlier_schema_is_upgraded_with_its_rows(place: Callable[[], LedgerConfig], revision: str) -> None:
    config = place()
    engine = create_engine(config.url or f"sqlite:///{config.path}")
    with engine.begin() as connection:
        rows = build(connection, revision)
    engine.dispose()
    ledger = open_ledger(config)
    with ledger.read() as connection:
        assert schema_of(connection) == EARLIER[-1]
        assert contents(connection, rows) == rows
        assert {name: count for name, count in census(connection).rows.items() if count} == dict.fromkeys(rows, 2)
        check_database(connection, ledger.name)
        check_hashes(connection, ledger.name)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    if config.url is None:  # what the upgrade wrote does not stay in the log as well
        assert Path(f"{config.path}-wal").stat().st_size == 0
    ledger.close()
