"""Dates and times as hospitals write them: with offsets, in UTC, as days, as periods, in part, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

__all__ = ["FORMS", "PARTIAL_FORMS", "ZONE", "instant", "local", "performed"]

ZONE = ZoneInfo("Europe/Berlin")
FORMS = ("offset", "utc", "day", "period", "utc-day-differs", "period-over-midnight")
PARTIAL_FORMS = ("year", "month", "absent", "missing")
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def local(day: date, minute: int) -> datetime:
    """The moment ``minute`` minutes after local midnight of ``day``, as the wall clock shows it."""
    return datetime.combine(day, time(), ZONE) + timedelta(minutes=minute)


def instant(moment: datetime) -> str:
    """A FHIR instant in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def performed(form: str, day: date, minute: int, duration: int) -> dict[str, Any]:
    """The performed[x] elements of a Procedure that starts on the local day ``day``.

    Args:
        form: One of :data:`FORMS` or :data:`PARTIAL_FORMS`. ``utc-day-differs`` starts soon after local midnight, so
            that the day in UTC is the one before; ``period-over-midnight`` starts late and ends on the next day.
        day: Local day.
        minute: Minutes after local midnight; not used by the two midnight forms beyond the order within the day.
        duration: Minutes that it took.
    """
    in_words = _WRITTEN.get(form)
    if in_words is not None:
        return in_words(day)
    if form == "utc-day-differs":
        minute = 20 + minute % 30
    elif form == "period-over-midnight":
        minute, duration = 22 * 60 + 10 + minute % 60, 120 + duration
    start = local(day, minute)
    if form.startswith("period"):
        return {"performedPeriod": {"start": _offset(start), "end": _offset(start + timedelta(minutes=duration))}}
    return {"performedDateTime": _utc(start) if form.startswith("utc") else _offset(start)}


_WRITTEN: Mapping[str, Callable[[date], dict[str, Any]]] = {
    "day": lambda day: {"performedDateTime": day.isoformat()},
    "year": lambda day: {"performedDateTime": f"{day.year}"},
    "month": lambda day: {"performedDateTime": f"{day.year}-{day.month:02d}"},
    "absent": lambda _: {"_performedDateTime": {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}},
    "missing": lambda _: {},
}


def _offset(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
