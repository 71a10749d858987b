"""Procedures of large files made ready for the ledger by a process of their own.

It begins while the files are downloaded, stretch by stretch, and goes on while this process writes what is ready. What
it makes is the same, byte for byte, and comes in the same order. What that process does not do, because it was killed
or the disk has no room, is done here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.ledger.packed_form import PackedProcedure
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.pull.bulk_files import part_of, spooling
from io_fhir_adapter.pull.packing import Packer, Packing
from io_fhir_adapter.pull.packing_worker import ANSWER, Frame, Stretch, prefixed, read_prefixed
from io_fhir_adapter.pull.plain_text import blocks_of, is_compressed

__all__ = ["Aside", "Block"]

_LARGE: Final = 8 << 20  # bytes: with less, the process would be done before it has begun
_STRETCH: Final = 4 << 20  # bytes
_FILES_AHEAD: Final = 2  # of those that are compressed
_LEAVE: Final = 1 << 30  # bytes of the disk that are not for what is made ready, besides twice what was downloaded
_REMEMBERED: Final = 20_000  # codes
_MODULE: Final = "io_fhir_adapter.pull.packing_worker"
_FRAMES: Final = msgspec.msgpack.Decoder(Frame)
_CODES: Final = msgspec.msgpack.Decoder(ProcedureFact)


class Block(NamedTuple):
    """A block of lines: what was made of it, and those lines that have to be looked at."""

    packing: Packing | None
    text: bytes


class Aside:
    """A process that makes Procedures of files ready; started when there is enough for it to do. To be closed.

    Args:
        packer: What would make them ready here.

    Where the process cannot be started, is killed or has no room, everything is made ready here.
    """

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._is_able = packer.terms is not None and bool(sys.executable) and (os.cpu_count() or 1) > 1
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0  # of the next stretch
        self._size = 0  # of all files, as far as they are known
        self._told: dict[Path, list[Stretch]] = {}
        self._ends: dict[Path, int] = {}  # up to where each file is told
        self._complete: set[Path] = set()
        self._waiting: list[Stretch] = []  # told before there was a process
        self._answered: dict[int, int] = {}
        self._verdicts: dict[bytes, tuple[bool, bool]] = {}

    def close(self) -> None:
        """Ends the process and forgets all files, so that their folder may be removed."""
        for known in (self._told, self._ends, self._complete, self._waiting, self._answered):
            known.clear()
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what it was to be told and did not hear
                pipe.close()  # type: ignore[union-attr]
        process.wait()

    def reached(self, path: Path, end: int) -> None:
        """Notes how far the download of a file has come.

        Args:
            path: What it is called when it is complete; until then as :func:`part_of` says.
            end: Where its last whole line ends, of one that is not compressed; 0 as it begins, for the first time or
                anew.

        Raises:
            PullError: What was made of it before cannot be removed.
        """
        if not self._is_able:
            return
        if end == 0:
            self._forget(path)
        while (start := self._ends.get(path, 0)) + _STRETCH <= end:
            self._tell(path, start, start + _STRETCH, _STRETCH)

    def complete(self, path: Path) -> None:
        """Notes that a file is there as a whole.

        Raises:
            PullError: The file cannot be read.
        """
        if not self._is_able:
            return
        with spooling(path.parent):
            size, is_whole_only = path.stat().st_size, is_compressed(path)
        self._complete.add(path)
        if is_whole_only:
            self._size += size
            return  # it may become many times as large, and is told when it is next
        self.reached(path, size)
        start = self._ends.get(path, 0)
        if start < size:
            self._tell(path, start, None, size - start)

    def blocks(self, paths: Sequence[Path]) -> Iterator[Block] | None:
        """The Procedures of files, block by block, in order.

        Returns:
            None where it is quicker to read them here, there is no way to do it otherwise, or one is not complete.
        """
        is_worthwhile = self._is_able and self._size >= _LARGE
        return self._blocks(paths) if is_worthwhile and self._complete.issuperset(paths) else None

    def _blocks(self, paths: Sequence[Path]) -> Iterator[Block]:
        self._send()
        for place, path in enumerate(paths):
            for one in paths[place : place + _FILES_AHEAD]:
                if one not in self._told:
                    self._tell(one, 0, None, 0)
            for stretch in self._told[path]:
                if self._await(stretch.number):
                    yield from self._made(stretch)
                else:
                    yield from self._read_here(stretch)
                self._remove(stretch)

    def _made(self, stretch: Stretch) -> Iterator[Block]:
        with spooling(Path(stretch.into).parent), Path(stretch.into).open("rb") as frames:
            while frame := self._next(frames):
                yield self._block(_FRAMES.decode(frame))

    def _read_here(self, stretch: Stretch) -> Iterator[Block]:
        with spooling(Path(stretch.path).parent):
            for block in blocks_of(Path(stretch.path), stretch.start, stretch.end):
                packing = self._packer.pack_lines(block)
                yield Block(None, block) if packing is None else Block(packing, b"")

    def _remove(self, stretch: Stretch) -> None:
        with spooling(Path(stretch.into).parent):
            Path(stretch.into).unlink(missing_ok=True)

    def _forget(self, path: Path) -> None:
        for stretch in self._told.pop(path, ()):
            self._remove(stretch)
        self._waiting = [stretch for stretch in self._waiting if stretch.path != str(path)]
        self._ends.pop(path, None)

    def _next(self, frames: BinaryIO) -> bytes:
        """The next frame; empty behind the last one."""
        if (frame := read_prefixed(frames)) is None:
            raise PullError(
                "what was made ready of a file of the export cannot be read back",
                where="pull",
                do="run again; if it persists, look at the disk of bulk.folder",
                number=32,
                transient=True,
            )
        return frame

    def _block(self, frame: Frame) -> Block:
        known = self._verdicts
        ready = [
            PackedProcedure(
                name, patient, status, day, *(known.get(code) or self._verdict(code)), digest, data, updated
            )
            for name, patient, status, day, code, digest, data, updated in frame.rows
        ]
        return Block(Packing(ready, ()) if ready else None, frame.rest)

    def _verdict(self, code: bytes) -> tuple[bool, bool]:
        """What the tables say of a code; hospitals write the same ones again and again."""
        if len(self._verdicts) >= _REMEMBERED:
            self._verdicts.clear()
        verdict = self._verdicts[code] = self._packer.reads(_CODES.decode(code))
        return verdict

    def _tell(self, path: Path, start: int, end: int | None, size: int) -> None:
        into = path.with_suffix(f".{start}.packed")  # that of an earlier attempt is written anew
        stretch = Stretch(self._number, str(path), str(part_of(path)), start, end, str(into), 2 * self._size + _LEAVE)
        self._told.setdefault(path, []).append(stretch)
        self._number += 1
        self._ends[path] = start + size
        self._size += size
        self._waiting.append(stretch)
        if self._size >= _LARGE:
            self._send()

    def _send(self) -> None:
        if not (self._is_able and self._waiting):
            return
        messages = [msgspec.msgpack.encode(stretch) for stretch in self._waiting]
        self._waiting.clear()
        try:
            if self._process is None:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-P", "-m", _MODULE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                messages.insert(0, msgspec.msgpack.encode(self._packer.terms))
            assert self._process.stdin is not None  # noqa: S101 - it was asked for
            self._process.stdin.write(b"".join(map(prefixed, messages)))
            self._process.stdin.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        self._end()
        self._is_able = False

    def _await(self, number: int) -> bool:
        """Waits until the process is done with a stretch; says whether it made it ready."""
        while number not in self._answered:
            if self._process is None:
                return False
            assert self._process.stdout is not None  # noqa: S101 - it was asked for
            said = self._process.stdout.read(ANSWER.size)
            if len(said) < ANSWER.size:
                self._give_up()
                return False
            done, error = ANSWER.unpack(said)
            self._answered[done] = error
        return not self._answered.pop(number)
