"""Distinct Procedures on executors: words of hash and flags, in buckets by hash, and each bucket counted by itself.

A row for each Procedure would cost Spark more than reading it. So a split hands over its words (:mod:`..distinct` has
the same ones) a bucket at a time, each with the place in the whole input at which it began; a bucket comes together in
one task, and there are so many of them that one is always small.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from io_fhir_adapter.engine.spark.discretion import Discreet
from io_fhir_adapter.engine.spark.rows import COUNTED, batch_of

__all__ = ["buckets_for", "packed", "tally_counter"]

_FEWEST: Final = 256  # a word has flags where the low 8 bits of the hash were, so the bucket has to say those
_MOST: Final = 1 << 16
_BYTES_OF_A_BUCKET: Final = 1 << 29  # of input: some megabytes of words; ten times as many where it is gzipped
_FLAGS: Final = 255
_Words = NDArray[np.int64]


def buckets_for(size: int) -> int:
    """How many buckets an input of so many bytes is counted in."""
    wanted = _FEWEST
    while wanted < _MOST and wanted * _BYTES_OF_A_BUCKET < size:
        wanted *= 2
    return wanted


def packed(keys: array[int], flags: bytearray, buckets: int) -> tuple[pa.Array, pa.Array]:
    """Words by bucket.

    Args:
        keys: Hashes of ids, 64 bits each.
        flags: As many flags.
        buckets: Into how many, a power of two from 256 to 65,536.

    Returns:
        The numbers of the buckets that have any, and the words of each one behind the other, in the order of the keys.
    """
    hashes = np.frombuffer(keys, np.int64)
    bucket = (hashes & (buckets - 1)).astype(np.uint16)
    words = (hashes & ~_FLAGS | np.frombuffer(flags, np.uint8))[np.argsort(bucket, kind="stable")]
    lengths = np.bincount(bucket)
    used = np.flatnonzero(lengths)
    ends = np.cumsum(lengths[used]) * words.itemsize
    bounds = np.concatenate([[0], ends]).astype(np.int32)
    values = pa.Array.from_buffers(pa.binary(), len(used), [None, pa.py_buffer(bounds), pa.py_buffer(words)])
    return pa.array(used, pa.int64()), values


def tally_counter(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Counts distinct Procedures by flags; of one that was read twice those read last hold.

    Args:
        batches: ``number`` (the bucket) and ``payload`` of tallies, all of a bucket one behind the other, by place.

    Yields:
        One batch of ``rows.COUNTED``.
    """
    with Discreet():
        total = np.zeros(_FLAGS + 1, np.int64)
        for _, pieces in groupby(_pieces(batches), key=itemgetter(0)):
            total += _counted(np.frombuffer(b"".join(piece for _, piece in pieces), np.int64))
        flags = np.flatnonzero(total)
        yield batch_of(COUNTED, len(flags), {"flags": pa.array(flags, pa.int64()), "times": pa.array(total[flags])})


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, bytes]]:
    for batch in batches:
        yield from zip(batch.column("number").to_pylist(), batch.column("payload").to_pylist(), strict=True)


def _counted(words: _Words) -> NDArray[Any]:
    """Number of distinct keys for each value of flags."""
    keys = words & ~_FLAGS
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    last = np.append(keys[1:] != keys[:-1], True)
    return np.bincount((words & _FLAGS)[order][last], minlength=_FLAGS + 1)
