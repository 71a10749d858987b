"""Tallies over distinct resources: a Procedure that is read twice is seen once.

For every Procedure eight bytes of hash and two bytes of flags are kept, in buckets that spill to disk, so that
memory does not grow with the input. Two different ids share a hash once in some ten million files of a million.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from types import TracebackType
from typing import IO, Self

__all__ = ["DistinctTally"]

_BUCKETS = 256
_HELD_PER_BUCKET = 2_048


class DistinctTally:
    """Counts flag values over distinct keys; of a key added twice the last flags hold."""

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._flags = [array("H") for _ in range(_BUCKETS)]
        self._files: dict[int, IO[bytes]] = {}
        self._spilled: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._files.values():
            handle.close()

    def add(self, key: str, flags: int) -> None:
        """Takes one key with flags below 65,536."""
        value = hash(key)
        bucket = value & 255
        hashes = self._hashes[bucket]
        hashes.append(value)
        self._flags[bucket].append(flags)
        if len(hashes) >= _HELD_PER_BUCKET:
            self._spill(bucket)

    def _spill(self, bucket: int) -> None:
        handle = self._files.get(bucket)
        if handle is None:
            handle = self._files[bucket] = tempfile.TemporaryFile(prefix="io-fhir-adapter-")  # noqa: SIM115
        self._hashes[bucket].tofile(handle)
        self._flags[bucket].tofile(handle)
        self._spilled[bucket] = self._spilled.get(bucket, 0) + 1
        self._hashes[bucket] = array("q")
        self._flags[bucket] = array("H")

    def result(self) -> Counter[int]:
        """Flags to number of distinct keys."""
        total: Counter[int] = Counter()
        for bucket in range(_BUCKETS):
            last: dict[int, int] = {}
            handle = self._files.get(bucket)
            if handle is not None:
                handle.flush()
                handle.seek(0)
                for _ in range(self._spilled[bucket]):
                    hashes, flags = array("q"), array("H")
                    hashes.fromfile(handle, _HELD_PER_BUCKET)
                    flags.fromfile(handle, _HELD_PER_BUCKET)
                    last.update(zip(hashes, flags, strict=True))
            last.update(zip(self._hashes[bucket], self._flags[bucket], strict=True))
            total.update(last.values())
        return total
