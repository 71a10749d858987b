"""What a cursor stands for: the way in which a source was read, and what was asked for.

Whoever reads changes alone must know that everything before them was read. That is not so where an earlier pull read
fewer patients or a shorter time: then everything is read once.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import Connection

from io_fhir_adapter.ledger.runs import cursor, move_cursor

__all__ = ["digest_of", "is_ahead", "is_other", "note_asked", "place_of"]

_AHEAD: Final = timedelta(hours=1)  # by so much the clocks of two machines may differ
_ASKED: Final = "asked for"  # a cursor beside that of Procedure


def digest_of(*parts: object) -> str:
    """A digest of all that decides what a pull brings; 64 characters."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def place_of(url: str, tz: tzinfo) -> tuple[str, str, str]:
    """Where a source is, host and path, and the time zone that makes its moments days."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.path.rstrip("/"), str(tz)


def is_ahead(instant: str, skew_s: float | None) -> bool:
    """Whether a time that was written down is still to come: then a clock was wrong, and changes would not be seen.

    One that cannot be read is of no more use.

    Args:
        instant: The time.
        skew_s: How many seconds the server's clock is ahead of ours; None where that is not known.
    """
    try:
        moment = datetime.fromisoformat(instant)
    except ValueError:
        return True
    return moment > datetime.now(UTC) + timedelta(seconds=skew_s or 0.0) + _AHEAD


def is_other(connection: Connection, source: str, digest: str) -> bool:
    """Whether the cursor of a source stands for something else; not where that was never written down."""
    return cursor(connection, source, _ASKED) not in {"", digest}


def note_asked(connection: Connection, source: str, digest: str, run: int) -> None:
    """Writes down what the cursor of a source stands for, in the transaction that moves it."""
    move_cursor(connection, source, _ASKED, digest, run)
