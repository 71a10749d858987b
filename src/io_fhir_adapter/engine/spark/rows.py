"""The rows that go between the steps: what reading a split yields, and what deciding on patients yields.

Both hold rows of several kinds in one table, because a function that Spark maps over data has one kind of output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa

__all__ = [
    "ASIDE",
    "COUNTED",
    "DECIDED",
    "DECISION",
    "ENDED",
    "FACT",
    "PARTIAL",
    "QUARANTINE",
    "READ",
    "SHAPE",
    "TALLY",
    "UNSEEN",
    "batch_of",
    "ddl_of",
    "place_of",
]

FACT, TALLY, PARTIAL, QUARANTINE = range(4)
"""Kinds of rows of reading."""
DECISION, ASIDE, SHAPE, UNSEEN, ENDED = range(5)
"""Kinds of rows of deciding: a decision and a Procedure set aside; and numbers, of decisions of one shape, of
Procedures that were set aside on a day, and of those that the programme takes for completed."""

READ: Final = pa.schema(
    [
        ("kind", pa.int8()),
        ("file", pa.int32()),  # number of the input, in the order in which one process would read them
        ("start", pa.int64()),  # first byte of the split
        ("seq", pa.int32()),  # number of the row in its split, for rows that have an order
        ("patient", pa.string()),  # of a fact
        ("number", pa.int64()),  # of a fact its kind, of a tally the bucket, of a quarantine the line
        ("place", pa.int64()),  # of a tally where the first of its Procedures stands in the whole input, see place_of
        ("payload", pa.binary()),
    ]
)
DECIDED: Final = pa.schema(
    [
        ("kind", pa.int8()),
        ("later", pa.bool_()),  # records that were merged come after all others
        ("patient", pa.string()),
        ("seq", pa.int32()),
        ("date", pa.string()),  # this and the next ones of numbers; of UNSEEN and ENDED the day
        ("category", pa.string()),  # of UNSEEN the status
        ("decision", pa.string()),
        ("reason", pa.string()),
        ("times", pa.int64()),
        ("payload", pa.binary()),  # of a decision its JSON
    ]
)
COUNTED: Final = pa.schema([("flags", pa.int64()), ("times", pa.int64())])
"""Distinct Procedures by their flags."""
_FILE_SHIFT = 40  # bits for the place within a file: a terabyte
_SQL: Final = {
    pa.int8(): "tinyint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.string(): "string",
    pa.binary(): "binary",
}


def ddl_of(schema: pa.Schema) -> str:
    """The same schema as Spark writes it."""
    return ", ".join(f"`{field.name}` {_SQL[field.type]}" for field in schema)


def batch_of(schema: pa.Schema, number: int, columns: dict[str, Sequence[Any] | pa.Array]) -> pa.RecordBatch:
    """So many rows with these columns, the others empty."""
    arrays: Iterable[pa.Array] = (
        _array(columns[field.name], field.type) if field.name in columns else pa.nulls(number, field.type)
        for field in schema
    )
    return pa.RecordBatch.from_arrays(list(arrays), schema=schema)


def _array(values: Sequence[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def place_of(file: int, start: int) -> int:
    """The place in the whole input of the first line of a split; the next lines have the next numbers.

    A line takes at least a byte, so that no number is given twice, and later lines have higher ones.
    """
    return (file << _FILE_SHIFT) + start
