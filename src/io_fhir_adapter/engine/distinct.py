"""Tallies over distinct resources: a Procedure that is read twice is seen once.

Of every Procedure nine bytes are kept, its id's hash and 8 bits of flags. Where there are many, they are spilled to
disk as words of 56 bits of the hash and the flags, each in the one of 256 buckets that the other 8 bits name, so that
memory does not grow with the input. Two ids of a million share a hash once in ten million files.

What several processes spilled is counted together where all of them hash alike (:mod:`.pool`).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from io_fhir_adapter.engine.scratch import Scratch

__all__ = ["DistinctTally", "Spilled", "bucket_ranges", "count_spilled"]

_BUCKETS = 256
_HELD = 1 << 18  # keys held in memory, two MiB
_COUNTED = 1 << 15  # keys that are counted at once
_MASK = ~255


@dataclass(frozen=True, slots=True)
class Spilled:
    """Words on disk: for each spill, one after the other, the number of words in each bucket."""

    path: Path
    runs: tuple[tuple[int, ...], ...]

    @property
    def words(self) -> int:
        """How many there are."""
        return sum(map(sum, self.runs))


class DistinctTally:
    """Counts flag values (below 256) over distinct keys; of a key added twice the last flags hold.

    Args:
        scratch: Where it spills to; what it spills there outlasts it. None for a place of its own.
    """

    def __init__(self, scratch: Scratch | None = None) -> None:
        self._own = Scratch()
        self._scratch = scratch or self._own
        self._keys = array("q")
        self._flags = bytearray()
        self._file: IO[bytes] | None = None
        self._path = Path()
        self._runs: list[tuple[int, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._own.__exit__(exc_type, exc, traceback)

    def extend(self, keys: Iterable[int], flags: Iterable[int]) -> None:
        """Adds the hashes of keys, and as many flags."""
        self._keys.extend(array("q", keys))
        self._flags += bytes(flags)
        if len(self._keys) >= _HELD:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._path = self._scratch.path()
            self._file = self._path.open("xb")
        buckets = [array("q") for _ in range(_BUCKETS)]
        adders = [bucket.append for bucket in buckets]
        for key, flags in zip(self._keys, self._flags, strict=True):
            adders[key & 255](key & _MASK | flags)
        self._runs.append(tuple(len(bucket) for bucket in buckets))
        for bucket in buckets:
            bucket.tofile(self._file)
        del self._keys[:]
        self._flags.clear()
        self._file.flush()

    def take(self) -> Spilled:
        """All that was added since the last time, spilled; what is added from now on is counted anew."""
        self._spill()
        assert self._file is not None  # noqa: S101 - it was just written
        self._file.close()
        spilled = Spilled(self._path, tuple(self._runs))
        self._file, self._runs = None, []
        return spilled

    def result(self) -> Counter[int]:
        """Flags to number of distinct keys."""
        if self._file is None:
            if len(set(self._keys)) == len(self._keys):  # as nearly always, and known in half the time
                return Counter(self._flags)
            return Counter(dict(zip(self._keys, self._flags, strict=True)).values())
        self._spill()
        spilled = Spilled(self._path, tuple(self._runs))
        total: Counter[int] = Counter()
        for buckets in bucket_ranges([spilled]):
            total.update(count_spilled([spilled], buckets))
        return total


def bucket_ranges(spilled: Sequence[Spilled], least: int = 1) -> list[range]:
    """The buckets in ranges, at least so many, each of which fits into memory."""
    words = sum(one.words for one in spilled)
    wanted = max(least, words // _HELD)
    step = max(_BUCKETS // wanted, 1)
    return [range(start, min(start + step, _BUCKETS)) for start in range(0, _BUCKETS, step)]


def count_spilled(spilled: Iterable[Spilled], buckets: range) -> Counter[int]:
    """Flags to number of distinct keys in a range of buckets; of a key spilled twice the last flags hold."""
    words = [array("q") for _ in buckets]
    for one in spilled:
        with one.path.open("rb") as file:
            for start, lengths in _runs(one):
                file.seek((start + sum(lengths[: buckets.start])) * words[0].itemsize)
                for bucket, length in zip(words, lengths[buckets.start : buckets.stop], strict=True):
                    bucket.fromfile(file, length)
    total: Counter[int] = Counter()
    for bucket in words:
        for part in _parts(bucket):
            total.update({word >> 8: word & 255 for word in part}.values())
    return total


def _parts(bucket: array[int]) -> Sequence[array[int]]:
    """A bucket in parts that share no hash: what is counted takes a hundred bytes a word while it is, not eight."""
    number = 1 << (len(bucket) // _COUNTED).bit_length()
    if number == 1:
        return (bucket,)
    parts = [array("q") for _ in range(number)]
    adders = [part.append for part in parts]
    for word in bucket:
        adders[word >> 8 & number - 1](word)
    return parts


def _runs(spilled: Spilled) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The place of the first word of each run, and the number of words in each of its buckets."""
    return zip(accumulate(map(sum, spilled.runs), initial=0), spilled.runs, strict=False)
