"""The period that a volume is counted over, in whole local days, and where a partial date stands to it."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Literal

from io_fhir_adapter.errors import UsageError

__all__ = ["Period", "Place", "due_period"]

Place = Literal["inside", "outside", "unplaced"]
"""``unplaced``: no date, no valid date, or one so vague that it may lie on either side."""

_PARTIAL = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")


@dataclass(frozen=True)
class Period:
    """Whole days of the facility's local calendar.

    Attributes:
        start: First day, ``YYYY-MM-DD``.
        end: Last day, included.
        label: How people call it, such as ``2025``.

    Raises:
        UsageError: A date is not valid, or the end lies before the start.
    """

    start: str
    end: str
    label: str

    def __post_init__(self) -> None:
        for day in (self.start, self.end):
            if len(day) != 10 or _bounds(day) is None:
                raise UsageError(f"{day!r} is not a date", where="period", do="write dates as YYYY-MM-DD")
        if self.end < self.start:
            raise UsageError(f"the period ends ({self.end}) before it starts ({self.start})", do="swap the two dates")

    @classmethod
    def year(cls, text: str) -> Period:
        """The calendar year ``text``, such as ``2025``.

        Raises:
            UsageError: It is not a year of four digits.
        """
        if len(text) != 4 or _bounds(text) is None:
            raise UsageError(f"{text!r} is not a year", where="period", do="write it with four digits, such as 2025")
        return cls(f"{text}-01-01", f"{text}-12-31", text)

    def place(self, partial_day: str) -> Place:
        """Where a partial date (``YYYY``, ``YYYY-MM``, ``YYYY-MM-DD`` or empty) stands to the period."""
        bounds = _bounds(partial_day)
        if bounds is None:
            return "unplaced"
        first, last = bounds
        if self.start <= first and last <= self.end:
            return "inside"
        return "outside" if last < self.start or self.end < first else "unplaced"

    def contains(self, partial_day: str) -> bool:
        """Whether a partial date lies wholly inside: ``2025`` and ``2025-03`` in the year 2025, an empty one never."""
        return self.place(partial_day) == "inside"

    def latest(self, partial_day: str) -> str:
        """The last full day that a partial date inside the period may mean.

        Raises:
            ValueError: The date does not lie inside.
        """
        bounds = _bounds(partial_day)
        if bounds is None or not self.contains(partial_day):
            msg = "the date does not lie inside the period"
            raise ValueError(msg)
        return bounds[1]

    def months(self) -> tuple[str, ...]:
        """Every month that the period touches, ``YYYY-MM``, ascending."""
        year, month = int(self.start[:4]), int(self.start[5:7])
        months = [self.start[:7]]
        while months[-1] < self.end[:7]:
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
            months.append(f"{year:04d}-{month:02d}")
        return tuple(months)

    @property
    def days(self) -> int:
        """Length in days."""
        return (date.fromisoformat(self.end) - date.fromisoformat(self.start)).days + 1


@lru_cache(maxsize=8192)
def _bounds(partial_day: str) -> tuple[str, str] | None:
    """First and last full day of a partial date, or None where it is none."""
    match = _PARTIAL.fullmatch(partial_day)
    if match is None:
        return None
    year, month, day = (int(part) if part else 0 for part in match.groups())
    if match[2] is None:
        return (f"{partial_day}-01-01", f"{partial_day}-12-31") if year else None
    if not year or not 1 <= month <= 12:
        return None
    last = calendar.monthrange(year, month)[1]
    if match[3] is None:
        return f"{partial_day}-01", f"{partial_day}-{last:02d}"
    return (partial_day, partial_day) if 1 <= day <= last else None


def due_period(as_of: date, days_after: int) -> Period:
    """The calendar year to report: the last one that ended at least so many days ago."""
    # the day after the settled one lies in the year that is not over yet
    return Period.year(str((as_of - timedelta(days=days_after - 1)).year - 1))
