"""Reading FHIR from files: NDJSON, Bundles and single resources, plain or gzipped, folders, globs and stdin.

What can be read is read; what cannot is reported with file, line and reason, and the rest goes on.
NDJSON files of one type are decoded a block at a time, which is what makes millions of lines quick.
"""

from __future__ import annotations

import glob
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, cast

import msgspec

from io_fhir_adapter.errors import InputError
from io_fhir_adapter.fhir.structs import ProcedureGlance
from io_fhir_adapter.pull.decode import DECODERS, UNREADABLE, Item, Resource, decode_resource, expand_bundle, reason_of
from io_fhir_adapter.pull.unzipped import Unzipped

__all__ = [
    "NDJSON", "READABLE", "Block", "InputFile", "LineIndex", "Span", "find_inputs", "further_on", "read_input",
    "read_on", "spans_of", "suffix_of",
]  # fmt: skip

_HEAD = 1 << 20
_BLOCK = 1 << 18  # stays in a processor's cache while it is decoded and looked at; the head is a multiple of it
_STDIN = "-"
NDJSON: Final = (".ndjson", ".jsonl")
READABLE: Final = (".json", *NDJSON, ".xml")
"""Endings of the files that are looked at in a folder."""
_GZIP_MAGIC = b"\x1f\x8b"
_GLANCE: Final = msgspec.json.Decoder(ProcedureGlance)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input: its path, None for stdin, and the name used in messages."""

    path: Path | None
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """The lines of a plain NDJSON file that begin in a range of its bytes, see :func:`spans_of`.

    Attributes:
        start: The first byte of the range.
        end: The byte after it; None where it goes to the end of the file.
    """

    start: int
    end: int | None


class LineIndex:
    """Line numbers by byte: counted when one is asked for in a plain file, as the lines go by in any other input."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._byte = 0
        self._line = 1
        self._fed = b""
        self._fed_ends = 0

    def feed(self, block: bytes, ends: int) -> None:
        """Takes the next block of an input that cannot be read twice, and how many lines end in it."""
        if self._path is None:
            self._byte += len(self._fed)
            self._line += self._fed_ends
            self._fed, self._fed_ends = block, ends

    @property
    def ended(self) -> int:
        """How many lines have ended in what was fed."""
        return self._line - 1 + self._fed_ends

    def at(self, byte: int) -> int:
        """The number of the line that starts at a byte, counted from 1; bytes are asked for in ascending order."""
        if self._path is None:
            return self._line + (self._fed.count(b"\n", 0, byte - self._byte) if byte > self._byte else 0)
        if byte < self._byte:
            self._byte, self._line = 0, 1
        with self._path.open("rb") as handle:
            handle.seek(self._byte)
            while self._byte < byte:
                piece = handle.read(min(_HEAD, byte - self._byte))
                if not piece:
                    break
                self._byte += len(piece)
                self._line += piece.count(b"\n")
        return self._line


@dataclass(frozen=True, slots=True)
class Block:
    """Resources of one type that stood on consecutive lines, decoded together.

    Attributes:
        name: Name of the input.
        lines: Tells line numbers, where one is asked for.
        start: Place of the first byte in the (decompressed) input.
        resource_type: Their type.
        resources: The decoded structs, one a line.
        glances: Procedures decoded at a glance only, instead of ``resources``; :meth:`whole` decodes one fully.
        written: The lines that ``glances`` were decoded from, blank ones among them.
    """

    name: str
    lines: LineIndex
    start: int
    resource_type: str
    resources: Sequence[Resource]
    glances: Sequence[ProcedureGlance] = ()
    written: Sequence[bytes] = ()

    @property
    def first_line(self) -> int:
        """Line number of the first one, counted from 1."""
        return self.lines.at(self.start)

    def position(self, line: int) -> str:
        """File and line of the line of ``written`` with that number, counted from 0."""
        return f"{self.name}:{self.first_line + line}"

    def whole(self, offsets: Sequence[int]) -> Iterator[tuple[int, Resource | None, str]]:
        """The Procedures at these offsets of ``glances`` (ascending), decoded fully.

        Yields:
            The number of its line in ``written``, the struct, or None and what is wrong with it.
        """
        if not offsets:
            return
        decode = DECODERS[self.resource_type].decode
        lines = self.written
        numbers: Sequence[int] = range(len(lines))
        if len(lines) > len(self.glances):
            numbers = [number for number in numbers if lines[number].strip()]  # a blank line holds no resource
        for number in (numbers[offset] for offset in offsets):
            try:
                yield number, decode(lines[number]), ""
            except UNREADABLE as exc:
                yield number, None, reason_of(exc)


def find_inputs(arguments: Sequence[str]) -> list[InputFile]:
    """The files behind paths, folders (searched all the way down), globs and ``-`` for stdin, in a stable order.

    Raises:
        InputError: An argument names nothing, or an XML file is named directly.
    """
    found: dict[str, InputFile] = {}
    for argument in arguments:
        if argument == _STDIN:
            found[_STDIN] = InputFile(None, "stdin")
            continue
        path = Path(argument)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            candidates = [p for p in inside if suffix_of(p) in READABLE]
            if not candidates:
                raise InputError(
                    "the folder holds no .json or .ndjson file",
                    where=argument,
                    do="name a folder with FHIR JSON, Bundles or NDJSON",
                )
        elif path.is_file():
            candidates = [path]
        else:
            candidates = sorted(Path(p) for p in glob.glob(argument, recursive=True) if Path(p).is_file())  # noqa: PTH207
            if not candidates:
                raise InputError("there is no such file or folder", where=argument, do="check the path")
        for candidate in candidates:
            found.setdefault(str(candidate), InputFile(candidate, str(candidate)))
    return list(found.values())


def suffix_of(path: PurePath) -> str:
    """The ending that says what a file holds, in small letters; what says that it is gzipped is passed over."""
    name = path.name.removesuffix(".gz").removesuffix(".gzip")
    return PurePath(name).suffix.lower()


def spans_of(source: InputFile, size: int) -> list[Span]:
    """A large plain NDJSON file in ranges of about ``size`` bytes, in order; one of everything for any other input.

    They begin where blocks begin, so that every block is the same as when the file is read in one go.
    """
    whole = [Span(0, None)]
    step = max(size // _BLOCK, 1) * _BLOCK
    first = max(step, _HEAD)
    if source.path is None:
        return whole
    try:
        if source.path.stat().st_size <= first + step // 2:
            return whole
        with source.path.open("rb") as handle:
            head = handle.read(_HEAD)
        starts = [0, *range(first, source.path.stat().st_size, step)]
    except OSError:  # which reading it will say
        return whole
    text = head.removeprefix(_BOM)
    if head.startswith(_GZIP_MAGIC) or text.lstrip()[:1] in {b"", b"<"} or not _is_ndjson(text, source):
        return whole
    return [Span(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def further_on(position: str, name: str, lines: int) -> str:
    """A position in an input whose lines were counted from that many lines on; one without a line stays."""
    head, tail = position[: len(name) + 1], position[len(name) + 1 :]
    number, space, rest = tail.partition(" ")
    return f"{head}{int(number) + lines}{space}{rest}" if lines and head == f"{name}:" else position


def read_input(
    source: InputFile,
    stdin: BinaryIO | None = None,
    *,
    glance: bool = False,
    span: Span | None = None,
    index: LineIndex | None = None,
) -> Iterator[Block | Item]:
    """Everything in one input, in order, in bounded memory (a Bundle is held whole).

    Args:
        source: What to read.
        stdin: Where stdin is read from.
        glance: Decode blocks of Procedures at a glance only.
        span: Only the lines of one of :func:`spans_of`, the first of which has number 1.
        index: Takes the lines of the span, and can then tell how many they were.

    Raises:
        InputError: The input as a whole cannot be read: it is XML, or reading it fails. What was read
            before the failure has been yielded.
    """
    try:
        with _open(source, stdin) as handle:
            reading = _Reading(source, glance, span or Span(0, None), index)
            yield from reading.rest(handle) if reading.span.start else reading.all(handle)
    except (OSError, EOFError, zlib.error) as exc:
        reason = (
            "the gzip data ends early or is damaged" if isinstance(exc, (EOFError, zlib.error)) else "cannot be read"
        )
        if isinstance(exc, gzip.BadGzipFile):
            reason = "the gzip data is damaged"
        raise InputError(reason, where=source.name, do="fetch the file again", number=2) from exc


def read_on(source: InputFile, stream: BinaryIO, index: LineIndex, *, glance: bool) -> Iterator[Block | Item]:
    """Whole lines from somewhere within NDJSON, which somebody else cut out of it; else as :func:`read_input`."""
    block = stream.read(_BLOCK)
    return _Reading(source, glance, Span(0, None), index).lines(block, stream, len(block))


def _open(source: InputFile, stdin: BinaryIO | None) -> BinaryIO:
    raw = source.path.open("rb") if source.path is not None else (stdin or sys.stdin.buffer)
    handle = cast(BinaryIO, raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw)))
    if cast(io.BufferedReader, handle).peek(2)[:2] == _GZIP_MAGIC:
        return cast(BinaryIO, Unzipped(handle))
    return handle


@dataclass(frozen=True, slots=True)
class _Reading:
    """How one input is read, see :func:`read_input`."""

    source: InputFile
    glance: bool
    span: Span
    index: LineIndex | None

    def all(self, handle: BinaryIO) -> Iterator[Block | Item]:
        """The input from its beginning."""
        head = handle.read(self._up_to(0, _HEAD))
        text = head.removeprefix(_BOM).lstrip()
        if text[:1] == b"<":
            raise InputError(
                "the file is XML",
                where=self.source.name,
                do="convert it to FHIR JSON; this program reads JSON only",
                number=3,
            )
        if not text:
            return
        if _is_ndjson(head.removeprefix(_BOM), self.source):
            yield from self.lines(head.removeprefix(_BOM), handle, len(head))
            return
        whole = head.removeprefix(_BOM) + handle.read()
        item = decode_resource(whole, self.source.name)
        if item.problem == "not valid JSON" and b"\n{" in whole.strip():
            # lines after all, the first of them broken
            yield from self.lines(whole, cast(BinaryIO, io.BytesIO()), len(whole))
        else:
            yield from _opened(item, whole)

    def rest(self, handle: BinaryIO) -> Iterator[Block | Item]:
        """The lines that begin in the span, which does not begin where the file does."""
        handle.seek(self.span.start - 1)
        handle.readline()
        start = handle.tell()
        if self.span.end is None or start < self.span.end:
            block = handle.read(self._up_to(start, _BLOCK))
            yield from self.lines(block, handle, start + len(block))

    def _up_to(self, place: int, size: int) -> int:
        """How many bytes there are to the next multiple of a size, or to the end of the span."""
        left = size - place % size
        return left if self.span.end is None else min(left, self.span.end - place)

    def lines(self, head: bytes, handle: BinaryIO, read: int) -> Iterator[Block | Item]:
        """NDJSON in blocks of whole lines, which end with the first line that goes up to a multiple of their size.

        Args:
            head: What was read already, without a byte order mark.
            handle: Where the rest comes from.
            read: How many bytes were read.
        """
        source, end = self.source, self.span.end
        plain = isinstance(handle, io.BufferedReader) and source.path is not None
        index = self.index or LineIndex(source.path if plain else None)
        start = read - len(head) if plain and self.index is None else 0
        block = head
        while block:
            if not block.endswith(b"\n"):
                line = handle.readline()
                block, read = block + line, read + len(line)
            lines = io.BytesIO(block).readlines()  # many times as fast as bytes.split and bytes.count
            index.feed(block, len(lines) - (not block.endswith(b"\n")))
            first = next((line for line in lines if not line.isspace()), b"")
            kind = decode_resource(first, "").resource_type
            decoder = _GLANCE if self.glance and kind == "Procedure" else DECODERS.get(kind)
            decoded = _whole_block(block, lines, decoder) if decoder is not None else None
            if decoded is not None and decoder is _GLANCE:
                yield Block(source.name, index, start, kind, (), decoded, lines)
            elif decoded is not None and len(decoded) == len(lines):
                yield Block(source.name, index, start, kind, decoded)
            else:  # where there are blank lines too, line numbers have to be told one by one
                yield from _line_by_line(block, Block(source.name, index, start, "", ()))
            start += len(block)
            if end is not None and read >= end:
                return
            block = handle.read(self._up_to(read, _BLOCK))
            read += len(block)


def _is_ndjson(head: bytes, source: InputFile) -> bool:
    if suffix_of(Path(source.name)) in NDJSON:
        return True
    first, newline, rest = head.lstrip().partition(b"\n")
    if not newline or not rest.strip():
        return False
    try:
        msgspec.json.decode(first, type=msgspec.Raw)
    except UNREADABLE:
        return False
    return True


def _opened(item: Item, data: bytes) -> Iterable[Item]:
    if item.resource_type == "Bundle" and not item.problem:
        return expand_bundle(data, item.position)
    return (item,)


def _whole_block(block: bytes, lines: Sequence[bytes], decoder: msgspec.json.Decoder[Any]) -> Sequence[Any] | None:
    """The block decoded at once; None where not every line that is not blank holds one resource, of one type."""
    try:
        decoded = decoder.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # else two stand in one line, or one in two
    return decoded if len(decoded) == len(lines) - sum(map(bytes.isspace, lines)) else None


def _line_by_line(block: bytes, place: Block) -> Iterator[Item]:
    for number, line in enumerate(block.splitlines(), start=place.first_line):
        if line.strip():
            yield from _opened(decode_resource(line, f"{place.name}:{number}"), line)
