"""By what input is read and decided on: the same in one process, in many, and on Spark."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Self

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.fhir.dates import tomorrow
from io_fhir_adapter.volume.count import Period

__all__ = ["ALL_TIME", "Terms"]

ALL_TIME = Period("0001-01-01", "9999-12-31", "all")


@dataclass(frozen=True, slots=True)
class Terms:
    """What everybody knows who works on the input.

    Attributes:
        ruleset: What decides.
        period: What is tallied and counted.
        everything: Whether every session is decided on, not just those of patients with something in the period.
        tz: The facility's time zone, None for dates as written.
        not_after: Last local date that can be true.
        today: The date in UTC for what ends in the future.
    """

    ruleset: Ruleset
    period: Period
    everything: bool
    tz: tzinfo | None
    not_after: str
    today: str

    @classmethod
    def of_today(cls, ruleset: Ruleset, period: Period, *, everything: bool, tz: tzinfo | None) -> Self:
        """Those of this moment."""
        return cls(ruleset, period, everything, tz, tomorrow(), datetime.now(UTC).date().isoformat())
