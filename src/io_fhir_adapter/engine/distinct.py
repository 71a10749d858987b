"""Tallies over distinct resources: a Procedure that is read twice is seen once.

Of every Procedure one word of eight bytes is kept, 56 bits of its id's hash and 8 bits of flags, in buckets that
spill to disk, so that memory does not grow with the input. Two ids of a million share a hash once in 100,000 files.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from types import TracebackType
from typing import IO, Self

__all__ = ["DistinctTally"]

_BUCKETS = 256
_HELD = 1 << 18  # words held in memory, two MiB


class DistinctTally:
    """Counts flag values (below 256) over distinct keys; of a key added twice the last flags hold.

    The caller adds words by itself, because a call for each would cost more than the rest:
    ``word = hash(key) & DistinctTally.MASK | flags`` goes to ``adders[word >> 8 & 255]``, and :meth:`settle` is
    called now and then.
    """

    MASK = ~255

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._file: IO[bytes] | None = None
        self._runs: list[list[int]] = []  # per spill, the length of each bucket
        self.adders = [bucket.append for bucket in self._buckets]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def settle(self) -> None:
        """Spills the buckets where they have grown large."""
        if sum(map(len, self._buckets)) < _HELD:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="io-fhir-adapter-")  # noqa: SIM115 - closed by __exit__
        self._runs.append([len(bucket) for bucket in self._buckets])
        for bucket in self._buckets:
            bucket.tofile(self._file)
            del bucket[:]

    def result(self) -> Counter[int]:
        """Flags to number of distinct keys."""
        total: Counter[int] = Counter()
        for number, bucket in enumerate(self._buckets):
            words = self._spilled(number)
            words.extend(bucket)
            total.update({word >> 8: word & 255 for word in words}.values())
        return total

    def _spilled(self, number: int) -> array[int]:
        words: array[int] = array("q")
        if self._file is not None:
            self._file.flush()
            offset = 0
            for lengths in self._runs:
                self._file.seek((offset + sum(lengths[:number])) * words.itemsize)
                words.fromfile(self._file, lengths[number])
                offset += sum(lengths)
        return words
