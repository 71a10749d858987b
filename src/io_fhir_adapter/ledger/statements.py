"""Statements that write many rows: each compiled once, and handed to the driver with several rows at a time.

SQLAlchemy's own way converts each value and compiles anew, and a statement for each row takes SQLite a quarter longer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["write_tuples"]

_TOGETHER: Final = 10  # rows in one statement


class _Insert(NamedTuple):
    """A statement as the driver takes it, with the columns of one row in order; none where parameters are named."""

    text: str
    order: tuple[str, ...]


_COMPILED: Final[dict[tuple[Hashable, ...], _Insert]] = {}  # of some twenty forms


def write_tuples(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    keys: Sequence[str],
    *,
    replace: bool = True,
) -> int:
    """Writes rows, with values as the driver takes them.

    Args:
        connection: An open transaction.
        table: Where to.
        columns: The columns that each row has, in order.
        rows: The rows.
        keys: The columns that tell rows apart; with none there must be nothing to replace.
        replace: Whether a row whose key exists replaces it; else it is left as it is.

    Returns:
        How many rows were written; SQLite alone says so.
    """
    if not rows:
        return 0
    names, key = tuple(columns), tuple(keys)
    one = _statement(connection.dialect, table, names, key, replace=replace)
    if not one.order:
        return connection.exec_driver_sql(one.text, [dict(zip(names, row, strict=True)) for row in rows]).rowcount
    if names != one.order:
        places = [names.index(name) for name in one.order]
        rows = [tuple(map(row.__getitem__, places)) for row in rows]
    whole = len(rows) - len(rows) % _TOGETHER
    written = 0
    if whole:
        several = _statement(connection.dialect, table, names, key, replace=replace, rows=_TOGETHER)
        parts = (rows[start : start + _TOGETHER] for start in range(0, whole, _TOGETHER))
        written = connection.exec_driver_sql(several.text, [tuple(chain.from_iterable(one)) for one in parts]).rowcount
    if whole < len(rows):
        written += connection.exec_driver_sql(one.text, list(rows[whole:])).rowcount
    return written


def _statement(
    dialect: Dialect, table: Table, columns: tuple[str, ...], keys: tuple[str, ...], *, replace: bool, rows: int = 1
) -> _Insert:
    mark = (dialect.name, table.name, columns, keys, replace, rows)
    known = _COMPILED.get(mark)
    if known is None:
        known = _COMPILED[mark] = _compiled(dialect, table, columns, keys, replace=replace, rows=rows)
    return known


def _compiled(
    dialect: Dialect, table: Table, columns: tuple[str, ...], keys: tuple[str, ...], *, replace: bool, rows: int
) -> _Insert:
    insert = postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)
    row = dict.fromkeys(columns)
    insert = insert.values([row] * rows if rows > 1 else row)
    others = {name: insert.excluded[name] for name in columns if name not in keys}
    statement = (
        insert.on_conflict_do_update(index_elements=list(keys), set_=others)
        if replace and others
        else insert.on_conflict_do_nothing(index_elements=list(keys) or None)
    )
    compiled = statement.compile(dialect=dialect)
    order = compiled.positiontup or ()
    return _Insert(str(compiled), tuple(name.removesuffix("_m0") for name in order[: len(columns)]))
