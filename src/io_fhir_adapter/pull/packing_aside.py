"""Procedures of large files made ready for the ledger by a process of their own, while this one writes them.

What it makes is the same, byte for byte, and comes in the same order. Where that process ends early, whoever ended it,
the pull fails with its cursor where it was.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.fhir.structs import Procedure
from io_fhir_adapter.ledger.packed_form import PackedProcedure
from io_fhir_adapter.pull.packing import Packer, Packing
from io_fhir_adapter.pull.packing_worker import LENGTH, NUMBERS, Frame, Job

__all__ = ["Block", "blocks_from", "is_worthwhile", "packed_aside"]

_LARGE: Final = 8 << 20  # bytes: with less, the process would be done before it has begun
_MODULE: Final = "io_fhir_adapter.pull.packing_worker"
_FRAMES: Final = msgspec.msgpack.Decoder(Frame)
_OTHERS: Final = msgspec.json.Decoder(Procedure)


class Block(NamedTuple):
    """A block of lines: what was made of it with the marks of its ids, or the block itself, to be looked at."""

    packing: Packing | None
    seen: Sequence[bytes]
    text: bytes


def is_worthwhile(packer: Packer, files: Sequence[Path]) -> bool:
    """Whether files are so large, and the machine such, that a process of its own is quicker."""
    able = packer.terms is not None and bool(sys.executable) and (os.cpu_count() or 1) > 1
    return able and sum(file.stat().st_size for file in files) >= _LARGE


def packed_aside(packer: Packer, files: Sequence[Path]) -> Iterator[Block]:
    """The Procedures of files, block by block, in order.

    Args:
        packer: What it would make of them here.
        files: NDJSON of Procedures alone; compressed, maybe.

    Raises:
        PullError: The process ended before it was done.
    """
    with _started(packer, files) as answers:
        yield from blocks_from(packer, answers)


def blocks_from(packer: Packer, answers: IO[bytes]) -> Iterator[Block]:
    """The blocks in a worker's answers, with what the tables say of their codes.

    Raises:
        PullError: The answers end before the worker was done.
    """
    verdicts: dict[int, tuple[bool, bool]] = {}
    met = 0
    while not (frame := _FRAMES.decode(_next(answers))).last:
        for fact in frame.codes:
            verdicts[met % NUMBERS] = packer.reads(fact)
            met += 1
        if frame.block:
            yield Block(None, (), frame.block)
            continue
        ready = [
            PackedProcedure(name, patient, status, day, *verdicts[code], digest, data, updated)
            for name, patient, status, day, code, digest, data, updated in frame.rows
        ]
        yield Block(Packing(ready, _OTHERS.decode_lines(frame.others)), frame.seen, b"")


@contextmanager
def _started(packer: Packer, files: Sequence[Path]) -> Iterator[IO[bytes]]:
    """The answers of a process that has its job; however this ends, it does not outlive it."""
    assert packer.terms is not None  # noqa: S101 - see is_worthwhile
    job = msgspec.msgpack.encode(Job(packer.terms, tuple(str(file.absolute()) for file in files)))
    command = [sys.executable, "-m", _MODULE]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both were asked for
            _tell(process.stdin, job)
            yield process.stdout
        finally:
            process.kill()


def _tell(told: IO[bytes], job: bytes) -> None:
    try:
        with told:
            told.write(job)
    except BrokenPipeError as exc:
        raise _ended_early() from exc


def _next(answers: IO[bytes]) -> bytes:
    length = answers.read(LENGTH)
    answer = answers.read(int.from_bytes(length, "little"))
    if len(length) < LENGTH or len(answer) < int.from_bytes(length, "little"):
        raise _ended_early()
    return answer


def _ended_early() -> PullError:
    return PullError(
        "the process that reads the files of an export ended before it was done",
        where="pull",
        do="run again; if it persists, look whether the machine has too little memory",
        number=32,
        transient=True,
    )
