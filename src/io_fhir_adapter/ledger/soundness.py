"""Whether a ledger is whole: the database's own check, the schema, and the two chains; and what it holds, as numbers.

Everything here only reads, and takes a ledger of any earlier schema as it lies.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, Integer, String, column, func, inspect, select, table

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.audit import verify_audit
from io_fhir_adapter.ledger.chain import check_chain
from io_fhir_adapter.ledger.database import damaged, known_schemas
from io_fhir_adapter.trust.chain import START

__all__ = [
    "Census",
    "Head",
    "census",
    "check_database",
    "check_hashes",
    "check_schema",
    "has_table",
    "schema_of",
]

_REVISION: Final = "alembic_version"
_CHAINS: Final = ("chain", "audit")


class Head(msgspec.Struct, frozen=True):
    """The end of a hash chain: how many links it has, and the digest of the last."""

    number: int = 0
    digest: str = START


class Census(msgspec.Struct, frozen=True):
    """What a ledger holds.

    Attributes:
        schema: The revision of its schema.
        rows: Table to number of rows.
        chain: End of the chain of draws.
        audit: End of the audit.
    """

    schema: str
    rows: dict[str, int]
    chain: Head
    audit: Head


def has_table(connection: Connection, name: str) -> bool:
    """Whether the ledger's schema has that table already."""
    return inspect(connection).has_table(name)


def schema_of(connection: Connection) -> str:
    """The revision of the schema, empty where the database has none and so is no ledger."""
    if not has_table(connection, _REVISION):
        return ""
    return connection.execute(select(column("version_num")).select_from(table(_REVISION))).scalar() or ""


def census(connection: Connection) -> Census:
    """What the ledger holds; inside one transaction, the numbers belong together."""
    names = sorted(set(inspect(connection).get_table_names()) - {_REVISION})
    rows = {name: connection.execute(select(func.count()).select_from(table(name))).scalar_one() for name in names}
    heads = [_head(connection, name) if name in rows else Head() for name in _CHAINS]
    return Census(schema_of(connection), rows, *heads)


def _head(connection: Connection, name: str) -> Head:
    number, digest = column("number", Integer), column("digest", String)
    query = select(number, digest).select_from(table(name)).order_by(number.desc()).limit(1)
    last = connection.execute(query).first()
    return Head(last.number, last.digest) if last is not None else Head()


def check_database(connection: Connection, where: str) -> None:
    """Has SQLite read everything; PostgreSQL looks after its own files.

    Raises:
        LedgerError: It finds damage, or a row that belongs to one that is gone.
    """
    if connection.dialect.name != "sqlite":
        return
    if connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar() != "ok":
        raise damaged(where)
    strays = len(connection.exec_driver_sql("PRAGMA foreign_key_check").all())
    if strays:
        raise LedgerError(
            f"{strays} rows belong to rows that are gone",
            where=where,
            do="the ledger was changed by hand or damaged; restore a backup and keep this file as evidence",
            number=51,
        )


def check_schema(connection: Connection, where: str) -> str:
    """The revision of the schema, which is one that this version knows.

    Raises:
        LedgerError: It is not: the database is no ledger, or was written by a newer version.
    """
    found = schema_of(connection)
    if not found:
        raise LedgerError("this is no ledger", where=where, do="name one that this program made", number=52)
    if found not in known_schemas():
        raise LedgerError(
            f"the ledger was written by a newer version (schema {found})",
            where=where,
            do="install that version, or a newer one",
            number=3,
        )
    return found


def check_hashes(connection: Connection, where: str) -> None:
    """Follows the chain of draws and the audit from end to end, those that the schema has.

    Raises:
        LedgerError: A link does not follow from those before it.
    """
    try:
        if has_table(connection, "chain"):
            check_chain(connection)
        if has_table(connection, "audit"):
            verify_audit(connection)
    except ValueError as exc:  # the body of a link is no JSON any more
        raise LedgerError(
            "the chain of draws is broken",
            where=where,
            do="the ledger was changed by hand or damaged; restore a backup and keep this file as evidence",
            number=8,
        ) from exc
