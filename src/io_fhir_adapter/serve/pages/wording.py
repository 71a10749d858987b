"""Codes of the case review in the words of the page's language."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Final

from io_fhir_adapter.report.wording import number, reason_words

__all__ = ["Translate", "day_in", "number_in", "reason_in", "reason_words_in", "worded"]

Translate = Callable[..., str]
"""``t(key, **values)``, see :mod:`io_fhir_adapter.serve.language`."""

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_WHOLE: Final = {
    "not recorded": "not_recorded",
    "for the reviewer to answer": "for_reviewer",
    "the record holds several values and one is asked for": "several",
    "the record's value has no unit of this form": "no_unit",
    "no Encounter linked": "no_encounter",
}
_BY_SOURCE: Final = {
    "not offered by this source: ": "not_offered",
    "refused by this source: ": "refused",
    "not searched by patient by this source: ": "not_searched",
}


def reason_in(t: Translate, reason: str) -> str:
    """Why the record left an item open; a reason without words here stands for itself.

    Args:
        t: The texts.
        reason: As the ledger keeps it, one or several parted by ``; ``.
    """
    return "; ".join(_one(t, part) for part in reason.split("; ")) if reason else ""


def _one(t: Translate, reason: str) -> str:
    if reason in _WHOLE:
        return t(f"case.reason.{_WHOLE[reason]}")
    for start, key in _BY_SOURCE.items():
        if reason.startswith(start):
            return t(f"case.reason.{key}", types=reason.removeprefix(start))
    return reason


def day_in(language: str, day: str) -> str:
    """An ISO date as it is read in a language, such as ``30.01.2026`` or ``30 January 2026``."""
    found = date.fromisoformat(day)
    return found.strftime("%d.%m.%Y") if language == "de" else f"{found.day} {_MONTHS[found.month - 1]} {found.year}"


def number_in(language: str, value: int) -> str:
    """A whole number as it is read in a language, its thousands parted."""
    shown = number(value)
    return shown.replace(",", ".") if language == "de" else shown


def reason_words_in(t: Translate, code: str) -> str:
    """The reason code of a decision in words; one without words here in English."""
    try:
        return t(f"approval.reasons.{code}")
    except KeyError:
        return reason_words(code)


def worded(t: Translate, key: str, otherwise: str) -> str:
    """The text of a key; something else where there is none."""
    try:
        return t(key)
    except KeyError:
        return otherwise
