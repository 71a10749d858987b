"""What may need a person, and in which words it is told.

An incident is made of words of ours, numbers, days, error codes and names that the configuration gives; nothing that a
record, a server or the accreditation body wrote goes into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from io_fhir_adapter import errors
from io_fhir_adapter.config.notify import About
from io_fhir_adapter.errors import AdapterError

__all__ = ["TITLES", "Incident", "codes_in", "family_words", "title_of"]

TITLES: Final[dict[str, str]] = {
    "run": "The nightly run failed",
    "late": "No complete run for days",
    "pace": "{subject} falls short of the threshold",
    "unmapped": "Many Procedures under new codes without a mapping",
    "submission": "The submission of {subject} did not arrive",
    "verdict": "The accreditation body decided on the submission of {subject}",
    "review": "The case review of {subject} is due",
    "certificate": "A certificate ends: {subject}",
    "clock": "The clocks differ: {subject}",
    "disk": "The disk fills",
    "backup": "The ledger was not backed up",
}
"""The title of each kind; ``subject`` is a year or the name of a server."""

_CODE: Final = re.compile(r"IOA-[A-Z]{3}-[0-9]{3}")


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that needs a person.

    Attributes:
        kind: What of.
        subject: Which of its kind: a year, or the name of a server; empty where there is but one.
        cause: What it is at present, in few words: an open incident is told again where this was not told yet.
        text: What is so, in sentences.
        do: What to do about it.
        over: Whether it is but news, which is told once and never ends.
    """

    kind: About
    subject: str
    cause: str
    text: str
    do: str
    over: bool = False

    @property
    def key(self) -> str:
        """What it is known by from night to night."""
        return f"{self.kind} {self.subject}".strip()


def title_of(key: str) -> str:
    """The title of an incident by what it is known by."""
    kind, _, subject = key.partition(" ")
    return TITLES[kind].format(subject=subject)


def codes_in(text: str) -> tuple[str, ...]:
    """The error codes in a sentence, each once, what caused the others first; everything else is left out."""
    return tuple(dict.fromkeys(_CODE.findall(text)))


def family_words(code: str) -> str:
    """What an error code's family is about, in words; empty where there is no such family."""
    family = code.rpartition("-")[0]
    for kind in _families():
        if kind.family == family:
            return (kind.__doc__ or "").splitlines()[0].rstrip(".")
    return ""


def _families() -> Iterator[type[AdapterError]]:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if "family" in vars(kind):
            yield kind
