"""The files of an export: downloaded into a folder, each proved whole before it gets its name.

A file under its own name is complete; whatever was cut off lies under another one and is fetched again. The folder
is readable by its owner alone and removed when the ledger has everything.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Final

import msgspec

from io_fhir_adapter.durable import to_disk
from io_fhir_adapter.errors import PullError, TransportError
from io_fhir_adapter.fhir.structs import Header
from io_fhir_adapter.pull.bulk_job import JobGone
from io_fhir_adapter.pull.bulk_manifest import ManifestFile
from io_fhir_adapter.pull.plain_text import GZIP_MAGIC, open_plain
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.transport.retry import pause

__all__ = ["Spool", "download", "part_of", "spooling"]

_EXPIRED: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_DOWNLOADS: Final = 2  # of a file that arrives whole and is not
_GZIP: Final = 16 + zlib.MAX_WBITS
_BOM: Final = b"\xef\xbb\xbf"
_PIECE: Final = 1 << 20
_OWNER_ONLY: Final = 0o700
_ACCEPT: Final = {"Accept": "application/fhir+ndjson, application/ndjson, */*;q=0.5"}
_HEADER: Final = msgspec.json.Decoder(Header)
_AGAIN: Final = "run again; if it persists, ask the server's vendor"


class _Unproved(PullError):  # noqa: N818 - the sentence it carries is the error
    """A file that arrived and is not whole."""


class _CutOff(Exception):  # noqa: N818 - carries an error
    """The answer began and did not arrive whole."""

    def __init__(self, cause: TransportError) -> None:
        super().__init__(cause.what)
        self.cause = cause


class Spool:
    """The folder of one source's downloads: a folder in it for each job.

    Args:
        folder: Where it lies; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, job: str, number: int) -> Path:
        """Where a file of a job lies, complete."""
        return self.folder / job / f"{number:06}.ndjson"

    def prepare(self, job: str) -> None:
        """Makes the folder of a job.

        Raises:
            PullError: It cannot be made.
        """
        with spooling(self.folder):
            for folder in (self.folder, self.folder / job):
                folder.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)

    def keep_only(self, jobs: set[str]) -> None:
        """Removes the files of all other jobs, and the folder where none is left.

        Raises:
            PullError: They cannot be removed.
        """
        with spooling(self.folder):
            if not self.folder.is_dir():
                return
            for folder in self.folder.iterdir():
                if folder.name not in jobs:
                    shutil.rmtree(folder)
            if not jobs:
                self.folder.rmdir()


def part_of(path: Path) -> Path:
    """What a file is called until it is known to be complete."""
    return path.with_suffix(".part")


@contextmanager
def spooling(folder: Path) -> Iterator[None]:
    """Turns errors of the file system, and of unpacking what lies there, into ours.

    Raises:
        PullError: The disk is full, the folder cannot be used, or a file was damaged.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error) as exc:
        raise PullError(
            f"the downloaded files cannot be kept ({getattr(exc, 'strerror', '') or type(exc).__name__})",
            where=str(folder),
            do="make room or correct the permissions, or name another folder under bulk.folder",
            number=26,
        ) from exc


async def download(
    client: FhirClient, file: ManifestFile, target: Path, *,
    authorised: bool, retries: int, longest_wait: float, reached: Callable[[int], None],
) -> None:  # fmt: skip
    """Fetches one file, proved whole; a file that is there already is not fetched again.

    Args:
        client: The server's client.
        file: What the manifest says of it.
        target: Where it is to lie.
        authorised: Whether credentials are to be sent, where the address is a trusted one.
        retries: How often to try again after a passing fault.
        longest_wait: The most seconds between tries.
        reached: Told where the last whole line ends that lies in the folder, in bytes: 0 as a download begins, for the
            first time or anew. Not told of a file that is compressed.

    Raises:
        JobGone: The server does not have the file any more.
        PullError: It is not whole, also the second time, or cannot be kept.
        TransportError: The server does not answer or refuses.
    """
    if await asyncio.to_thread(target.exists):
        return
    unproved = attempt = 0
    while True:
        try:
            with spooling(target.parent):
                await _fetch(client, file, target, reached, authorised=authorised)
        except _Unproved:
            unproved += 1
            if unproved == _DOWNLOADS:
                raise
        except TransportError as exc:
            if exc.status in _EXPIRED:
                raise JobGone(
                    f"the server does not give a file of its export any more (HTTP {exc.status})",
                    where=client.base_url,
                    do="run again; look after the server's limits if it persists",
                    number=24,
                ) from exc
            raise
        except _CutOff as exc:
            if not exc.cause.transient or attempt == retries:
                raise exc.cause from exc
            await asyncio.sleep(pause(attempt, None, longest_wait))
            attempt += 1
        else:
            return


async def _fetch(
    client: FhirClient, file: ManifestFile, target: Path, reached: Callable[[int], None], *, authorised: bool
) -> None:
    part = part_of(target)
    lines = _Lines()
    with part.open("wb") as out:
        reached(0)
        async with client.stream(
            "GET", file.url, follow_foreign_without_auth=True, authorised=authorised, headers=_ACCEPT
        ) as answer:
            is_bounded = _is_bounded(answer.headers)
            chunks = aiter(answer.chunks())
            while chunk := await _next(chunks):
                out.write(chunk)
                lines.feed(chunk)
                if lines.end and not lines.is_packed:
                    out.flush()
                    reached(lines.end)
        out.flush()
        await asyncio.to_thread(os.fsync, out.fileno())  # while others arrive
    _prove(file, part, lines, client.base_url, is_bounded=is_bounded)
    part.replace(target)
    to_disk(target.parent)  # its new name too


def _is_bounded(headers: Mapping[str, str]) -> bool:
    """Whether an answer says where it ends; else it ends with its connection, whoever cut that."""
    packed = headers.get("content-encoding", "").strip().lower() in {"gzip", "x-gzip"}  # its end was seen, or it failed
    return packed or "content-length" in headers or "transfer-encoding" in headers


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """The next bytes, empty at the end; a connection that fails under way is told from one that never came about."""
    try:
        async for chunk in chunks:
            if chunk:
                return chunk
    except TransportError as exc:
        raise _CutOff(exc) from exc
    return b""


class _Lines:
    """Counts lines as they go by, and keeps what follows the last line end."""

    def __init__(self) -> None:
        self.first = b""  # the first bytes of the text
        self.ends = 0
        self.size = 0
        self.end = 0  # of the last whole line, in bytes of a file that is not compressed
        self._tail: list[bytes] = []
        self._zip: _Unzip | None = None

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the file."""
        if not self.size and chunk[:2] == GZIP_MAGIC:
            self._zip = _Unzip()
        self.size += len(chunk)
        if self._zip is None:
            self._text(chunk)
            if (last := chunk.rfind(b"\n")) >= 0:
                self.end = self.size - len(chunk) + last + 1
        else:
            for piece in self._zip.pieces(chunk):
                self._text(piece)

    def _text(self, piece: bytes) -> None:
        if not self.first:
            self.first = piece.removeprefix(_BOM).lstrip()[:1]
        ends = len(BytesIO(piece).readlines()) - (not piece.endswith(b"\n"))  # many times as fast as bytes.count
        if ends:
            self.ends += ends
            self._tail = [piece[piece.rfind(b"\n") + 1 :]]
        else:
            self._tail.append(piece)

    @property
    def tail(self) -> bytes:
        """What follows the last line end."""
        return b"".join(self._tail).strip()

    @property
    def is_packed(self) -> bool:
        """Whether the file itself is compressed."""
        return self._zip is not None

    @property
    def is_damaged(self) -> bool:
        """Whether compressed data ended early or could not be read."""
        return self._zip is not None and self._zip.is_damaged


class _Unzip:
    """Unpacks gzip members in bounded pieces."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._broken = False

    @property
    def is_damaged(self) -> bool:
        return self._broken or not self._member.eof

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """The text in the next bytes."""
        while chunk and not self._broken:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            try:
                piece = self._member.decompress(chunk, _PIECE)
            except zlib.error:
                self._broken = True
                return
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece


def _prove(file: ManifestFile, part: Path, lines: _Lines, where: str, *, is_bounded: bool) -> None:
    """Checks that a file is whole.

    Where the manifest counts its resources, so many there must be; else it must end with a line end, and the answer
    must have said where it ends. What follows the last line end must be whole in any case.

    Raises:
        _Unproved: It is not.
    """
    kind = file.type or "mixed"
    tail = lines.tail
    if lines.is_damaged:
        raise _not_whole(f"a file of the export ({kind}) is compressed and ends early", where)
    if lines.first not in {b"", b"{"}:
        raise _not_whole(f"a file of the export ({kind}) is no NDJSON, maybe a sign-in page", where)
    if tail and not _is_resource(tail):
        raise _not_whole(f"a file of the export ({kind}) ends in mid-line", where)
    if file.count is None:
        if tail or not lines.ends:
            raise _not_whole(f"a file of the export ({kind}) has no line end at its end, and no count", where)
        if not (is_bounded or lines.is_packed):
            raise _not_whole(
                f"a file of the export ({kind}) came with no length and no count, so that a cut could not be seen",
                where,
                "have the server or its proxy send files with Content-Length or in chunks",
            )
        return
    found = lines.ends + bool(tail)
    if found == file.count and file.type:
        return
    resources, headers = _count(part)
    if file.count not in {resources, resources - headers}:
        raise _not_whole(
            f"the manifest says {file.count} resources and a file of the export ({kind}) holds {resources}", where
        )


def _not_whole(what: str, where: str, do: str = _AGAIN) -> _Unproved:
    return _Unproved(what, where=where, do=do, number=27)


def _is_resource(line: bytes) -> bool:
    try:
        return bool(_HEADER.decode(line).resourceType)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _count(path: Path) -> tuple[int, int]:
    """Lines that hold something, and how many of them are no resources of the export but say whose follow."""
    resources = headers = 0
    with open_plain(path) as handle:
        for line in handle:
            if line.strip():
                resources += 1
                headers += _is_parameters(line)
    return resources, headers


def _is_parameters(line: bytes) -> bool:
    try:
        return _HEADER.decode(line).resourceType == "Parameters"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
