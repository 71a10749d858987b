"""Rows of code tables as text, and lists of codes: what the tools of the workbench read and write.

The loader of the tables stops at the first fault; here every row that can be read at all is given, faults and all.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from io_fhir_adapter.classify.csv_table import WRONG_SHAPE, rows_as_they_are
from io_fhir_adapter.classify.globs import parse_glob
from io_fhir_adapter.classify.systems import SystemNames, normalise_code
from io_fhir_adapter.classify.tables import COLUMNS, CodeRow
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding

__all__ = [
    "RawTable",
    "TableFile",
    "TableRow",
    "canonical_uris",
    "code_row",
    "read_code_list",
    "read_rows",
    "shipped_tables",
    "short_name",
    "write_rows",
]

_CANONICAL = "canonical"
_CODE_COLUMNS = ("code", "coding", "zcode")


@dataclass(frozen=True, slots=True)
class TableFile:
    """A code table: its file, the short name of its code system, how it is named, whether it is a site's own."""

    path: Path
    system: str
    label: str
    site: bool = False


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a code table, cell by cell as written, without surrounding space; ``place`` is its file and line."""

    code: str
    technique: str
    site: str
    approach: str
    agent: str
    role: str
    indication: str
    valid_from: str = ""
    valid_to: str = ""
    meaning: str = ""
    checked: str = ""
    note: str = ""
    place: str = field(default="", compare=False)

    def cells(self) -> dict[str, str]:
        """Column to text, in the order of the columns."""
        return {name: getattr(self, name) for name in COLUMNS}


@dataclass(frozen=True, slots=True)
class RawTable:
    """What a table file holds: the rows that have the right columns, and (place, fault) of those that have not."""

    rows: tuple[TableRow, ...]
    misshapen: tuple[tuple[str, str], ...]


def read_rows(path: Path, label: str) -> RawTable:
    """Reads every row of a table file.

    Raises:
        MappingError: The file cannot be read, or its first line is not that of a code table.
    """
    rows: list[TableRow] = []
    misshapen: list[tuple[str, str]] = []
    for place, cells in rows_as_they_are(path, COLUMNS, "the code table", label):
        if cells is None:
            misshapen.append((place, WRONG_SHAPE))
        else:
            rows.append(TableRow(**cells, place=place))
    return RawTable(tuple(rows), tuple(misshapen))


def write_rows(path: Path, rows: Iterable[TableRow], extra: Iterable[Mapping[str, str]] | None = None) -> None:
    """Writes a code table.

    Args:
        path: The file.
        rows: Its rows.
        extra: For each row, further columns that follow those of a table.

    Raises:
        MappingError: The file cannot be written.
    """
    beside = list(extra) if extra is not None else []
    names = [*COLUMNS, *(beside[0] if beside else ())]
    try:
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, names, lineterminator="\n")
            writer.writeheader()
            for number, row in enumerate(rows):
                writer.writerow({**row.cells(), **(beside[number] if beside else {})})
    except OSError as exc:
        raise MappingError(
            f"the table cannot be written ({type(exc).__name__})",
            where=str(path),
            do="check the folder and its permissions",
            number=20,
        ) from exc


def code_row(row: TableRow, system: str) -> CodeRow:
    """The row as the rules see it.

    Raises:
        MappingError: Its pattern is malformed.
        ValueError: A date is malformed.
    """
    finding = Finding(
        row.technique, row.site, row.approach, row.agent, row.role, row.indication, system, row.code, row.place
    )
    valid_from, valid_to = (text and date.fromisoformat(text).isoformat() for text in (row.valid_from, row.valid_to))
    return CodeRow(parse_glob(row.code), finding, valid_from, valid_to, row.place)


def read_code_list(path: Path, system: str) -> tuple[str, ...]:
    """The codes of a list, as the tables write them, each once and in order.

    The file has comma, semicolon or tab between its columns. The codes stand in the column named ``code``, and in
    the first where there is none; a first line that names no such column is taken for a code unless it has no digit.

    Args:
        path: A CSV or TSV file.
        system: Short name of the code system.

    Raises:
        MappingError: It cannot be read or holds no code.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise MappingError(
            f"the code list cannot be read ({type(exc).__name__})",
            where=str(path),
            do="name a UTF-8 file with one code a line",
            number=21,
        ) from exc
    lines = text.splitlines()
    delimiter = next((char for char in "\t;" if lines and char in lines[0]), ",")
    records: Sequence[list[str]] = [record for record in csv.reader(lines, delimiter=delimiter) if record]
    head = [cell.strip().lower() for cell in records[0]] if records else []
    column = next((head.index(name) for name in _CODE_COLUMNS if name in head), None)
    titled = column is not None or (bool(head) and not any(char.isdigit() for char in head[0]))
    cells = (record[column or 0] for record in records[titled:] if len(record) > (column or 0))
    codes = dict.fromkeys(normalise_code(system, cell) for cell in cells if cell.strip())
    if not codes:
        raise MappingError("the code list holds no code", where=str(path), do="put them in a column code", number=21)
    return tuple(codes)


def canonical_uris(path: Path) -> dict[str, str]:
    """Short name to the canonical URI of its code system (mappings/systems.csv).

    Raises:
        MappingError: The file cannot be read.
    """
    found: dict[str, str] = {}
    marked: set[str] = set()
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                name, is_canonical = row["name"].strip(), _CANONICAL in row["note"].replace("not canonical", "")
                if name not in found or (is_canonical and name not in marked):
                    found[name] = row["uri"].strip()
                if is_canonical:
                    marked.add(name)
    except (OSError, KeyError, csv.Error) as exc:
        raise MappingError(
            f"the list of code systems cannot be read ({type(exc).__name__})", where=str(path), number=2
        ) from exc
    return found


def short_name(system: str, path: Path) -> str:
    """The short name of a system that mappings/systems.csv lists, given by it or by a URI; any other as it is.

    Raises:
        MappingError: The file cannot be read.
    """
    return system if system in canonical_uris(path) else SystemNames.load(path).name(system) or system


def shipped_tables(folder: Path) -> list[TableFile]:
    """The code tables of a mappings folder."""
    return [TableFile(path, path.stem, f"codes/{path.name}") for path in sorted((folder / "codes").glob("*.csv"))]
