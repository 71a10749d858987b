"""Slices: a large search cut into searches over parts of one date, so that they can be read side by side.

Two slices that touch share no moment, but a period that crosses their border is found by both, and a date that names
only a year by all slices of that year. A resource is therefore told by its id and read once, and what counts in the
end is that the slices together hand over as many different resources as the uncut search says there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import local_day, may_precede
from io_fhir_adapter.fhir.structs import Procedure, ProcedureSketch
from io_fhir_adapter.pull.decode import Resource

__all__ = ["Slice", "changed_slices", "dated_slices", "days_of", "instant_of"]

_MOST_PARTS: Final = 32
_EARLIEST, _LATEST = date(1850, 1, 1).toordinal(), date(2200, 1, 1).toordinal()
_YEARS: Final = (2000, 2010, 2015)  # then every third year: archives begin at very different times
_ONE_BY_ONE: Final = 3  # the latest years, which have most as a rule
_WHOLE_DAYS: Final = timedelta(days=1)
_TEN_YEARS: Final = 3_653


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of a search.

    Attributes:
        parameter: ``date``, in whole days, or ``_lastUpdated``, in whole seconds.
        low: First day (ordinal) or second (since 1970) of it, None where it has no beginning.
        high: The one after the last, None where it has no end.
        undated: The resources that have no date at all, instead of those between ``low`` and ``high``.
        also: Further parameters of the search, the same for all its slices.
    """

    parameter: Literal["date", "_lastUpdated"]
    low: int | None = None
    high: int | None = None
    undated: bool = False
    also: tuple[tuple[str, str], ...] = ()

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Its search parameters; dates are written whole, because servers refuse partial ones."""
        if self.undated:
            return (*self.also, (f"{self.parameter}:missing", "true"))
        bounds = (("ge", self.low), ("lt", self.high))
        dates = ((self.parameter, f"{sign}{self._written(at)}") for sign, at in bounds if at is not None)
        return (*self.also, *dates)

    def _written(self, at: int) -> str:
        if self.parameter == "date":
            return date.fromordinal(at).isoformat()
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def split(self, parts: int) -> list[Slice]:
        """The slice in parts of equal length, none where it cannot be cut any further."""
        if self.undated:
            return []
        if self.low is None or self.high is None:
            return self._split_open()
        length = self.high - self.low
        parts = min(parts, length, _MOST_PARTS)
        if parts < 2:
            return []
        cuts = [self.low + length * number // parts for number in range(parts + 1)]
        return [replace(self, low=low, high=high) for low, high in pairwise(cuts)]

    def _split_open(self) -> list[Slice]:
        if self.parameter != "date":
            return []  # nothing is older than a cursor, or newer than now, by more than a little
        if self.low is None and self.high is not None and self.high > _EARLIEST:
            cut = max(_EARLIEST, self.high - _TEN_YEARS)
            return [replace(self, high=cut), replace(self, low=cut)]
        if self.high is None and self.low is not None and self.low < _LATEST:
            cut = min(_LATEST, self.low + _TEN_YEARS)
            return [replace(self, high=cut), replace(self, low=cut)]
        return []

    def admits(self, resource: Resource | ProcedureSketch) -> bool:
        """Whether a resource may belong to it.

        A Procedure's day may be one off, since servers count days in time zones of their own, and a version a second.
        """
        if self.parameter == "_lastUpdated":
            return self._admits_version(resource.meta.lastUpdated if resource.meta is not None else None)
        if not isinstance(resource, Procedure | ProcedureSketch):
            return True
        start, end = days_of(resource)
        if self.undated:  # a date that is none counts as missing with servers that cannot read it either
            return not any(map(_is_day, (start, end)))
        if not (start or end):
            return False
        low, high = _a_day_wider(self.low, self.high)
        return may_precede(low, end or "9999") and (not high or may_precede(start, high))

    def _admits_version(self, text: str | None) -> bool:
        moment = instant_of(text) if text else None
        if moment is None:
            return True
        at = moment.timestamp()
        return (self.low is None or at >= self.low - 1) and (self.high is None or at < self.high + 1)


@lru_cache
def _a_day_wider(low: int | None, high: int | None) -> tuple[str, str]:
    return (
        date.fromordinal(low - 1).isoformat() if low is not None else "",
        date.fromordinal(high + 1).isoformat() if high is not None else "",
    )


def _is_day(text: str) -> bool:
    try:
        return bool(local_day(text, None))
    except ResourceError:
        return False


def days_of(procedure: Procedure | ProcedureSketch) -> tuple[str, str]:
    """The dates, as written, on which a Procedure began and ended; empty where it does not say."""
    single = procedure.performedDateTime or procedure.occurrenceDateTime or ""
    period = procedure.performedPeriod or procedure.occurrencePeriod
    if single or period is None:
        return single[:10], single[:10]
    start, end = (period.start or "")[:10], (period.end or "")[:10]
    return start, end


def dated_slices(since: str | None, today: date, also: tuple[tuple[str, str], ...] = ()) -> list[Slice]:
    """The slices that a reading by date begins with: years, and what lies before and after them; the latest first.

    These are the ones that are cut further as a rule, so that their parts are under way while the others are asked for.

    Args:
        since: The first day that matters, None for all that there is.
        today: Today's date.
        also: Further parameters of the search.
    """
    first = date.fromisoformat(since) if since else None
    latest = today.year + 1 - _ONE_BY_ONE
    years = sorted({*_YEARS, *range(_YEARS[-1] + 3, latest, 3), *range(latest, today.year + 1)})
    end = today + 2 * _WHOLE_DAYS  # what is dated later is a mistake, and still has to be seen
    cuts = [*(day for year in years if (day := date(year, 1, 1)) < end), end]
    if first is not None:
        cuts = [first, *(cut for cut in cuts if cut > first)]
    numbers = [cut.toordinal() for cut in cuts]
    inner = [Slice("date", low, high, also=also) for low, high in pairwise(numbers)]
    before = [Slice("date", None, numbers[0], also=also)] if first is None else []
    return [Slice("date", numbers[-1], None, also=also), *reversed(inner), *before]


def changed_slices(since: datetime, now: datetime, parts: int) -> list[Slice]:
    """The slices of what changed since a moment; the last one has no end."""
    low, high = int(since.timestamp()), int(now.timestamp())
    inner = Slice("_lastUpdated", low, max(high, low + 1))
    return [*(inner.split(parts) or [inner]), Slice("_lastUpdated", max(high, low + 1), None)]


def instant_of(text: str) -> datetime | None:
    """An instant in UTC; None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
