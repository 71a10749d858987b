"""The bytes of an answer, decompressed in bounded pieces: a small body may unpack to more than the machine holds."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from io_fhir_adapter.errors import TransportError

__all__ = ["ACCEPTED_ENCODING", "decoded"]

ACCEPTED_ENCODING: Final = "gzip"
_NONE: Final = frozenset({"", "identity", "none", "utf-8"})  # the last two are mistakes that servers do make
_PIECE: Final = 1 << 20
_GZIP: Final = 16 + zlib.MAX_WBITS


async def decoded(raw: AsyncIterable[bytes], encoding: str, where: str) -> AsyncIterator[bytes]:
    """A body without its Content-Encoding, in pieces of at most 1 MiB where it was compressed.

    Args:
        raw: The body as it travels.
        encoding: The Content-Encoding header.
        where: The server, for messages.

    Raises:
        TransportError: An encoding that was not asked for, or a compressed body that is broken or cut off.
    """
    name = encoding.strip().lower()
    if name in _NONE:
        async for chunk in raw:
            yield chunk
        return
    if name not in {"gzip", "x-gzip"}:
        raise TransportError(
            "the server answers in an encoding that was not asked for",
            where=where,
            do="correct its compression, or that of the proxy before it",
            number=17,
            transient=False,
        )
    unpacker = zlib.decompressobj(_GZIP)
    began = False
    try:
        async for chunk in raw:
            data = chunk
            while data:
                if unpacker.eof:  # a file of several members, as some servers concatenate them
                    unpacker = zlib.decompressobj(_GZIP)
                began = True
                piece = unpacker.decompress(data, _PIECE)
                data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
                if piece:
                    yield piece
    except zlib.error as exc:
        raise _broken(where) from exc
    if began and not unpacker.eof:
        raise _broken(where)


def _broken(where: str) -> TransportError:
    return TransportError(
        "the compressed answer is broken or cut off",
        where=where,
        do="try again; check the server's compression and proxies if it persists",
        number=18,
    )
