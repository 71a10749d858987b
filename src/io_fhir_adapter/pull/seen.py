"""Which resources were handed over: eight bytes for each, so that a million of them cost little memory."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b
from sys import byteorder

__all__ = ["Seen", "marks_of"]

_PARTS = 16


def marks_of(ids: Iterable[str]) -> list[bytes]:
    """The marks of ids: eight bytes each; that two of a million ids share one is as likely as one in 37 million."""
    return [blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in ids]


class Seen:
    """A set of ids that only grows, kept as their marks."""

    def __init__(self) -> None:
        self._parts = [bytearray() for _ in range(_PARTS)]
        self._counted = 0, 0  # of so many bytes, how many different marks they are
        self._digested = -1, ""  # of so many bytes, the digest

    def add(self, marks: Iterable[bytes]) -> None:
        """Takes marks in; one may come again."""
        parts = self._parts
        for mark in marks:
            parts[mark[0] & 15] += mark

    def merge(self, other: Seen) -> None:
        """Takes in all that another one has."""
        for mine, its in zip(self._parts, other._parts, strict=True):
            mine.extend(its)

    def _distinct(self, part: bytearray) -> set[int]:
        with memoryview(part).cast("Q") as numbers:
            return set(numbers)

    def count(self) -> int:
        """How many different ones were taken in."""
        size = self._size
        if self._counted[0] != size:
            self._counted = size, sum(len(self._distinct(part)) for part in self._parts)
        return self._counted[1]

    @property
    def _size(self) -> int:
        return sum(map(len, self._parts))

    def digest(self) -> str:
        """A digest of the set, whatever the order in which it was taken in: a proof that two readings agree."""
        size = self._size
        if self._digested[0] != size:
            self._digested = size, self._made_digest()
        return self._digested[1]

    def _made_digest(self) -> str:
        made, count = hashlib.sha256(), 0
        for part in self._parts:
            marks = array("Q", part)
            if byteorder == "little":
                marks.byteswap()  # as numbers they are then in the order of their bytes
            ordered = array("Q", sorted(set(marks)))
            count += len(ordered)
            if byteorder == "little":
                ordered.byteswap()
            made.update(ordered)
        self._counted = self._size, count
        return f"sha256:{made.hexdigest()}"

    def lacks(self, ids: Iterable[str]) -> list[str]:
        """Those ids that were not taken in; they are gone through one by one."""
        known = [array("Q", sorted(self._distinct(part))) for part in self._parts]
        missing = []
        for name in ids:
            mark = marks_of((name,))[0]
            number, part = int.from_bytes(mark, byteorder=byteorder), known[mark[0] & 15]
            place = bisect_left(part, number)
            if place == len(part) or part[place] != number:
                missing.append(name)
        return missing
