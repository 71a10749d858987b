"""What a cursor stands for: the way in which a source was read, and what was asked for.

Whoever reads changes alone must know that everything before them was read. That is not so where an earlier pull read
fewer patients or a shorter time: then everything is read once.
"""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy import Connection

from io_fhir_adapter.ledger.runs import cursor, move_cursor

__all__ = ["digest_of", "is_other", "note_asked"]

_ASKED: Final = "asked for"  # a cursor beside that of Procedure


def digest_of(*parts: object) -> str:
    """A digest of all that decides what a pull brings; 64 characters."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def is_other(connection: Connection, source: str, digest: str) -> bool:
    """Whether the cursor of a source stands for something else; not where that was never written down."""
    return cursor(connection, source, _ASKED) not in {"", digest}


def note_asked(connection: Connection, source: str, digest: str, run: int) -> None:
    """Writes down what the cursor of a source stands for, in the transaction that moves it."""
    move_cursor(connection, source, _ASKED, digest, run)
