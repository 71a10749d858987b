"""FHIR's partial dates and instants as local calendar dates.

A local date is a string ``YYYY-MM-DD``, or as much of it as the source knows (``YYYY-MM``, ``YYYY``), or
empty. Strings compare and group correctly and cost nothing to store.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from io_fhir_adapter.errors import ConfigError, ResourceError

__all__ = [
    "days_apart",
    "first_of",
    "is_full",
    "last_of",
    "local_day",
    "local_moment",
    "may_precede",
    "tomorrow",
    "zone",
]

_PARTIAL = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?\Z", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]", re.ASCII)
_FULL_LENGTH = 10
_TO_THE_MINUTE = 16


def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name.

    Raises:
        ConfigError: There is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ConfigError(
            f"{name!r} is no time zone",
            where="facility.time_zone",
            do="use an IANA name such as Europe/Berlin",
            number=6,
        ) from exc


def local_day(value: str | None, tz: tzinfo | None) -> str:
    """The local calendar date of a FHIR date, dateTime or instant; see :func:`local_moment`."""
    return local_moment(value, tz)[0]


def local_moment(value: str | None, tz: tzinfo | None) -> tuple[str, str]:
    """The local calendar date and time (``HH:MM``) of a FHIR date, dateTime or instant.

    Args:
        value: Such as ``2025``, ``2025-03``, ``2025-03-01`` or ``2025-03-01T23:30:00Z``; None gives empty.
        tz: The facility's time zone; None takes date and time as they are written.

    Raises:
        ResourceError: The value is no FHIR date. The message does not repeat it.
    """
    if not value:
        return "", ""
    if len(value) <= _FULL_LENGTH:
        if not _PARTIAL.match(value):
            raise ResourceError("a date is not in FHIR's form", number=11)
        if len(value) == _FULL_LENGTH:
            _check_day(value)
        return value, ""
    try:
        # fromisoformat also takes week dates and forms without hyphens, which FHIR does not
        moment = datetime.fromisoformat(value) if _DATE_TIME.match(value) else None
    except ValueError:
        moment = None
    if moment is None:
        raise ResourceError("a dateTime is not in FHIR's form", number=12)
    if tz is None or moment.tzinfo is None:
        return value[:_FULL_LENGTH], value[_FULL_LENGTH + 1 : _TO_THE_MINUTE]
    try:
        local = moment.astimezone(tz).isoformat()
        return local[:_FULL_LENGTH], local[_FULL_LENGTH + 1 : _TO_THE_MINUTE]
    except (OverflowError, ValueError) as exc:
        raise ResourceError("a dateTime is outside the calendar", number=12) from exc


def _check_day(value: str) -> None:
    try:
        date.fromisoformat(value)
    except ValueError as exc:
        raise ResourceError("a date does not exist in the calendar", number=11) from exc


def is_full(day: str) -> bool:
    """Whether a local date names a day."""
    return len(day) == _FULL_LENGTH


def days_apart(first: str, second: str) -> int | None:
    """The number of days between two full local dates, None where one is partial."""
    if not (is_full(first) and is_full(second)):
        return None
    return abs((date.fromisoformat(second) - date.fromisoformat(first)) // timedelta(days=1))


def first_of(day: str) -> str:
    """The first full local date that a partial one, which is not empty, may be."""
    return day + "0001-01-01"[len(day) :]


def last_of(day: str) -> str:
    """The last full local date that a partial one, which is not empty, may be."""
    if len(day) == len("2025-03") and day[:4] != "0000":
        return f"{day}-{calendar.monthrange(int(day[:4]), int(day[5:]))[1]:02d}"
    return day + "9999-12-31"[len(day) :]


def may_precede(first: str, second: str) -> bool:
    """Whether ``first`` may lie on or before ``second``, as far as both are known."""
    known = min(len(first), len(second))
    return first[:known] <= second[:known]


def tomorrow() -> str:
    """The last local date that a record of today may carry, wherever on Earth it was written."""
    return (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
