"""The steps behind a decision in the words of a page's language, and without record ids where nobody may see them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from io_fhir_adapter.model import TrailStep
from io_fhir_adapter.serve.pages.wording import Translate, reason_words_in, worded

__all__ = ["Names", "Step", "steps_in"]

_REFERENCE: Final = re.compile(r"\b(?P<type>[A-Z][a-z]+(?:[A-Z][a-z]+)*)/[^\s,;]+")
_WORDED: Final = tuple(
    (step, re.compile(pattern), key)
    for step, pattern, key in (
        ("session", r"(?P<number>\d+) Procedure\(s\) on an unknown date", "undated"),
        ("session", r"(?P<number>\d+) Procedure\(s\) on (?P<day>[\d-]+)", "session"),
        (
            "session",
            r"(?P<number>\d+) Procedure\(s\) on (?P<day>[\d-]+), one treatment recorded by two systems, "
            r"also on (?P<also>[\d, -]+)",
            "twice",
        ),
        ("status", r"(?P<what>.+) is in-progress, ended on (?P<day>[\d-]+) and is taken for completed", "ended"),
        ("status", r"(?P<what>.+) is (?P<state>[a-z-]+) and adds nothing", "status"),
        ("part-of", r"(?P<what>.+) is part of a Procedure that is not there or was not completed", "part"),
        ("scope", r"(?P<what>.+) is excluded, by (?P<elements>.+)", "excluded"),
        ("scope", r"(?P<what>.+) is not excluded, by (?P<elements>.*)", "not_excluded"),
        ("scope", r"(?P<what>.+) is included, by (?P<elements>.+)", "included"),
        ("scope", r"(?P<what>.+) is none of those included, by (?P<elements>.*)", "not_included"),
        (
            "scope",
            r"(?P<what>.+) and its Encounter do not say whether it is within \((?P<asked>.+)\); "
            r"taken as (?P<place>[a-z]+)",
            "place",
        ),
        ("scope", r"(?P<what>.+) says nothing of it and stands with (?P<parent>.+), which it is part of", "parent"),
        ("unit", r"each category of the session is decided and counted by itself", "each"),
        ("unit", r"the session is decided once", "once"),
        ("programme", r"the programme counts this category", "counts_yes"),
        ("programme", r"the programme leaves this category to a responsible person", "counts_review"),
        ("programme", r"the programme does not count this category", "counts_no"),
        ("indication", r"no diagnosis that explains it was found", "no_diagnosis"),
        ("indication", r"the code itself names a tumour or a cytostatic", "implied"),
        (
            "indication",
            r"(?P<kind>[a-z-]+), (?P<code>\S+ .+?), from (?P<level>[A-Za-z]+)"
            r"(?: in (?P<what>\S+(?: \S+)?))?(?P<doubt>; not stated as the reason and not the likely one)?",
            "diagnosis",
        ),
        ("category", r"(?P<category>[a-z-]+): .+", "category"),
        ("decision", r"counted: counted", "counted"),
        ("also", r"(?P<category>[a-z-]+): (?P<reason>[a-z-]+)", "also"),
        ("decision", r"(?P<state>[a-z-]+): (?P<reason>[a-z-]+)", "decision"),
        (
            "decision",
            r"(?P<state>[a-z-]+): (?P<reason>[a-z-]+); without the scope (?P<otherwise>[a-z-]+): (?P<because>[a-z-]+)",
            "scoped",
        ),
    )
)
"""The sentences of classify/trail.py, decide.py and scope.py; another one stands for itself, in English."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it looked at, the rule, and a sentence; ``english`` where that has no words of this language."""

    title: str
    rule: str
    text: str
    english: bool


class Names:
    """What records are called on a page: by their reference to who may see it, else by their place.

    Args:
        references: The Procedures of the session, in order.
        word: What one of them is called, with ``{number}`` in it.
        open: Whether references are shown.
    """

    def __init__(self, references: Iterable[str], word: Callable[[int], str], *, open: bool) -> None:  # noqa: A002
        self._open = open
        self._names = {reference: word(number) for number, reference in enumerate(references, start=1)}

    def of(self, reference: str) -> str:
        """The name of one record."""
        return reference if self._open else self._names.get(reference, reference.partition("/")[0])

    def within(self, text: str) -> str:
        """A sentence with every record in it called by its name."""
        if self._open:
            return text
        for reference in sorted(self._names, key=len, reverse=True):
            text = re.sub(rf"{re.escape(reference)}(?![\w.-])", self._names[reference], text)
        return _REFERENCE.sub(lambda found: found["type"], text)


def steps_in(
    t: Translate, trail: Iterable[TrailStep], names: Names, words: Mapping[str, Callable[[str], str]]
) -> list[Step]:
    """The trail of a decision in words.

    Args:
        t: The texts.
        trail: The steps.
        names: What records are called.
        words: ``category`` gives the title of a category by its code, ``day`` a date as it is read.
    """
    return [_step(t, step, names, words) for step in trail]


def _step(t: Translate, step: TrailStep, names: Names, more: Mapping[str, Callable[[str], str]]) -> Step:
    title = worded(t, f"decisions.step.{step.step}", step.step)
    text = names.within(step.text)
    for name, pattern, key in _WORDED:
        match = pattern.fullmatch(text) if name == step.step else None
        if match is not None:
            said = t(f"decisions.trail.{key}", **_parts(t, match.groupdict(default=""), more))
            return Step(title, step.rule, said, english=False)
    return Step(title, step.rule, text, english=True)


def _parts(t: Translate, parts: Mapping[str, str], more: Mapping[str, Callable[[str], str]]) -> dict[str, str]:
    """The words that a sentence is filled with."""

    def state(code: str) -> str:
        return worded(t, f"decisions.states.{code}", reason_words_in(t, code))

    words: dict[str, Callable[[str], str]] = {
        "reason": lambda code: reason_words_in(t, code),
        "because": lambda code: reason_words_in(t, code),
        **more,
        "state": state,
        "otherwise": state,
        "place": lambda code: worded(t, f"decisions.places.{code}", code),
        "kind": lambda code: worded(t, f"decisions.kinds.{code}", code),
        "level": lambda code: worded(t, f"decisions.levels.{code}", code),
        "doubt": lambda _: t("decisions.trail.doubt"),
    }
    found = {part: words[part](text) if text and part in words else text for part, text in parts.items()}
    if found.get("what") and "level" in found:
        found["what"] = f" ({found['what']})"
    return found
