"""A site's own tables: which there are, which one a code belongs to, and taking accepted rows into it."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from io_fhir_adapter.classify.rules import load_techniques
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.workbench.lint import lint_tables
from io_fhir_adapter.classify.workbench.rows import TableFile, TableRow, read_rows, shipped_tables, short_name
from io_fhir_adapter.config import Config, SiteTableConfig
from io_fhir_adapter.durable import write_whole
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.trust.canonical import digest_bytes

__all__ = ["Taken", "is_shipped", "named", "table_for", "tables_of", "take_rows"]

_OURS: Final = ("mappings", "config")


@dataclass(frozen=True, slots=True)
class Taken:
    """Digests of a table's bytes before and after rows were taken into it."""

    before: str
    after: str


def tables_of(settings: Config | None) -> list[TableFile]:
    """The shipped tables and a site's own."""
    own = settings.mappings.site_tables if settings is not None else ()
    sites = [TableFile(item.file, named(item.system), item.file.name, site=True) for item in own]
    return [*shipped_tables(shipped_path("mappings")), *sites]


def named(system: str) -> str:
    """The short name of a code system, given by it or by its URI; of one that is not listed, its URI."""
    return short_name(system, shipped_path("mappings", "systems.csv"))


def table_for(settings: Config, ruleset: Ruleset, system: str) -> SiteTableConfig | None:
    """The site's own table that rows for codes of a system go into, None where the configuration names none.

    Args:
        settings: The configuration.
        ruleset: Knows the names of systems.
        system: As the data write it.
    """
    name = ruleset.systems.name(system)
    for table in settings.mappings.site_tables:
        if table.system == system or (name and ruleset.systems.name(table.system) == name):
            return table
    return None


def is_shipped(table: SiteTableConfig) -> bool:
    """Whether a table comes with this program: such a one is never written to."""
    return any(table.file.resolve().is_relative_to(shipped_path(folder).resolve()) for folder in _OURS)


def take_rows(table: SiteTableConfig, rows: Sequence[TableRow], today: date) -> Taken:
    """Adds rows at the end of a site's own table; what stands in it stays as it is, byte by byte.

    The table is checked as a whole before, and takes the place of the earlier one in one step. Whoever calls keeps
    others away meanwhile.

    Args:
        table: The table.
        rows: The rows.
        today: Their date, for the check.

    Raises:
        MappingError: The table is one of the package's, has a row of such a code already, would be wrong with these
            rows, or cannot be read or written.
    """
    path, label = table.file.resolve(), table.file.name
    if is_shipped(table):
        raise MappingError(
            "the table comes with this program and is not written to", where=str(table.file),
            do="copy it to a folder of your own and name the copy in mappings.site_tables", number=60,
        )  # fmt: skip
    there = {row.code for row in read_rows(path, label).rows}
    for row in rows:
        if row.code in there:
            raise MappingError(
                f"the table has a row {row.code!r} already", where=label, do="load the page again", number=61
            )
    try:
        before, mode = path.read_bytes(), path.stat().st_mode
        after = before + (b"" if before.endswith(b"\n") else b"\n") + _lines(rows)
        _check(after, label, named(table.system), today)
        write_whole(path, after)
        path.chmod(mode & 0o777)
    except OSError as exc:
        raise MappingError(
            f"the site's code table cannot be written ({type(exc).__name__})", where=str(table.file),
            do="let the service write to the file and its folder, or edit the table by hand", number=62,
        ) from exc  # fmt: skip
    return Taken(digest_bytes(before), digest_bytes(after))


def _lines(rows: Sequence[TableRow]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(row.cells().values() for row in rows)
    return text.getvalue().encode()


def _check(data: bytes, label: str, system: str, today: date) -> None:
    """The table as it would be, looked at before it is."""
    with tempfile.TemporaryDirectory(prefix="io-fhir-adapter-") as folder:
        draft = Path(folder) / "table.csv"
        draft.write_bytes(data)
        techniques = load_techniques(shipped_path("mappings", "techniques.csv"))
        faults = lint_tables([TableFile(draft, system, label, site=True)], techniques, today)
    wrong = next((fault for fault in faults if fault.level == "error"), None)
    if wrong is not None:
        raise MappingError(wrong.text, where=wrong.place, do="nothing was written; correct it there", number=63)
