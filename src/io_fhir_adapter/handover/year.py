"""The year that a submission reports: its period, its counts and its MeasureReport."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.measure import build_measure_report
from io_fhir_adapter.volume.period import Period, due_period
from io_fhir_adapter.volume.tally import count_ledger

__all__ = ["Year"]


class Year:
    """The year that is due on a day.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        ruleset: What decides.
        as_of: The local date.
    """

    def __init__(self, config: Config, ledger: Ledger, ruleset: Ruleset, as_of: date) -> None:
        self._facility = config.facility
        self._ledger = ledger
        self._ruleset = ruleset
        self._as_of = as_of

    @property
    def period(self) -> Period:
        """The year that a submission reports."""
        return due_period(self._as_of, self._ruleset.programme.sample.ends_days_before)

    @property
    def before(self) -> Period:
        """The year before it."""
        return Period.year(str(int(self.period.label) - 1))

    def count(self, period: Period) -> Volume:
        """Counts a period."""
        with self._ledger.read() as connection:
            return count_ledger(
                connection,
                period,
                self._ruleset.programme,
                scoped=self._ruleset.scope is not None,
                today=self._as_of.isoformat(),
            )

    def report(self, volume: Volume) -> dict[str, Any]:
        """The MeasureReport of a volume, dated by the day that the job runs for.

        It says nothing of other periods: each night's Procedures would make another submission of a year long over.
        """
        facility = self._facility
        return build_measure_report(
            volume.alone(),
            programme_id=self._ruleset.programme.id,
            facility_code=facility.code,
            facility_name=facility.name or facility.code,
            time_zone=facility.time_zone,
            produced=datetime.combine(self._as_of, time(), zone(facility.time_zone)),
            ruleset_digest=self._ruleset.digest,
        )
