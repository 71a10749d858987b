"""The codes of decisions and runs in plain words, for people who read the report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

__all__ = ["day_words", "month_name", "number", "reason_words", "sentence", "why_words"]

_REASONS = {
    "counted": "counted",
    "category-for-review": "category left for review",
    "indication-not-found": "no indication recorded",
    "indication-uncertain": "uncertain indication",
    "protection-possible": "may only protect",
    "site-for-review": "place left for review",
    "route-not-coded": "access route not coded",
    "text-only": "known by text only",
    "mapping-inexact": "mapping not exact",
    "conflicting-codes": "codes contradict each other",
    "part-of-missing-procedure": "part of a missing Procedure",
    "category-not-counted": "category does not count",
    "no-tumour-indication": "no tumour indication",
    "other-disease": "another disease is the reason",
    "look-alike": "look-alike of an IO code",
    "not-percutaneous": "open, laparoscopic or endoscopic",
    "planning-only": "planning only",
    "revision-only": "revision only",
    "add-on-only": "add-on code alone",
    "no-io-code": "no IO code",
    "unmapped": "code system without table",
    "not-completed": "not completed",
    "entered-in-error": "entered in error",
    "undated": "no usable date",
    "out-of-scope": "outside the scope",
    "scope-unknown": "scope not known",
    "other-period": "other period",
    "quarantined": "not readable",
    "not-done": "not done",
    "in-progress": "in progress",
    "on-hold": "on hold",
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONG_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip
_MINUS = "\N{MINUS SIGN}"


def reason_words(code: str) -> str:
    """A reason code or FHIR status in plain words; an unknown one with its hyphens opened."""
    return _REASONS.get(code) or re.sub(r"-+", " ", code).strip() or "not stated"


def number(value: int) -> str:
    """A whole number with thousands parted and a true minus sign."""
    return f"{value:,}".replace("-", _MINUS)


def sentence(words: str) -> str:
    """The words with a capital first letter."""
    return words[:1].upper() + words[1:]


def month_name(month: str) -> str:
    """The short name of the month of ``YYYY-MM`` or ``YYYY-MM-DD``; not taken from the machine's locale."""
    return _MONTHS[int(month[5:7]) - 1]


def day_words(day: str) -> str:
    """``2025-07-03`` as ``3 July 2025``; anything else as it is."""
    try:
        moment = date.fromisoformat(day)
    except ValueError:
        return day
    return f"{moment.day} {_LONG_MONTHS[moment.month - 1]} {moment.year}" if len(day) == 10 else day


def why_words(why: Iterable[tuple[str, int]], most: int = 2) -> str:
    """The first reasons with their numbers: ``no IO code 6,900, not readable 23 …``."""
    ranked = list(why)
    shown = ", ".join(f"{reason_words(code)} {number(count)}" for code, count in ranked[:most])
    return f"{shown} …" if len(ranked) > most else shown
