"""Gzipped input of which as much is read as can be."""

from __future__ import annotations

import gzip
import zlib
from typing import BinaryIO

__all__ = ["Unzipped"]


class Unzipped(gzip.GzipFile):
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
