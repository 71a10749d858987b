"""The last look before anything is queued: does a payload hold an identifier of a person in it?

JSON is decoded first, so that escapes hide nothing, and each finding names its element; anything else is
searched as text. Letter case, spelling and encodings make no difference (:mod:`io_fhir_adapter.review.readings`). All
identifiers are searched in one pass (Aho-Corasick); phone numbers also by what is left of them without prefixes.

Identifiers of six and more characters are found anywhere; shorter ones only between characters that are neither
letters nor digits; those that could be part of a hexadecimal token also within a word that is none. Beside them there
are values of the record that tell of a person only as a whole, such as a local code: those are found where they are all
that is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ahocorasick_rs import AhoCorasick

from io_fhir_adapter.errors import LeakError
from io_fhir_adapter.review.identifiers import identifiers_of
from io_fhir_adapter.review.readings import phone_cores, phones_in, plain, readings, spellings

__all__ = ["Leak", "LeakScanner", "identifiers_of", "refuse_leaks", "scan"]

_LEAST = 4
_LEAST_ANYWHERE = 6
_NOWHERE = "(payload)"
_HEX_LIKE = re.compile(r"[0-9a-f-]+\Z")
_DATE = re.compile(r"[0-9]{1,4}([./-])[0-9]{1,2}\1[0-9]{1,4}\Z")
_SHORT_DATE = re.compile(r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2}\Z")
_NUMBER_BEFORE = re.compile(r"[0-9][./-]?\Z")
_NUMBER_AFTER = re.compile(r"[./-]?[0-9]")


@dataclass(frozen=True, order=True)
class Leak:
    """Where an identifier was found, never which.

    Attributes:
        path: Element path such as ``Bundle.entry[3].resource.note[0].text``; ``line 3`` where the payload is no JSON.
        kind: ``value`` or ``name`` (of the element).
    """

    path: str
    kind: str = "value"


class LeakScanner:
    """All identifiers to look for, made ready once and used on any number of payloads.

    Args:
        identifiers: What to look for; those under four characters are not looked for.
        published: Texts in lower case that anyone can read in the form and the profile; a value that is one of them
            as a whole says nothing about a person, also where a person's name is part of it.
        values: What is looked for as a whole value only; what is published is not.
    """

    def __init__(
        self, identifiers: Iterable[str], published: frozenset[str] = frozenset(), values: Iterable[str] = ()
    ) -> None:
        self._published = published
        written = {plain(identifier) for identifier in identifiers}
        written |= {spelling for needle in written for spelling in spellings(needle)}
        self._needles = sorted(needle for needle in written if len(needle) >= _LEAST)
        self._bounds = [_bound(needle) for needle in self._needles]
        self._whole = {plain(value) for value in values} | set(self._needles)
        self._phones = {
            core
            for needle in self._needles
            if not _DATE.match(needle) and needle in phones_in(needle)
            for core in phone_cores(needle)
        }
        self._automaton = AhoCorasick(self._needles)

    def hits(self, text: str) -> bool:
        """Whether a text holds an identifier."""
        return text.casefold() not in self._published and any(self._search(form) for form in readings(text))

    def _search(self, text: str) -> bool:
        if text in self._whole:
            return True
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        if any(self._bounds[number](text, start, end) for number, start, end in found):
            return True
        return any(not self._phones.isdisjoint(phone_cores(phone)) for phone in phones_in(text))

    def scan(self, payload: bytes) -> list[Leak]:
        """All places in a payload that hold an identifier, each once, in order of appearance."""
        text = payload.decode("utf-8", errors="replace")
        try:
            decoded = json.loads(text, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            lines = text.splitlines()
            return [Leak(f"line {number}") for number, line in enumerate(lines, start=1) if self._line_hits(line)]
        hits = lru_cache(maxsize=None)(self.hits)
        leaks: dict[Leak, None] = {}
        for path, value, kind in _strings(decoded, "", lambda name: "(name)" if hits(name) else name):
            # An element called as a person is (status, link) is a name of FHIR, not of the person.
            if hits(value) and not (kind == "name" and value.isidentifier() and plain(value) in self._whole):
                leaks[Leak(path, kind)] = None
        return list(leaks)

    def _line_hits(self, line: str) -> bool:
        if self.hits(line):
            return True
        if not line.lstrip().startswith(("{", "[", '"')):
            return False
        try:
            decoded = json.loads(line, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            return False
        return any(self.hits(value) for _, value, _ in _strings(decoded, "", str))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its members: a dict would hide all but the last of repeated names."""


def _strings(node: Any, path: str, safe: Callable[[str], str]) -> Iterator[tuple[str, str, str]]:
    """Path, text and kind of every member name and every text or number in a decoded payload.

    ``safe`` hides names that are themselves identifiers, since paths are shown.
    """
    if isinstance(node, _Pairs):
        kind = next((value for name, value in node if name == "resourceType" and isinstance(value, str)), "")
        here = path or safe(kind)
        for name, value in node:
            yield here or _NOWHERE, name, "name"
            yield from _strings(value, f"{here}.{safe(name)}" if here else safe(name), safe)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _strings(item, f"{path}[{index}]", safe)
    elif isinstance(node, str):
        yield path or _NOWHERE, node, "value"


def _bound(needle: str) -> Callable[[str, int, int], bool]:
    """What must hold around an identifier, so that it is no part of something else."""
    if len(needle) < _LEAST_ANYWHERE:
        return _stands_alone
    if _SHORT_DATE.match(needle):
        return _is_a_date
    return _is_no_token if _HEX_LIKE.match(needle) else _anywhere


def _anywhere(_text: str, _start: int, _end: int) -> bool:
    return True


def _stands_alone(text: str, start: int, end: int) -> bool:
    before = start == 0 or not text[start - 1].isalnum()
    return before and (end == len(text) or not text[end].isalnum())


def _is_no_token(text: str, start: int, end: int) -> bool:
    """Whether it stands alone or in a word that holds letters beyond ``f``, and is no part of a longer number."""
    if _stands_alone(text, start, end):
        return True
    if (start and text[start - 1].isdigit()) or text[end : end + 1].isdigit():
        return False
    first, last = start, end
    while first and text[first - 1].isalnum():
        first -= 1
    while last < len(text) and text[last].isalnum():
        last += 1
    return not (_HEX_LIKE.match(text[first:last]))


def _is_a_date(text: str, start: int, end: int) -> bool:
    """Whether a date with two digits for its year is no part of a longer number, version or object identifier."""
    return _NUMBER_BEFORE.search(text, max(start - 2, 0), start) is None and not _NUMBER_AFTER.match(text, end)


def scan(payload: bytes, identifiers: Iterable[str], published: frozenset[str] = frozenset()) -> list[Leak]:
    """All places in a payload that hold one of the identifiers; see :class:`LeakScanner`."""
    return LeakScanner(identifiers, published).scan(payload)


def refuse_leaks(payload: bytes, identifiers: Iterable[str] | LeakScanner) -> None:
    """Let a payload pass only if it holds none of the identifiers.

    Raises:
        LeakError: It does. The message names the elements, never a value.
    """
    scanner = identifiers if isinstance(identifiers, LeakScanner) else LeakScanner(identifiers)
    leaks = scanner.scan(payload)
    if leaks:
        places = list(dict.fromkeys(leak.path for leak in leaks))
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        raise LeakError(
            f"what was about to leave holds an identifier of a person in {', '.join(places[:3])}{more}",
            do="nothing was queued; find out how it came there before trying again",
            number=30,
        )
