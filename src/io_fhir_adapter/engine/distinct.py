"""Tallies over distinct resources: a Procedure that is read twice is seen once.

Of every Procedure nine bytes are kept, its id's hash and 8 bits of flags. Where there are many, they are spilled to
disk as words of 56 bits of the hash and the flags, each in the one of 256 buckets that the other 8 bits name, so that
memory does not grow with the input. Two ids of a million share a hash once in ten million files.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Self

__all__ = ["DistinctTally"]

_BUCKETS = 256
_HELD = 1 << 18  # keys held in memory, two MiB
_MASK = ~255


class DistinctTally:
    """Counts flag values (below 256) over distinct keys; of a key added twice the last flags hold."""

    def __init__(self) -> None:
        self._keys = array("q")
        self._flags = bytearray()
        self._file: IO[bytes] | None = None
        self._runs: list[list[int]] = []  # per spill, the length of each bucket

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def extend(self, keys: Iterable[int], flags: Iterable[int]) -> None:
        """Adds the hashes of keys, and as many flags."""
        self._keys.extend(array("q", keys))
        self._flags += bytes(flags)
        if len(self._keys) >= _HELD:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="io-fhir-adapter-")  # noqa: SIM115 - closed by __exit__
        buckets = [array("q") for _ in range(_BUCKETS)]
        adders = [bucket.append for bucket in buckets]
        for key, flags in zip(self._keys, self._flags, strict=True):
            adders[key & 255](key & _MASK | flags)
        self._runs.append([len(bucket) for bucket in buckets])
        for bucket in buckets:
            bucket.tofile(self._file)
        del self._keys[:]
        self._flags.clear()

    def result(self) -> Counter[int]:
        """Flags to number of distinct keys."""
        if self._file is None:
            if len(set(self._keys)) == len(self._keys):  # as nearly always, and known in half the time
                return Counter(self._flags)
            return Counter(dict(zip(self._keys, self._flags, strict=True)).values())
        self._spill()
        self._file.flush()
        total: Counter[int] = Counter()
        for number in range(_BUCKETS):
            total.update({word >> 8: word & 255 for word in self._spilled(self._file, number)}.values())
        return total

    def _spilled(self, file: IO[bytes], number: int) -> array[int]:
        words: array[int] = array("q")
        offset = 0
        for lengths in self._runs:
            file.seek((offset + sum(lengths[:number])) * words.itemsize)
            words.fromfile(file, lengths[number])
            offset += sum(lengths)
        return words
