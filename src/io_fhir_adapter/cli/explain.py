"""The command that says why a procedure counted or did not."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
import typer

from io_fhir_adapter.classify.explain import explain_procedure, in_words
from io_fhir_adapter.cli.console import out
from io_fhir_adapter.cli.facility import ConfigOption, JsonOption, facility
from io_fhir_adapter.engine.lines import decision_json

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter explain 4711 --config hospital.yaml")(explain)


def explain(
    procedure: Annotated[
        str, typer.Argument(metavar="PROCEDURE-ID", help="Logical id, such as 4711 or Procedure/4711.")
    ],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> int:
    """Say why a procedure counted or did not, rule by rule."""
    with facility(config) as opened, opened.ledger.read() as connection:
        found = explain_procedure(connection, procedure, opened.rules)
    if as_json:
        decisions = [
            {**decision_json(decision), "trail": [msgspec.to_builtins(step) for step in decision.trail]}
            for decision in found.decisions
        ]
        typer.echo(json.dumps({"record": found.record, "decisions": decisions}, indent=2))
        return 0
    out.print("\n".join(found.record))
    for decision in found.decisions:
        out.print("\n".join(["", *in_words(decision, opened.rules)]))
    return 0
