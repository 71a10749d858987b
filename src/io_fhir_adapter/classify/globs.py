"""Globs over codes: literal characters, ``?``, sets such as ``[012]`` or ``[0-9a]``, and ``*`` at the end.

The most specific pattern that matches a code wins. Specificity compares, in this order: how many characters are
literal, how many are a set, and whether the tail is open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from io_fhir_adapter.errors import MappingError

__all__ = ["Glob", "overlap", "parse_glob"]

_PIECE = re.compile(r"\[([^\[\]]+)\]|(\?)|(\*)|([^\[\]?*])")
_LITERALS = re.compile(r"[^\[\]?*]*")
_ANY = frozenset({"?"})


@dataclass(frozen=True, slots=True)
class Glob:
    """A parsed pattern.

    Attributes:
        text: As written.
        places: For each character the set of characters allowed; ``{"?"}`` is any.
        open_tail: Whether anything may follow.
        specificity: Larger is more specific.
        prefix: The literal characters it starts with.
    """

    text: str
    places: tuple[frozenset[str], ...]
    open_tail: bool
    specificity: tuple[int, int, int]
    prefix: str

    @property
    def is_literal(self) -> bool:
        """Whether it matches exactly one code."""
        return not self.open_tail and len(self.prefix) == len(self.places)

    def regex(self) -> re.Pattern[str]:
        """The pattern as a compiled regular expression for ``match``."""
        body = "".join(_place_regex(place) for place in self.places)
        return re.compile(body + ("" if self.open_tail else r"\Z"), re.DOTALL)


def _place_regex(place: frozenset[str]) -> str:
    if place == _ANY:
        return "."
    return "[" + "".join(re.escape(char) for char in sorted(place)) + "]"


def _expand(body: str, pattern: str) -> frozenset[str]:
    chars: set[str] = set()
    index = 0
    while index < len(body):
        if index + 2 < len(body) and body[index + 1] == "-":
            first, last = body[index], body[index + 2]
            if first > last:
                raise MappingError(f"the range {first}-{last} in {pattern!r} runs backwards", number=3)
            chars.update(chr(point) for point in range(ord(first), ord(last) + 1))
            index += 3
        else:
            chars.add(body[index])
            index += 1
    return frozenset(chars)


@cache
def _only(literal: str) -> frozenset[str]:
    """The set of one character, made once: tables have tens of thousands of them."""
    return frozenset(literal)


def parse_glob(text: str) -> Glob:
    """Parses a pattern.

    Raises:
        MappingError: It is empty, has a bracket without its partner, or a ``*`` before the end.
    """
    start = _LITERALS.match(text)
    position = literals = start.end() if start is not None else 0
    places = [_only(literal) for literal in text[:position]]
    open_tail, sets = False, 0
    while position < len(text):
        found = _PIECE.match(text, position)
        if found is None or open_tail:
            break
        members, any_char, star, literal = found.groups()
        if members is not None:
            places.append(_expand(members, text))
            sets += 1
        elif any_char:
            places.append(_ANY)
        elif star:
            open_tail = True
        else:
            places.append(_only(literal))
            literals += 1
        position = found.end()
    if position != len(text) or not text:
        raise MappingError(
            f"{text!r} is no code pattern",
            do="use literal characters, ?, sets such as [012], and * only at the end",
            number=3,
        )
    prefix = ""
    for place in places:
        if len(place) != 1 or place == _ANY:
            break
        prefix += next(iter(place))
    return Glob(text, tuple(places), open_tail, (literals, sets, 0 if open_tail else 1), prefix)


def overlap(first: Glob, second: Glob) -> bool:
    """Whether some code matches both patterns."""
    short, long = sorted((first, second), key=lambda glob: len(glob.places))
    if len(short.places) != len(long.places) and not short.open_tail:
        return False
    return all(_ANY in (one, other) or one & other for one, other in zip(short.places, long.places, strict=False))
