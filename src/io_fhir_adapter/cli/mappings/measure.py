"""Measuring how much of a source the tables know, and proposing rows for what they do not."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from io_fhir_adapter.classify.category_cells import literal_pattern
from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset, rules_for
from io_fhir_adapter.classify.sessions import latest
from io_fhir_adapter.classify.workbench.coverage import Coverage, survey
from io_fhir_adapter.classify.workbench.rows import read_rows
from io_fhir_adapter.classify.workbench.suggest import LocalCode, is_local, load_spellings, suggest_rows
from io_fhir_adapter.cli.mappings.common import ConfigOption, JsonOption, OutOption, keep_ours, tables_of, write_tables
from io_fhir_adapter.cli.mappings.kept import ledger_at
from io_fhir_adapter.config import LedgerConfig, load_config
from io_fhir_adapter.engine.scan import scan_files
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.engine.terms import ALL_TIME, Terms
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.facts import every_procedure
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.report.gather import DISPLAY_FROM, unmapped_codes
from io_fhir_adapter.report.nightly import UnmappedCode
from io_fhir_adapter.shipped import shipped_path

__all__ = ["register"]

_LISTED = 30

Paths = Annotated[
    list[str] | None,
    typer.Argument(help="Files, folders or globs with FHIR JSON, Bundles or NDJSON (.gz too); - reads stdin."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: io-fhir-adapter mappings coverage export/")(coverage)
    app.command(epilog="Example: io-fhir-adapter mappings suggest export/ --out suggestions.csv")(suggest)


def coverage(
    paths: Paths = None,
    config: ConfigOption = None,
    top: Annotated[int, typer.Option("--top", help="How many codes without a row are listed.", min=0)] = 30,
    as_json: JsonOption = False,
) -> int:
    """Say how many completed Procedures have a known code system and a row, and which codes have none.

    A code's display is shown where at least five patients share it.
    """
    rules, found, unmapped, code = _surveyed(paths, config, DISPLAY_FROM)
    if as_json:
        typer.echo(json.dumps(_coverage_json(found, unmapped, rules), indent=2, ensure_ascii=False))
        return code
    whole = found.procedures or 1
    typer.echo(f"{found.procedures:,} completed Procedures, {found.without_code:,} without any code")
    typer.echo(f"known code system  {found.known:>9,}  {found.known / whole:6.1%}")
    typer.echo(f"with a row         {found.mapped:>9,}  {found.mapped / whole:6.1%}")
    for item in found.systems:
        known = "" if item.known else "  (no table)"
        typer.echo(f"  {item.procedures:>9,}  {item.mapped / item.procedures:6.1%} with a row  {item.name}{known}")
    for row in unmapped[:top]:
        shown = f"  {row.display}" if row.display else ""
        typer.echo(f"no row  {row.procedures:>7,} Procedures  {row.system} {row.code}{shown}")
    if len(unmapped) > top:
        typer.echo(f"no row  and {len(unmapped) - top:,} more codes")
    return code


def suggest(
    out: OutOption,
    paths: Paths = None,
    config: ConfigOption = None,
    accept_above: Annotated[
        int | None,
        typer.Option("--accept-above", help="Write only rows with this score or more, ready to use.", min=0, max=100),
    ] = None,
    shared_by: Annotated[
        int,
        typer.Option(
            "--shared-by", help="Read only displays that so many patients share: one of fewer may name them.", min=1
        ),
    ] = DISPLAY_FROM,
    top: Annotated[
        int, typer.Option("--top", help="How many local codes without a proposal are listed.", min=0)
    ] = _LISTED,
) -> int:
    """Propose rows for local codes from their displays: a table with score and display beside each row.

    To accept, look at each row, delete what is wrong, then the columns score and display. Of several code systems
    each gets a file of its own.
    """
    keep_ours(out, load_config(config) if config is not None else None)
    rules, _, unmapped, code = _surveyed(paths, config, shared_by)
    folder = shipped_path("mappings")
    known = [row for table in tables_of(None) for row in read_rows(table.path, table.label).rows]
    codes = [LocalCode(row.system, row.code, row.display, row.procedures) for row in unmapped]
    local = [item for item in codes if is_local(item.system, rules)]
    made = suggest_rows(local, known, rules, load_spellings(folder / "technique-words.csv"))
    kept = [item for item in made if accept_above is None or item.score >= accept_above]
    beside = [{"score": str(item.score), "display": item.display} for item in kept]
    write_tables(out, [(item.system, item.row) for item in kept], beside if accept_above is None else None)
    said = sum(item.display is not None for item in local)
    typer.echo(f"{len(kept)} rows proposed; {len(local)} local codes have no row, {said} of them a display to read")
    proposed = {(item.system, item.row.code) for item in made}
    left = [item for item in local if (item.system, literal_pattern(item.code)) not in proposed]
    for item in left[:top]:
        typer.echo(f"no proposal  {item.procedures:>7,} Procedures  {item.system} {item.code}")
    if len(left) > top:
        typer.echo(f"no proposal  and {len(left) - top:,} more codes")
    withheld = sum(row.withheld for row in unmapped if is_local(row.system, rules))
    if withheld:
        typer.echo(
            f"{withheld:,} displays were not read, because fewer than {shared_by} patients share each and it may name "
            "them; --shared-by 1 reads them",
            err=True,
        )
    return code


def _coverage_json(found: Coverage, unmapped: Sequence[UnmappedCode], rules: Ruleset) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(found),
        "unmapped": [
            {
                "system": row.system, "code": row.code, "display": row.display, "procedures": row.procedures,
                "patients": row.patients, "known_system": rules.systems.name(row.system) in rules.table_systems,
            }
            for row in unmapped
        ],
    }  # fmt: skip


def _surveyed(
    paths: list[str] | None, config: Path | None, shared_by: int
) -> tuple[Ruleset, Coverage, list[UnmappedCode], int]:
    """What the tables know of Procedures in files or in the ledger, and the exit code that the reading asks for.

    What no row matches is put into a ledger that lives as long as this call: the report's own list of such codes is
    made from it, with the tables as they are now.
    """
    settings = load_config(config) if config is not None else None
    rules = rules_for(settings) if settings is not None else load_ruleset()
    with tempfile.TemporaryDirectory(prefix="io-fhir-adapter-") as folder:
        scratch = open_ledger(LedgerConfig(path=Path(folder) / "unmapped.sqlite"))
        try:
            with scratch.begin() as connection:
                refused: list[str] = []
                if paths:
                    tz = zone(settings.facility.time_zone) if settings is not None else None
                    found = survey(_in_files(paths, rules, tz, refused), rules, connection)
                elif settings is not None:
                    with ledger_at(settings.ledger) as ledger, ledger.read() as reading:
                        found = survey(every_procedure(reading), rules, connection)
                else:
                    raise UsageError("no input is named", do="name files, or a configuration with --config", number=4)
                unmapped = unmapped_codes(connection, rules, shared_by)
        finally:
            scratch.close()
    for sentence in refused:
        typer.echo(sentence, err=True)
    return rules, found, unmapped, 1 if refused else 0


def _in_files(paths: list[str], rules: Ruleset, tz: tzinfo | None, refused: list[str]) -> Iterator[ProcedureFact]:
    """Every Procedure in files, each once."""
    with Spool() as spool:
        scan = scan_files(find_inputs(paths), Terms.of_today(rules, ALL_TIME, everything=True, tz=tz), spool)
        refused += [report.refused for report in scan.files if report.refused]
        for patient in spool.patients():
            yield from latest(patient.procedures)
