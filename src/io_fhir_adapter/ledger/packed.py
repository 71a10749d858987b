"""Procedures on their way into the ledger by the million: the same rows as other facts, with less work for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, select

from io_fhir_adapter.ledger.database import among, has_key
from io_fhir_adapter.ledger.intake import Stored, mark_stale
from io_fhir_adapter.ledger.packed_form import PackedProcedure, packed
from io_fhir_adapter.ledger.schema import facts
from io_fhir_adapter.ledger.statements import write_tuples

__all__ = ["PackedProcedure", "packed", "put_packed"]

_NAME: Final = "Procedure"
_KEY: Final = ("source", "resource_type", "id")
_COLUMNS: Final = tuple(column.name for column in facts.columns)
_BY_ID: Final = attrgetter("id")


def put_packed(
    connection: Connection,
    source: str,
    items: Mapping[str, PackedProcedure],
    run: int,
    *,
    expected_new: bool = False,
) -> Stored:
    """Writes Procedures of one source, by id; those that did not change are left alone.

    Patients whose decisions rest on what changed become stale, the former patient of a moved record included. While a
    ledger is filled for the first time all count as new, those that were written before included.

    Args:
        connection: An open transaction.
        source: Name of the source.
        items: The Procedures, by id.
        run: Number of the run.
        expected_new: Whether the ledger has none of them, in all likelihood: it is then quicker to write them and to
            see what was there. The result is the same.
    """
    if not items:
        return Stored()
    new = 0
    if not has_key(connection):
        write_tuples(connection, facts, _COLUMNS, _rows(connection, source, items.values(), run), (), replace=False)
        mark_stale(connection, {item.patient for item in items.values() if item.mapped})
        return Stored(len(items))
    if expected_new and connection.dialect.name == "sqlite":
        ordered = sorted(items.values(), key=_BY_ID)  # neighbours in the index are written one after the other
        new = write_tuples(connection, facts, _COLUMNS, _rows(connection, source, ordered, run), _KEY, replace=False)
        if new == len(ordered):
            mark_stale(connection, {item.patient for item in ordered if item.mapped})
            return Stored(new)
    known = _known(connection, source, items)
    to_write: list[PackedProcedure] = []
    concerned: set[str] = set()
    inserted = new
    for name, item in items.items():
        before = known.get(name)
        if before is None:
            new += 1
        elif before[1:4] == (item.digest, item.mapped, item.known_system):
            if inserted and item.mapped and before[5] == run:  # maybe one of those that were written just now
                concerned.add(item.patient)
            continue
        elif before[2]:
            concerned.add(before[4])
        if item.mapped:
            concerned.add(item.patient)
        to_write.append(item)
    to_write.sort(key=_BY_ID)
    write_tuples(connection, facts, _COLUMNS, _rows(connection, source, to_write, run), _KEY)
    mark_stale(connection, concerned)
    changed = len(to_write) - (new - inserted)
    return Stored(new, changed, len(items) - new - changed)


def _known(connection: Connection, source: str, ids: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """What the ledger has of Procedures, by id: id, digest, mapped, known_system, patient, run."""
    columns = facts.c
    query = select(
        columns.id, columns.digest, columns.mapped, columns.known_system, columns.patient, columns.run
    ).where(columns.source == source, columns.resource_type == _NAME, among(connection, columns.id, list(ids)))
    return {row[0]: tuple(row) for row in connection.execute(query)}


def _rows(connection: Connection, source: str, items: Iterable[PackedProcedure], run: int) -> list[tuple[object, ...]]:
    # SQLite's driver looks for a way to write each truth value and each bytes; numbers and a bytearray it takes as they
    # are. PostgreSQL wants truth
    is_sqlite = connection.dialect.name == "sqlite"
    truth, content = (int, bytearray) if is_sqlite else (bool, bytes)
    return [
        (
            source, _NAME, item.id, item.patient, item.status, item.day, truth(item.mapped), truth(item.known_system),
            item.digest, content(item.data), run,
        )
        for item in items
    ]  # fmt: skip
