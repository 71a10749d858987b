"""Publishing the mappings as FHIR, and reading what others published."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.classify.ruleset import load_ruleset, rules_for
from io_fhir_adapter.classify.workbench.exchange import ExportedTable, export_resources, import_concept_map
from io_fhir_adapter.classify.workbench.rows import canonical_uris, read_rows
from io_fhir_adapter.cli.mappings.common import (
    CodesOption,
    ConfigOption,
    OutOption,
    SystemOption,
    keep_ours,
    listed,
    tables_of,
    write_tables,
)
from io_fhir_adapter.config import load_config
from io_fhir_adapter.errors import InputError, MappingError, UsageError
from io_fhir_adapter.shipped import shipped_path

__all__ = ["register"]

_LEFT_OUT_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("export", epilog="Example: io-fhir-adapter mappings export --out terminology/")(export)
    app.command("import", epilog="Example: io-fhir-adapter mappings import map.json --out table.csv")(import_map)


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    form: Annotated[str, typer.Option("--format", help="What to write: fhir.")] = "fhir",
    config: ConfigOption = None,
    system: SystemOption = None,
    codes: CodesOption = None,
) -> int:
    """Publish the mappings as FHIR R4: CodeSystem, ValueSets and ConceptMaps; --codes spells patterns out."""
    if form != "fhir":
        raise UsageError(f"there is no format {form!r}", do="use --format fhir", number=11)
    keep_ours(out, None)
    settings = load_config(config) if config is not None else None
    rules = rules_for(settings) if settings is not None else load_ruleset()
    uris, known = canonical_uris(shipped_path("mappings", "systems.csv")), listed(codes, system)
    tables: dict[tuple[bool, str], ExportedTable] = {}
    for table in tables_of(settings):
        uri = uris.get(table.system, table.system)
        name = f"site-{table.path.stem}" if table.site else table.system
        rows = read_rows(table.path, table.label).rows
        tables[table.site, name] = ExportedTable(name, uri, rows, known.get(table.system))
    made = export_resources(
        list(tables.values()), rules.categories, rules.rules, rules.digest, datetime.now(UTC).date()
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for resource in made:
            path = out / f"{resource['resourceType']}-{resource['id']}.json"
            path.write_text(json.dumps(resource, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as exc:
        raise MappingError(
            f"the resources cannot be written ({type(exc).__name__})",
            where=str(out),
            do="check the folder and its permissions",
            number=20,
        ) from exc
    typer.echo(f"written {len(made)} resources to {out}")
    return 0


def import_map(
    concept_map: Annotated[Path, typer.Argument(help="A FHIR ConceptMap in JSON.", metavar="CONCEPTMAP.json")],
    out: OutOption,
) -> int:
    """Read a ConceptMap as a code table: one that export wrote, or any that points to our categories."""
    keep_ours(out, None)
    try:
        resource = json.loads(concept_map.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as exc:
        raise InputError(
            f"the ConceptMap cannot be read ({type(exc).__name__})",
            where=str(concept_map),
            do="name a FHIR ConceptMap in JSON",
            number=10,
        ) from exc
    rules = load_ruleset()
    found = import_concept_map(resource, rules.categories, rules.rules.techniques, str(concept_map))
    for text in found.left_out[:_LEFT_OUT_SHOWN]:
        typer.echo(f"left out: {text}", err=True)
    if len(found.left_out) > _LEFT_OUT_SHOWN:
        typer.echo(f"left out: {len(found.left_out) - _LEFT_OUT_SHOWN:,} more", err=True)
    if not found.rows:
        raise MappingError(
            "nothing of the ConceptMap can be used", where=str(concept_map), do="see what was left out", number=24
        )
    write_tables(out, found.rows)
    typer.echo(f"{len(found.rows)} rows read, {len(found.left_out)} elements left out")
    return 0
