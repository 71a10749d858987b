"""Copies of the ledger, and the way back from one: these two import nothing of what a night needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from io_fhir_adapter.cli.console import out
from io_fhir_adapter.cli.facility import ConfigOption, JsonOption
from io_fhir_adapter.config import load_config
from io_fhir_adapter.ledger.backup import back_up, manifest_of
from io_fhir_adapter.ledger.restore import restore as restore_ledger

__all__ = ["register"]

_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: io-fhir-adapter backup --config hospital.yaml --out /mnt/backup")(backup)
    app.command(epilog="Example: io-fhir-adapter restore --config hospital.yaml --from /mnt/backup/F1.sqlite")(restore)


def backup(
    config: ConfigOption,
    to: Annotated[
        Path, typer.Option("--out", metavar="FILE|DIR", help="The file to make, or a folder to make one in.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier backup of that name.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Copy the ledger while everything runs, and look through the copy; the pseudonym key is not in it."""
    settings = load_config(config)
    made = back_up(settings.ledger, settings.facility.code, to, datetime.now(UTC), force=force)
    manifest = made.manifest
    if as_json:
        typer.echo(json.dumps({"file": str(made.file), "noted": made.noted, **msgspec.to_builtins(manifest)}, indent=2))
        return 0
    holds = manifest.holds
    out.print(f"backup    {made.file}  {manifest.size / _MIB:,.1f} MiB")
    out.print(f"manifest  {manifest_of(made.file)}")
    out.print(
        f"verified  schema {holds.schema}, {sum(holds.rows.values()):,} rows, chain of {holds.chain.number} links, "
        f"{holds.audit.number} audit entries"
    )
    out.print(f"sha256    {manifest.sha256}")
    if not made.noted:
        out.print("The ledger was busy, so neither its audit nor doctor knows of this backup.")
    out.print(f"The pseudonym key ({settings.review.key_file}) is not in it: keep a copy of that elsewhere.")
    return 0


def restore(
    config: ConfigOption,
    file: Annotated[Path, typer.Option("--from", metavar="FILE", help="The backup; its manifest lies beside it.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Where a ledger lies already: put it aside and keep it.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Verify a backup and put it in the ledger's place; say what it cannot know."""
    settings = load_config(config)
    done = restore_ledger(settings.ledger, settings.facility.code, file, datetime.now(UTC), replace=replace)
    if as_json:
        shown = {
            "ledger": str(done.ledger), "made": done.manifest.made, "schema": done.schema,
            "kept": str(done.kept) if done.kept is not None else None, "warnings": list(done.warnings),
        }  # fmt: skip
        typer.echo(json.dumps(shown, indent=2))
        return 0
    was = done.manifest.holds.schema
    upgraded = f", upgraded from schema {was} to {done.schema}" if was != done.schema else ""
    out.print(f"restored  {done.ledger} as of {done.manifest.made}{upgraded}")
    if done.kept is not None:
        out.print(f"kept      {done.kept}")
    for warning in done.warnings:
        out.print(f"know      {warning}")
    out.print("Now run doctor, and then start the service again.")
    return 0
