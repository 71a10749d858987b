"""A process that makes the Procedures of files ready for the ledger while another one writes them.

It is started with ``python -m``, told by its standard input what to do, and answers on its standard output: a frame
for each block of lines, in order. It knows nothing of code tables: it numbers the codes that it meets, and who started
it looks them up. It imports neither a database nor HTTP, so that it is small.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import BinaryIO, Final, cast
from zoneinfo import ZoneInfo

import msgspec

from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.pull.packing import Packer, Packing, Reads, Terms
from io_fhir_adapter.pull.plain_text import blocks_of
from io_fhir_adapter.pull.seldom import collecting_seldom
from io_fhir_adapter.pull.seen import Seen, marks_of

__all__ = ["LENGTH", "NUMBERS", "Frame", "Job", "Row", "main"]

LENGTH: Final = 4
"""Bytes before each frame, little-endian: how long it is; none is empty."""
NUMBERS: Final = 1 << 16
"""So many numbers of codes there are: then they begin anew, when the codes that had them are long forgotten."""
_AHEAD: Final = 6  # frames of about a megabyte that may wait to be taken
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_LINES: Final = msgspec.json.Encoder()

Row = tuple[str, str, str, str, int, str, bytes, str]
"""id, patient, status, day, number of the code, digest, data, updated."""


class Job(msgspec.Struct, frozen=True):
    """What to do: by which terms, and the files."""

    terms: Terms
    files: tuple[str, ...]


class Frame(msgspec.Struct, array_like=True):
    """One block of lines.

    Attributes:
        rows: Procedures that are ready, but for what the tables say of their codes.
        codes: Codes that were not met before, in the order of their numbers.
        seen: The marks of their ids, as :attr:`Seen.parts`.
        others: Those that need a closer look, one in a line.
        block: The block as it is, where all of it needs one.
        last: Whether everything was read.
    """

    rows: list[Row] = []
    codes: list[ProcedureFact] = []
    seen: list[bytes] = []
    others: bytes = b""
    block: bytes = b""
    last: bool = False


class _Numbers:
    """Numbers codes instead of looking them up."""

    def __init__(self) -> None:
        self._count = 0
        self.fresh: list[ProcedureFact] = []

    def __call__(self, fact: ProcedureFact) -> tuple[int, bool]:
        self.fresh.append(fact)
        self._count += 1
        return (self._count - 1) % NUMBERS, False


def frames(job: Job) -> Iterator[Frame]:
    """The frames of a job, the last one empty."""
    terms, numbers = job.terms, _Numbers()
    reads = cast(Reads, numbers)  # a number in the place of what the tables say
    packer = Packer(terms.source, ZoneInfo(terms.zone), terms.not_after, terms.scope, reads)
    for path in job.files:
        for block in blocks_of(Path(path)):
            packing = packer.pack_lines(block)
            fresh, numbers.fresh = numbers.fresh, []
            yield _frame(packing, fresh) if packing is not None else Frame(codes=fresh, block=block)
    yield Frame(last=True)


def _frame(packing: Packing, fresh: list[ProcedureFact]) -> Frame:
    seen = Seen()
    seen.add(marks_of([one.id for one in packing.packed]))
    rows = [
        (one.id, one.patient, one.status, one.day, int(one.mapped), one.digest, one.data, one.updated)
        for one in packing.packed
    ]
    return Frame(rows, fresh, seen.parts, _LINES.encode_lines(packing.others) if packing.others else b"")


def main(told: BinaryIO, answers: BinaryIO) -> None:
    """Does one job. It ends at once where nobody takes its answers any more."""
    job = msgspec.msgpack.decode(told.read(), type=Job)
    waiting: Queue[bytes] = Queue(_AHEAD)

    def send() -> None:
        while answer := waiting.get():
            try:
                answers.write(len(answer).to_bytes(LENGTH, "little"))
                answers.write(answer)
                answers.flush()
            except OSError:
                os._exit(1)  # whoever started this process is gone

    sender = Thread(target=send)
    sender.start()
    try:
        with collecting_seldom():
            for frame in frames(job):
                waiting.put(_ENCODE(frame))
    finally:
        waiting.put(b"")
        sender.join()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
