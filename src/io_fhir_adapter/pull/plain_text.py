"""The text of files that may be compressed, whole or in blocks of lines."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

__all__ = ["GZIP_MAGIC", "blocks_of", "is_compressed", "open_plain"]

GZIP_MAGIC: Final = b"\x1f\x8b"
"""The first bytes of a compressed file."""
_BLOCK: Final = 1 << 18


@contextmanager
def open_plain(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    """A file's text, unpacked where it is compressed."""
    with path.open("rb") as handle:
        if handle.peek(2)[:2] == GZIP_MAGIC:
            with gzip.GzipFile(fileobj=handle) as unpacked:
                yield unpacked
        else:
            yield handle


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed."""
    with path.open("rb") as handle:
        return handle.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def blocks_of(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """A file's text in blocks of about 256 KiB, each of whole lines.

    Args:
        path: The file.
        start: In bytes of the text: only the lines that begin from here on.
        end: Only those that begin before here.
    """
    with open_plain(path) as handle:
        if start:
            handle.seek(start - 1)
            handle.readline()
        place = handle.tell()
        while end is None or place < end:
            block = handle.read(_BLOCK if end is None else min(_BLOCK, end - place))
            if not block:
                return
            if not block.endswith(b"\n"):
                block += handle.readline()
            place += len(block)
            yield block
