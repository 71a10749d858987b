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
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from io_fhir_adapter.errors import InputError
from io_fhir_adapter.fhir.structs import ProcedureGlance
from io_fhir_adapter.pull.decode import DECODERS, Item, Resource, decode_resource, expand_bundle, reason_of

__all__ = ["Block", "InputFile", "find_inputs", "read_input"]

_HEAD = 1 << 20
_BLOCK = 1 << 18  # stays in a processor's cache while it is decoded and looked at
_STDIN = "-"
_NDJSON = (".ndjson", ".jsonl")
_READABLE = (".json", *_NDJSON)
_GZIP_MAGIC = b"\x1f\x8b"
_GLANCE: Final = msgspec.json.Decoder(ProcedureGlance)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input: its path, None for stdin, and the name used in messages."""

    path: Path | None
    name: str


class LineIndex:
    """Line numbers by byte: counted when one is asked for in a plain file, as the lines go by in any other input."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._byte = 0
        self._line = 1
        self._fed = b""

    def feed(self, block: bytes) -> None:
        """Takes the next block of an input that cannot be read twice."""
        if self._path is None:
            self._byte += len(self._fed)
            self._line += self._fed.count(b"\n")
            self._fed = block

    def at(self, byte: int) -> int:
        """The number of the line that starts at a byte, counted from 1; bytes are asked for in ascending order."""
        if self._path is None:
            return self._line + self._fed.count(b"\n", 0, byte - self._byte)
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
        raw: The lines that ``glances`` were decoded from.
    """

    name: str
    lines: LineIndex
    start: int
    resource_type: str
    resources: Sequence[Resource]
    glances: Sequence[ProcedureGlance] = ()
    raw: bytes = b""

    @property
    def first_line(self) -> int:
        """Line number of the first one, counted from 1."""
        return self.lines.at(self.start)

    def position(self, line: int) -> str:
        """File and line of the line of ``raw`` with that number, counted from 0."""
        return f"{self.name}:{self.first_line + line}"

    def whole(self, offsets: Sequence[int]) -> Iterator[tuple[int, Resource | None, str]]:
        """The Procedures at these offsets of ``glances`` (ascending), decoded fully.

        Yields:
            The number of its line in ``raw``, the struct, or None and what is wrong with it.
        """
        if not offsets:
            return
        decode = DECODERS[self.resource_type].decode
        lines = io.BytesIO(self.raw).readlines()  # twice as fast as bytes.split, which looks at byte after byte
        numbers: Sequence[int] = range(len(lines))
        if len(lines) > len(self.glances):
            numbers = [number for number in numbers if lines[number].strip()]  # a blank line holds no resource
        for number in (numbers[offset] for offset in offsets):
            try:
                yield number, decode(lines[number]), ""
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
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
            candidates = [p for p in inside if _suffix(p) in (*_READABLE, ".xml")]
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


def _suffix(path: Path) -> str:
    name = path.name.removesuffix(".gz").removesuffix(".gzip")
    return Path(name).suffix.lower()


def read_input(source: InputFile, stdin: BinaryIO | None = None, *, glance: bool = False) -> Iterator[Block | Item]:
    """Everything in one input, in order, in bounded memory (a Bundle is held whole).

    Args:
        source: What to read.
        stdin: Where stdin is read from.
        glance: Decode blocks of Procedures at a glance only.

    Raises:
        InputError: The input as a whole cannot be read: it is XML, or reading it fails. What was read
            before the failure has been yielded.
    """
    try:
        with _open(source, stdin) as handle:
            yield from _read(handle, source, glance=glance)
    except (OSError, EOFError, zlib.error) as exc:
        reason = (
            "the gzip data ends early or is damaged" if isinstance(exc, (EOFError, zlib.error)) else "cannot be read"
        )
        if isinstance(exc, gzip.BadGzipFile):
            reason = "the gzip data is damaged"
        raise InputError(reason, where=source.name, do="fetch the file again", number=2) from exc


def _open(source: InputFile, stdin: BinaryIO | None) -> BinaryIO:
    raw = source.path.open("rb") if source.path is not None else (stdin or sys.stdin.buffer)
    handle = cast(BinaryIO, raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw)))
    if cast(io.BufferedReader, handle).peek(2)[:2] == _GZIP_MAGIC:
        return cast(BinaryIO, _Unzipped(handle))
    return handle


class _Unzipped(gzip.GzipFile):
    """Gzipped data; where it is damaged, what stood before the damage is given first and the error raised after."""

    _PIECE = 1 << 16

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__(fileobj=handle, mode="rb")
        self._handle = handle
        self._damage: EOFError | OSError | zlib.error | None = None

    def close(self) -> None:
        """Closes the compressed input too, which GzipFile leaves open."""
        super().close()
        self._handle.close()

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, everything where it is negative.

        Raises:
            EOFError, OSError, zlib.error: The data is damaged here.
        """
        pieces: list[bytes] = []
        left = size if size is not None and size >= 0 else None
        while self._damage is None and left != 0:
            try:
                piece = self.read1(self._PIECE if left is None else min(left, self._PIECE))
            except (EOFError, OSError, zlib.error) as exc:
                self._damage = exc
                break
            if not piece:
                break
            pieces.append(piece)
            left = None if left is None else left - len(piece)
        if self._damage is not None and (not pieces or left is None):
            raise self._damage
        return b"".join(pieces)

    def readline(self, size: int | None = -1) -> bytes:
        """The rest of the line; nothing where the data is damaged, which the next :meth:`read` says."""
        if self._damage is None:
            try:
                return super().readline(size)
            except (EOFError, OSError, zlib.error) as exc:
                self._damage = exc
        return b""


def _read(handle: BinaryIO, source: InputFile, *, glance: bool) -> Iterator[Block | Item]:
    head = handle.read(_HEAD)
    text = head.removeprefix(_BOM).lstrip()
    if text[:1] == b"<":
        raise InputError(
            "the file is XML", where=source.name, do="convert it to FHIR JSON; this program reads JSON only", number=3
        )
    if not text:
        return
    if _is_ndjson(head.removeprefix(_BOM), source):
        yield from _lines(head.removeprefix(_BOM), handle, source, glance=glance)
        return
    whole = head.removeprefix(_BOM) + handle.read()
    item = decode_resource(whole, source.name)
    if item.problem == "not valid JSON" and b"\n{" in whole.strip():
        yield from _lines(
            whole, cast(BinaryIO, io.BytesIO()), source, glance=glance
        )  # lines after all, the first of them broken
    else:
        yield from _opened(item, whole)


def _is_ndjson(head: bytes, source: InputFile) -> bool:
    if source.path is not None and _suffix(source.path) in _NDJSON:
        return True
    first, newline, rest = head.lstrip().partition(b"\n")
    if not newline or not rest.strip():
        return False
    try:
        msgspec.json.decode(first, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


def _opened(item: Item, data: bytes) -> Iterable[Item]:
    if item.resource_type == "Bundle" and not item.problem:
        return expand_bundle(data, item.position)
    return (item,)


def _lines(head: bytes, handle: BinaryIO, source: InputFile, *, glance: bool) -> Iterator[Block | Item]:
    """NDJSON in blocks of whole lines; ``head`` is what was read already, without a byte order mark."""
    plain = isinstance(handle, io.BufferedReader) and source.path is not None
    index = LineIndex(source.path if plain else None)
    start = handle.tell() - len(head) if plain else 0
    kind, block = "", head
    while block:
        if not block.endswith(b"\n"):
            block += handle.readline()
        index.feed(block)
        kind = kind or decode_resource(block.partition(b"\n")[0], "").resource_type
        decoder = _GLANCE if glance and kind == "Procedure" else DECODERS.get(kind)
        decoded = _whole_block(block, decoder) if decoder is not None else None
        if decoded is None:
            kind = ""
            yield from _line_by_line(block, Block(source.name, index, start, "", ()))
        elif decoder is _GLANCE:
            yield Block(source.name, index, start, kind, (), decoded, block)
        elif len(decoded) == block.count(b"\n") + (not block.endswith(b"\n")):
            yield Block(source.name, index, start, kind, decoded)
        else:  # blank lines: line numbers have to be told one by one
            yield from _line_by_line(block, Block(source.name, index, start, "", ()))
        start += len(block)
        block = handle.read(_BLOCK)


def _whole_block(block: bytes, decoder: msgspec.json.Decoder[Any]) -> list[Any] | None:
    """The block decoded at once, one resource a line; None where it holds other types or broken lines."""
    try:
        return decoder.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _line_by_line(block: bytes, place: Block) -> Iterator[Item]:
    for number, line in enumerate(block.splitlines(), start=place.first_line):
        if line.strip():
            yield from _opened(decode_resource(line, f"{place.name}:{number}"), line)
