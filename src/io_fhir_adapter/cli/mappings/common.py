"""What the commands on the mappings share: options, the tables that are meant, writing tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.classify.workbench.rows import (
    TableRow,
    read_code_list,
    write_rows,
)
from io_fhir_adapter.classify.workbench.site import named, tables_of
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.shipped import shipped_path

__all__ = [
    "CodesOption",
    "ConfigOption",
    "JsonOption",
    "OutOption",
    "SystemOption",
    "keep_ours",
    "listed",
    "named",
    "tables_of",
    "write_tables",
]

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration: the site's tables, its ledger where no path is given."),
]
SystemOption = Annotated[
    str | None,
    typer.Option("--system", help="Code system of --table and --codes: its URI, or a short name such as ops."),
]
CodesOption = Annotated[
    Path | None, typer.Option("--codes", help="CSV or TSV list of the codes that the system has.", metavar="LIST")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="File to write.")]


def listed(codes: Path | None, system: str | None) -> dict[str, tuple[str, ...]]:
    """The codes that a list has of a system, by its short name; empty without a list.

    Raises:
        UsageError: The system is not named.
    """
    if codes is None:
        return {}
    if system is None:
        raise UsageError("the code system of the list is not named", do="add --system, such as --system ops", number=12)
    name = named(system)
    return {name: read_code_list(codes, name)}


def keep_ours(out: Path, settings: Config | None) -> None:
    """Refuses to write into the shipped mappings or over a table that the site uses."""
    ours = shipped_path("mappings").resolve()
    used = {item.file.resolve() for item in settings.mappings.site_tables} if settings is not None else set()
    if out.resolve().is_relative_to(ours) or out.resolve() in used:
        raise UsageError(
            "this is a table in use", where=str(out), do="write elsewhere and take rows over by hand", number=13
        )


def write_tables(
    out: Path, rows: Iterable[tuple[str, TableRow]], extra: Sequence[Mapping[str, str]] | None = None
) -> None:
    """Writes the rows of each code system to a file of its own, numbered where there are several."""
    groups: dict[str, list[int]] = {}
    items = list(rows)
    for place, (uri, _) in enumerate(items):
        groups.setdefault(named(uri), []).append(place)
    for number, places in enumerate(groups.values(), start=1):
        path = out if len(groups) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        beside = [extra[place] for place in places] if extra is not None else None
        write_rows(path, [items[place][1] for place in places], beside)
        typer.echo(f"written {path}: {len(places)} rows of {items[places[0]][0]}")
    if not groups:
        write_rows(out, [])
        typer.echo(f"written {out}: no rows")
