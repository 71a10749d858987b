"""Reading the CSV files of the mappings: the right columns, and for each row where it stands."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from io_fhir_adapter.errors import MappingError

__all__ = ["WRONG_SHAPE", "read_table", "rows_as_they_are"]

WRONG_SHAPE = "the row has too many or too few columns"


def read_table(path: Path, columns: Sequence[str], what: str, shown: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, column to text) of each row, the texts without surrounding space.

    Args:
        path: The file.
        columns: What its first line must read.
        what: The table's name in messages, such as "the code table".
        shown: The file's.

    Raises:
        MappingError: It cannot be read, or it or a row has other columns.
    """
    for place, cells in rows_as_they_are(path, columns, what, shown):
        if cells is None:
            raise MappingError(WRONG_SHAPE, where=place, do="quote texts that hold a comma", number=5)
        yield place, cells


def rows_as_they_are(
    path: Path, columns: Sequence[str], what: str, shown: str
) -> Iterator[tuple[str, dict[str, str] | None]]:
    """As :func:`read_table`, with None in place of a row that has other columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            if next(reader, []) != list(columns):
                raise MappingError(
                    f"the columns are not those of {what}",
                    where=f"{shown}:1",
                    do=f"the first line must read {','.join(columns)}",
                    number=5,
                )
            for record in reader:
                if record:
                    fits = len(record) == len(columns)
                    cells = dict(zip(columns, map(str.strip, record), strict=True)) if fits else None
                    yield f"{shown}:{reader.line_num}", cells
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise MappingError(
            f"{what} cannot be read ({type(exc).__name__})", where=shown, do="save it as UTF-8 CSV", number=5
        ) from exc
