"""A process that makes the Procedures of files ready for the ledger while another one downloads or writes.

It is started with ``python -m`` and told by its standard input which stretches of which files to read. What it makes of
a stretch it writes into a file; then it says on its standard output that it is done. It knows nothing of code tables:
it hands over the codes that it meets, and who started it looks them up. It imports neither a database nor HTTP, so that
it is small.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import PriorityQueue
from shutil import disk_usage
from threading import Thread
from typing import BinaryIO, Final, cast
from zoneinfo import ZoneInfo

import msgspec

from io_fhir_adapter.pull.packing import Packer, Reads, Terms
from io_fhir_adapter.pull.plain_text import blocks_of
from io_fhir_adapter.pull.seldom import collecting_seldom

__all__ = ["ANSWER", "Frame", "Stretch", "main", "pack", "prefixed", "read_prefixed"]

_LENGTH: Final = 4  # bytes before whatever is told or made, little-endian: how long it is
ANSWER: Final = struct.Struct("<II")
"""The number of a stretch that is done with, and that of the system's error; zero where there was none."""
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_LINES: Final = msgspec.json.Encoder()
_TERMS: Final = msgspec.msgpack.Decoder(Terms)

_Row = tuple[str, str, str, str, bytes, str, bytes, str]
"""id, patient, status, day, its code as a ProcedureFact with nothing else in MessagePack, digest, data, updated."""


class Stretch(msgspec.Struct, frozen=True):
    """What to read, and where what is made of it is to go.

    Attributes:
        number: Its own, higher than those before it.
        path: A file of Procedures alone, compressed maybe, as it is called when it is complete.
        part: What it is called until then.
        start: Where the stretch begins: the lines that begin in it are read.
        end: Where it ends; None for the end of the file.
        into: The file that takes the frames.
        leave: So many bytes of the disk are left to others.
    """

    number: int
    path: str
    part: str
    start: int
    end: int | None
    into: str
    leave: int


class Frame(msgspec.Struct, array_like=True):
    """One block of lines.

    Attributes:
        rows: Procedures that are ready, but for what the tables say of their codes.
        rest: Those that need a closer look, one in a line; or the block as it is, where all of it needs one.
    """

    rows: list[_Row] = []
    rest: bytes = b""


_STRETCHES: Final = msgspec.msgpack.Decoder(Stretch)


def prefixed(message: bytes) -> bytes:
    """A message with its length before it."""
    return len(message).to_bytes(_LENGTH, "little") + message


def read_prefixed(stream: BinaryIO) -> bytes | None:
    """The next message of a stream; None where it ends or breaks off."""
    length = int.from_bytes(head, "little") if len(head := stream.read(_LENGTH)) == _LENGTH else -1
    message = stream.read(length) if length >= 0 else b""
    return message if len(message) == length else None


def _packer_of(terms: Terms) -> Packer:
    """Makes Procedures ready, with their code in the place of what the tables say of it."""
    reads = cast(Reads, lambda code: (_ENCODE(code), False))
    return Packer(terms.source, ZoneInfo(terms.zone), terms.not_after, terms.scope, reads)


def _frame(packer: Packer, block: bytes) -> Frame:
    packing = packer.pack_lines(block)
    if packing is None:
        return Frame(rest=block)
    rows = [
        (one.id, one.patient, one.status, one.day, cast(bytes, one.mapped), one.digest, one.data, one.updated)
        for one in packing.packed
    ]
    return Frame(rows, _LINES.encode_lines(packing.others) if packing.others else b"")


def pack(packer: Packer, stretch: Stretch) -> int:
    """Makes one stretch ready; gives the number of the system's error, zero where there was none."""
    try:
        with Path(stretch.into).open("wb") as into:
            for block in _blocks(stretch):
                _leave_room(stretch)
                into.write(prefixed(_ENCODE(_frame(packer, block))))
            into.write(prefixed(b""))
    except (OSError, EOFError, zlib.error) as exc:  # what lay there was fetched anew meanwhile, or the disk is full
        with suppress(OSError):
            Path(stretch.into).unlink(missing_ok=True)
        return getattr(exc, "errno", None) or errno.EIO
    return 0


def _leave_room(stretch: Stretch) -> None:
    if disk_usage(stretch.into).free < stretch.leave:
        raise OSError(errno.ENOSPC, "the rest of the disk is for others")


def _blocks(stretch: Stretch) -> Iterator[bytes]:
    try:
        yield from blocks_of(Path(stretch.part), stretch.start, stretch.end)
    except FileNotFoundError:  # it has its own name by now
        yield from blocks_of(Path(stretch.path), stretch.start, stretch.end)


def main(told: BinaryIO, answers: BinaryIO) -> None:
    """Reads stretches, those of the first file first: in this order they are waited for.

    It ends at once where nobody tells it any more or takes its answers.
    """
    waiting: PriorityQueue[tuple[str, int, Stretch]] = PriorityQueue()
    packer = _packer_of(_TERMS.decode(read_prefixed(told) or b""))

    def listen() -> None:  # who tells must never have to wait
        try:
            while message := read_prefixed(told):
                stretch = _STRETCHES.decode(message)
                waiting.put((stretch.path, stretch.number, stretch))
        finally:
            os._exit(1)  # whoever started this process is gone, or there is no memory

    Thread(target=listen, daemon=True).start()
    try:
        with collecting_seldom():
            while True:
                _, number, stretch = waiting.get()
                answers.write(ANSWER.pack(number, pack(packer, stretch)))
                answers.flush()
    finally:
        os._exit(1)  # at once: the other thread holds what an orderly end would wait for


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
