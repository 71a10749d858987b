"""The command that removes what need not be kept any longer."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from io_fhir_adapter.cli.console import out
from io_fhir_adapter.cli.facility import ConfigOption, JsonOption, facility
from io_fhir_adapter.engine.horizon import horizon_of, latest_horizon
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.lease import only_job
from io_fhir_adapter.ledger.retention import Removed
from io_fhir_adapter.ledger.retention import purge as purge_ledger

__all__ = ["register"]

_STAYS = "chain of draws, submissions, receipts, verdicts, signatures, audit, runs"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter purge --config hospital.yaml --dry-run")(purge)


def purge(
    config: ConfigOption,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", metavar="DATE", help="The first day that is kept; by the programme's rule if omitted."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Remove what need not be kept any longer, for good; its numbers stay. --dry-run says what that would be."""
    with facility(config) as opened:
        programme = opened.rules.programme
        now = datetime.now(UTC)
        today = now.astimezone(zone(opened.config.facility.time_zone)).date()
        first = horizon_of(opened.config, programme, today)
        if before is not None:
            first = _day(before, latest_horizon(programme, today))
        if dry_run:
            removed = purge_ledger(opened.ledger, first, now, dry_run=True)
        else:
            with only_job(opened.ledger):
                removed = purge_ledger(opened.ledger, first, now)
    if as_json:
        typer.echo(json.dumps({"before": first, "dry-run": dry_run, **removed.to_json()}, indent=2))
    else:
        _show(first, removed, dry_run=dry_run)
    return 0


def _day(text: str, latest: str) -> str:
    """The day that was given.

    Raises:
        UsageError: It is none, or later than the last one that nothing still needed lies before.
    """
    try:
        day = date.fromisoformat(text).isoformat()
    except ValueError as exc:
        raise UsageError(f"{text!r} is not a date", where="--before", do="write it as YYYY-MM-DD", number=5) from exc
    if day > latest:
        raise UsageError(
            f"what lies before {day} is still needed: the reported year, the one before it, or the window of the draw",
            where="--before", do=f"give {latest} or an earlier day", number=90,
        )  # fmt: skip
    return day


def _show(first: str, removed: Removed, *, dry_run: bool) -> None:
    said = "would remove" if dry_run else "removed"
    out.print(f"{said:12}  what is dated before {first}")
    out.print(f"              {removed.procedures:,} Procedures and the decisions on {removed.sessions:,} sessions")
    out.print(f"              {removed.people:,} people, {removed.others:,} Conditions, Encounters and Patients")
    out.print(f"              {removed.cases:,} cases of {removed.draws:,} draws, with their forms")
    if removed.waiting:
        out.print(
            f"left          {removed.waiting:,} people who are to be decided on first: run a night, then purge again"
        )
    out.print(f"stays         {_STAYS};")
    out.print("              how many there were in each month, so that earlier years count as before")
    if not dry_run:
        out.print("Backups that were made before still hold what was removed: let them go as well.")
