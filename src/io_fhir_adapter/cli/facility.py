"""What commands on a configured facility share: their options, and opening its configuration, rules and ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.classify.ruleset import Ruleset, rules_for
from io_fhir_adapter.config import Config, load_config
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.database import Ledger, open_ledger

__all__ = ["AsOfOption", "ConfigOption", "Facility", "JsonOption", "as_of_date", "facility", "needs_endpoint"]

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The facility's configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsOfOption = Annotated[
    str | None, typer.Option("--as-of", help="Local date to run for (YYYY-MM-DD); default today.", metavar="DATE")
]


def as_of_date(text: str | None) -> date | None:
    """What was given with ``--as-of``.

    Raises:
        UsageError: It is no date.
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as exc:
        raise UsageError(f"{text!r} is not a date", where="--as-of", do="write it as YYYY-MM-DD", number=5) from exc


def needs_endpoint(config: Config, path: Path) -> None:
    """Refuses what cannot be done without an accreditation system.

    Raises:
        UsageError: None is configured.
    """
    if config.submission is None:
        raise UsageError(
            "no accreditation system is configured", where=str(path), do="add a submission section", number=6
        )


@dataclass(frozen=True)
class Facility:
    """A facility whose ledger is open."""

    config: Config
    rules: Ruleset
    ledger: Ledger


@contextmanager
def facility(config: Path, *, frugal: bool = False) -> Iterator[Facility]:
    """Opens a facility for as long as the block lasts; ``frugal`` as for :func:`.open_ledger`.

    Raises:
        AdapterError: The configuration, a table or the ledger cannot be used.
    """
    settings = load_config(config)
    rules = rules_for(settings)
    ledger = open_ledger(settings.ledger, frugal=frugal)
    try:
        yield Facility(settings, rules, ledger)
    finally:
        ledger.close()
