"""Comparing two folders of mappings by the decisions that they lead to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.classify.ruleset import SiteTable
from io_fhir_adapter.classify.scope import Scope
from io_fhir_adapter.classify.workbench.diff import Side, compare_rulesets, ruleset_in
from io_fhir_adapter.cli.mappings.common import ConfigOption, JsonOption
from io_fhir_adapter.cli.mappings.kept import ledger_at
from io_fhir_adapter.config import LedgerConfig, load_config
from io_fhir_adapter.errors import UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter mappings diff old/ new/ --config hospital.yaml")(diff)


def diff(
    old: Annotated[Path, typer.Argument(help="A mappings folder.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="Another one.", metavar="NEW")],
    config: ConfigOption = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="A ledger's SQLite file, in place of --config.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", help="How many changes are shown.", min=0)] = 10,
    as_json: JsonOption = False,
) -> int:
    """Say which decisions would change if the mappings of NEW came in place of those of OLD; nothing is written."""
    if config is None and ledger is None:
        raise UsageError("no ledger is named", do="add --config, or --ledger with a file", number=4)
    settings = load_config(config) if config is not None else None
    programme = settings.programme if settings is not None else "iasios"
    sites = [SiteTable(item.system, item.file) for item in settings.mappings.site_tables] if settings else []
    maps = [item.file for item in settings.mappings.concept_maps] if settings else []
    scope = Scope.of(settings.scope) if settings is not None else None
    before, after = (ruleset_in(folder, programme, sites, maps, scope) for folder in (old, new))
    place = LedgerConfig(path=ledger) if ledger is not None or settings is None else settings.ledger
    with ledger_at(place) as opened, opened.read() as connection:
        found = compare_rulesets(connection, before, after, examples)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return 0
    typer.echo(
        f"{found.changed:,} sessions would be decided otherwise, {found.same:,} as before "
        f"({found.patients:,} patients, {found.decisions:,} sessions of the old mappings)"
    )
    for (was, will), number in found.kinds:
        typer.echo(f"  {number:>7,}  {_kind(was)} → {_kind(will)}{'  (for another reason)' if was == will else ''}")
    for change in found.examples:
        reasons = f"{change.before.reason or 'no row'} → {change.after.reason or 'no row'}"
        typer.echo(f"{change.date or '(undated)'}  {_side(change.before)} → {_side(change.after)}  ({reasons})")
        typer.echo(f"            {', '.join(change.procedures)}")
    return 0


def _kind(kind: tuple[str, str]) -> str:
    return " ".join(kind) if any(kind) else "no session"


def _side(side: Side) -> str:
    return _kind((" + ".join(side.categories) or side.category, side.decision))
