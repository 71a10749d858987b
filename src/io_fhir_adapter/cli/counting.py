"""Counting what a facility's ledger holds."""

from __future__ import annotations

from datetime import datetime

from io_fhir_adapter.classify.redecide import decided_with
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.cli.console import err
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.volume.count import Period, Volume
from io_fhir_adapter.volume.period import due_period
from io_fhir_adapter.volume.tally import count_ledger

__all__ = ["count_kept"]


def count_kept(settings: Config, rules: Ruleset, year: str | None) -> Volume:
    """The volume in the ledger: of a year, or of the period that a submission would report today.

    Raises:
        LedgerError: The ledger cannot be used, or holds nothing yet.
        UsageError: The year is none.
    """
    today = datetime.now(zone(settings.facility.time_zone)).date()
    period = Period.year(year) if year is not None else due_period(today, rules.programme.sample.ends_days_before)
    ledger = open_ledger(settings.ledger)
    try:
        with ledger.read() as connection:
            volume = count_ledger(
                connection, period, rules.programme, scoped=rules.scope is not None, today=today.isoformat()
            )
            if not volume.seen.procedures + volume.seen.outside + volume.seen.undated:
                raise LedgerError("the ledger holds no Procedure yet", where=ledger.name, do="run pull first", number=7)
            if decided_with(connection) != rules.digest:
                err.print("decided on with other tables, programme or scope; run or pull decides anew")
    finally:
        ledger.close()
    return volume
