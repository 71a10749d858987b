"""The look at what runs for years with nobody looking."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import typer

from io_fhir_adapter.cli.console import show_checks
from io_fhir_adapter.cli.facility import ConfigOption, JsonOption
from io_fhir_adapter.doctor import examine

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter doctor --config hospital.yaml")(doctor)


def doctor(config: ConfigOption, as_json: JsonOption = False) -> int:
    """Look after the ledger: is it whole, does the key fit, is there room, is a run, backup or submission late."""
    checks = asyncio.run(examine(config, datetime.now(UTC)))
    if as_json:
        typer.echo(json.dumps([made.to_json() for made in checks], indent=2))
    else:
        show_checks(checks)
    return 1 if any(made.state == "fail" for made in checks) else 0
