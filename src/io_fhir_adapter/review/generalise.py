"""Exact values made coarse: age bands, quarters, day offsets, diagnosis groups. Pure functions."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

from io_fhir_adapter.fhir.dates import is_full

__all__ = ["AGE_BANDS", "age_band", "day_offset", "icd_group", "quarter", "wide_age_band"]

AGE_BANDS = ("<18", "18-39", "40-49", "50-59", "60-69", "70-79", "80-89", "90+")
_STARTS = (18, 40, 50, 60, 70, 80, 90)
_WIDE = {
    "18-39": "18-59", "40-49": "18-59", "50-59": "18-59", "60-69": "60-79", "70-79": "60-79",
    "80-89": "80+", "90+": "80+",
}  # fmt: skip
_ICD_GROUP = re.compile(r"([A-Z][0-9][0-9A-Z])(?:\.?[0-9A-Z]{1,4})?(?:[-+*!]|\.-)?\Z")


def _age(birth: date, on: date) -> int:
    return on.year - birth.year - ((on.month, on.day) < (birth.month, birth.day))


def _bounds(day: str) -> tuple[date, date] | None:
    """The first and the last day that a partial date may mean."""
    try:
        if len(day) == 4:
            return date(int(day), 1, 1), date(int(day), 12, 31)
        if len(day) == 7:
            first = date.fromisoformat(f"{day}-01")
            following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
            return first, date.fromordinal(following.toordinal() - 1)
        return date.fromisoformat(day), date.fromisoformat(day)
    except ValueError:
        return None


@lru_cache(maxsize=8192)
def _ordinal(day: str) -> int | None:
    try:
        return date.fromisoformat(day).toordinal()
    except ValueError:
        return None


def age_band(birth_date: str, on: str) -> str:
    """The band of :data:`AGE_BANDS` a person is in on the full local date ``on``.

    Empty where the birth date is missing, lies after ``on``, or is so partial that two bands are possible.
    """
    bounds = _bounds(birth_date) if is_full(on) else None
    day = _bounds(on)
    if bounds is None or day is None or bounds[0] > day[0]:
        return ""
    oldest, youngest = _age(bounds[0], day[0]), max(_age(bounds[1], day[0]), 0)
    bands = {AGE_BANDS[sum(age >= start for start in _STARTS)] for age in (oldest, youngest)}
    return bands.pop() if len(bands) == 1 else ""


def wide_age_band(band: str) -> str:
    """The wide band that one of :data:`AGE_BANDS` lies in: ``<18``, ``18-59``, ``60-79``, ``80+``; itself otherwise."""
    return _WIDE.get(band, band)


def quarter(day: str) -> str:
    """The calendar quarter of a local date with a month, as ``2025-Q3``; empty where the month is unknown."""
    if len(day) < 7 or _ordinal(day if is_full(day) else f"{day}-01") is None:
        return ""
    return f"{day[:4]}-Q{(int(day[5:7]) + 2) // 3}"


def day_offset(day: str, index: str) -> int | None:
    """Days from the index date to ``day``, negative before it; None where either is not a full date."""
    if not (is_full(day) and is_full(index)):
        return None
    first, second = _ordinal(index), _ordinal(day)
    return None if first is None or second is None else second - first


def icd_group(code: str) -> str:
    """The three characters of an ICD-10 code's category; empty where it has not the shape of one."""
    match = _ICD_GROUP.match(code.strip().upper())
    return match.group(1) if match else ""
