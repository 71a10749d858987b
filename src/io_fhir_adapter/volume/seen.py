"""What was read of a source, as tallies over procedures; never over sessions, which :mod:`.count` counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from io_fhir_adapter.model import status_name
from io_fhir_adapter.volume.period import Period

__all__ = ["Seen", "SeenCounter"]


@dataclass(frozen=True)
class Seen:
    """What was read of one source, as tallies over procedures.

    Attributes:
        procedures: Readable Procedures that lie in the period, whatever their status.
        completed: Those of them with status ``completed``.
        by_status: FHIR status, or ``other``, to number, over ``procedures``.
        mapped: Completed ones with at least one coding that a row of the code tables matched.
        known_system: Completed ones with at least one coding of a code system that has a table.
        quarantined: Procedures that could not be read; their date is not known.
        undated: Readable Procedures without a date precise enough to be placed in or out of the period.
        outside: Readable Procedures of other periods.

    Raises:
        ValueError: The tallies contradict each other.
    """

    procedures: int
    completed: int
    by_status: dict[str, int]
    mapped: int
    known_system: int
    quarantined: int
    undated: int
    outside: int = 0

    def __post_init__(self) -> None:
        chain = (self.procedures, self.completed, self.known_system, self.mapped, 0)
        if any(more < fewer for more, fewer in pairwise(chain)):
            msg = f"tallies must not grow from procedures to completed, known system and mapped: {chain[:-1]}"
            raise ValueError(msg)
        if min(self.quarantined, self.undated, self.outside) < 0:
            msg = "tallies must not be negative"
            raise ValueError(msg)
        if sum(self.by_status.values()) != self.procedures:
            msg = f"the statuses sum to {sum(self.by_status.values())}, not to {self.procedures} procedures"
            raise ValueError(msg)

    @property
    def read(self) -> int:
        """Every Procedure that the source handed over, readable or not, in the period or not."""
        return self.procedures + self.quarantined + self.undated + self.outside


class SeenCounter:
    """Tallies procedures as they stream by, so that `Seen` means the same wherever it is made."""

    def __init__(self, period: Period) -> None:
        self._period = period
        self._status: Counter[str] = Counter()
        self._known = self._mapped = self._quarantined = self._undated = self._outside = 0

    def add(self, day: str, status: str, *, known_system: bool, mapped: bool) -> None:
        """Count one readable Procedure.

        Args:
            day: Its partial local date, empty if unknown.
            status: Its FHIR status in R4 terms.
            known_system: Whether a coding belongs to a code system that has a table.
            mapped: Whether a coding was matched by a row; a mapped one counts as of a known system.
        """
        place = self._period.place(day)
        if place == "outside":
            self._outside += 1
            return
        if place == "unplaced":
            self._undated += 1
            return
        self._status[status_name(status)] += 1
        if status == "completed":
            self._known += known_system or mapped
            self._mapped += mapped

    def quarantine(self, number: int = 1) -> None:
        """Count Procedures that could not be read."""
        self._quarantined += number

    def result(self) -> Seen:
        """The tallies so far."""
        return Seen(
            procedures=self._status.total(),
            completed=self._status["completed"],
            by_status={status: self._status[status] for status in sorted(self._status) if self._status[status]},
            mapped=self._mapped,
            known_system=self._known,
            quarantined=self._quarantined,
            undated=self._undated,
            outside=self._outside,
        )
