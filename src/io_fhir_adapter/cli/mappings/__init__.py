"""Commands on the mappings: check, measure, propose, exchange, compare. They change no table and no ledger."""

from __future__ import annotations

from typing import Final

import typer

from io_fhir_adapter.cli.on_demand import group

__all__ = ["COMMANDS", "register"]

COMMANDS: Final = {
    "lint": (
        "mappings.lint",
        "Check tables and say every fault with file and line; exit code 1 where one is an error.",
    ),
    "coverage": (
        "mappings.measure",
        "Say how many completed Procedures have a known code system and a row, and which codes have none.",
    ),
    "suggest": (
        "mappings.measure",
        "Propose rows for local codes from their displays: a table with score and display beside each row.",
    ),
    "export": (
        "mappings.exchange",
        "Publish the mappings as FHIR R4: CodeSystem, ValueSets and ConceptMaps; --codes spells patterns out.",
    ),
    "import": (
        "mappings.exchange",
        "Read a ConceptMap as a code table: one that export wrote, or any that points to our categories.",
    ),
    "diff": (
        "mappings.compare",
        "Say which decisions would change if the mappings of NEW came in place of those of OLD; nothing is written.",
    ),
}
"""As in :mod:`io_fhir_adapter.cli.main`."""


def register(app: typer.Typer) -> None:
    """Adds the group of commands."""
    about = "Check, measure, propose, exchange and compare the mappings."
    app.add_typer(
        group(COMMANDS, help=about, epilog="Example: io-fhir-adapter mappings lint --config hospital.yaml"),
        name="mappings",
    )
