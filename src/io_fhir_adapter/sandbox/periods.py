"""FHIR dates as half-open ranges, and how R4 search compares them.

A date, dateTime or instant stands for all the time that it leaves open (``2025-03`` is the whole of March), a Period
for the time between its ends. The comparisons follow the R4 search page, section "Prefixes". The sandbox has its own
reading of dates on purpose: it is what the adapter's reading is tested against.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Any

__all__ = ["COMPARISONS", "FOREVER", "Range", "implicit_range", "period_range"]

Range = tuple[int, int]
"""``[low, high)`` in microseconds since 1970-01-01 UTC."""

FOREVER = 1 << 62
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_EPOCH = date(1970, 1, 1).toordinal()
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
)


def _midnight(ordinal: int, zone: tzinfo) -> int:
    """Microseconds of the local start of a day; the day after 9999-12-31 takes the offset of the day before."""
    known = datetime.fromordinal(min(ordinal, date.max.toordinal())).replace(tzinfo=zone)
    return (ordinal - _EPOCH) * _DAY - _offset(known)


def _offset(moment: datetime) -> int:
    offset = moment.utcoffset()
    return 0 if offset is None else round(offset.total_seconds()) * _SECOND


def implicit_range(text: str, zone: tzinfo = UTC) -> Range:
    """The range that a FHIR date, dateTime or instant stands for: ``2025-03`` is the whole of March.

    Args:
        text: The value, as precise as its author was.
        zone: The server's own time zone, for values without an offset.

    Raises:
        ValueError: It is no FHIR date, or no such day exists.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no FHIR date")
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    first = date(int(year), int(month or 1), int(day or 1)).toordinal()
    if hour is None:
        if month is None:
            last = date(int(year), 12, 31).toordinal()
        elif day is None:
            last = date(int(year), int(month), monthrange(int(year), int(month))[1]).toordinal()
        else:
            last = first
        return _midnight(first, zone), _midnight(last + 1, zone)
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60:
        raise ValueError(f"{text!r} is no time of day")
    shift = _explicit_offset(offset) if offset else _offset(_local(first, int(hour), int(minute), zone))
    low = (first - _EPOCH) * _DAY + (int(hour) * 3600 + int(minute) * 60 + int(second or 0)) * _SECOND - shift
    if second is None:
        return low, low + 60 * _SECOND
    if fraction is None:
        return low, low + _SECOND
    digits = fraction[:6]
    return low + int(digits.ljust(6, "0")), low + int(digits.ljust(6, "0")) + int(10 ** (6 - len(digits)))


def _local(ordinal: int, hour: int, minute: int, zone: tzinfo) -> datetime:
    return datetime.fromordinal(ordinal).replace(hour=hour, minute=minute, tzinfo=zone)


def _explicit_offset(text: str) -> int:
    if text == "Z":
        return 0
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 14 or minutes > 59:
        raise ValueError(f"{text!r} is no time zone offset")
    return (hours * 3600 + minutes * 60) * _SECOND * (-1 if text[0] == "-" else 1)


def period_range(period: Mapping[str, Any], zone: tzinfo = UTC) -> Range:
    """The range of a FHIR Period: open where an end is missing.

    Raises:
        ValueError: An end is no date, both are missing, or the end lies before the start.
    """
    start, end = period.get("start"), period.get("end")
    if start is None and end is None:
        raise ValueError("a period without start and end has no range")
    low = -FOREVER if start is None else implicit_range(str(start), zone)[0]
    high = FOREVER if end is None else implicit_range(str(end), zone)[1]
    if low >= high:
        raise ValueError("the period ends before it starts")
    return low, high


def _contained(target: Range, asked: Range) -> bool:
    return asked[0] <= target[0] and target[1] <= asked[1]


COMPARISONS: Mapping[str, Callable[[Range, Range], bool]] = {
    "eq": _contained,
    "ne": lambda target, asked: not _contained(target, asked),
    "gt": lambda target, asked: target[1] > asked[1],
    "ge": lambda target, asked: target[1] > asked[1] or _contained(target, asked),
    "lt": lambda target, asked: target[0] < asked[0],
    "le": lambda target, asked: target[0] < asked[0] or _contained(target, asked),
    "sa": lambda target, asked: target[0] >= asked[1],
    "eb": lambda target, asked: target[1] <= asked[0],
}
"""By prefix: whether a resource's range satisfies it towards the range asked for, in the words of R4.

``eq`` contained, ``ne`` not contained, ``gt``/``lt`` reaching above/below, ``ge``/``le`` either that or contained,
``sa``/``eb`` wholly after/before.
"""
