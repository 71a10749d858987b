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

_BLOCK = 1 << 20
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


@dataclass(frozen=True, slots=True)
class Block:
    """Resources of one type that stood on consecutive lines, decoded together.

    Attributes:
        name: Name of the input.
        first_line: Line number of the first one, counted from 1.
        resource_type: Their type.
        resources: The decoded structs, one a line.
        glances: Procedures decoded at a glance only, instead of ``resources``; :meth:`whole` decodes one fully.
        raw: The lines that ``glances`` were decoded from.
    """

    name: str
    first_line: int
    resource_type: str
    resources: Sequence[Resource]
    glances: Sequence[ProcedureGlance] = ()
    raw: bytes = b""

    def whole(self, offsets: Sequence[int]) -> Iterator[tuple[int, Item]]:
        """The lines at these offsets (ascending, from 0), decoded fully."""
        line, start = 0, 0
        for offset in offsets:
            while line < offset:
                start = self.raw.index(b"\n", start) + 1
                line += 1
            end = self.raw.find(b"\n", start)
            text = self.raw[start : end if end >= 0 else len(self.raw)]
            position = f"{self.name}:{self.first_line + offset}"
            try:
                yield offset, Item(position, self.resource_type, DECODERS[self.resource_type].decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                yield offset, Item(position, self.resource_type, None, "", reason_of(exc))


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
        self._damage: EOFError | OSError | zlib.error | None = None

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
    head = handle.read(_BLOCK)
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
        yield from _lines(whole, io.BytesIO(), source, glance=glance)  # lines after all, the first of them broken
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
    """NDJSON in blocks of whole lines."""
    line_number, kind, block = 1, "", head
    while block:
        if not block.endswith(b"\n"):
            block += handle.readline()
        kind = kind or decode_resource(block.partition(b"\n")[0], "").resource_type
        decoder = _GLANCE if glance and kind == "Procedure" else DECODERS.get(kind)
        decoded = _whole_block(block, decoder) if decoder is not None else None
        if decoded is None:
            kind = ""
            yield from _line_by_line(block, line_number, source)
            line_number += block.count(b"\n")
        else:
            if decoder is _GLANCE:
                yield Block(source.name, line_number, kind, (), decoded, block)
            else:
                yield Block(source.name, line_number, kind, decoded)
            line_number += len(decoded)
        block = handle.read(_BLOCK)


def _whole_block(block: bytes, decoder: msgspec.json.Decoder[Any]) -> list[Any] | None:
    """The block decoded at once, one resource a line; None where it holds other types, blank or broken lines."""
    try:
        decoded = decoder.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    return decoded if len(decoded) == lines else None


def _line_by_line(block: bytes, first_line: int, source: InputFile) -> Iterator[Block | Item]:
    run: list[Resource] = []
    run_start, run_type = first_line, ""
    for number, line in enumerate(block.splitlines(), start=first_line):
        item = decode_resource(line, f"{source.name}:{number}") if line.strip() else None
        resource = item.resource if item is not None else None
        if run and (resource is None or item is None or item.resource_type != run_type):
            yield Block(source.name, run_start, run_type, run)
            run = []
        if item is None:
            continue
        if resource is None:
            yield from _opened(item, line)
            continue
        if not run:
            run_start, run_type = number, item.resource_type
        run.append(resource)
    if run:
        yield Block(source.name, run_start, run_type, run)
