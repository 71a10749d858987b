"""Checking tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from io_fhir_adapter.classify.rules import load_techniques
from io_fhir_adapter.classify.workbench.lint import Fault, lint_rules, lint_tables
from io_fhir_adapter.classify.workbench.rows import TableFile
from io_fhir_adapter.cli.mappings.common import (
    CodesOption,
    ConfigOption,
    JsonOption,
    SystemOption,
    listed,
    named,
    tables_of,
)
from io_fhir_adapter.config import load_config
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.shipped import shipped_path

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter mappings lint --config hospital.yaml")(lint)


def lint(
    config: ConfigOption = None,
    table: Annotated[Path | None, typer.Option("--table", help="Check this table alone; needs --system.")] = None,
    system: SystemOption = None,
    codes: CodesOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check tables and say every fault with file and line; exit code 1 where one is an error."""
    folder = shipped_path("mappings")
    settings = load_config(config) if config is not None else None
    tables = [_table_at(table, system)] if table is not None else tables_of(settings)
    faults: list[Fault] = []
    if table is None:
        faults += lint_rules(folder, settings.programme if settings is not None else "iasios")
    techniques = load_techniques(folder / "techniques.csv")
    faults += lint_tables(tables, techniques, datetime.now(UTC).date(), listed(codes, system))
    errors = sum(fault.level == "error" for fault in faults)
    if as_json:
        typer.echo(json.dumps([msgspec.to_builtins(fault) for fault in faults], indent=2, ensure_ascii=False))
    else:
        for fault in faults:
            typer.echo(f"{fault.place}: {fault.level}: {fault.text} [{fault.kind}]")
        typer.echo(f"{errors} errors, {len(faults) - errors} warnings in {len(tables)} tables")
    return 1 if errors else 0


def _table_at(path: Path, system: str | None) -> TableFile:
    if system is None:
        raise UsageError("the table's code system is not named", do="add --system with its URI", number=12)
    return TableFile(path, named(system), path.name, site=True)
