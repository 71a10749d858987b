"""What was made last for a period and what it rested on, so that what is unchanged is not made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import item
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.submit.deliver import Prepared

__all__ = ["Noted", "as_noted", "note_sealed", "noted", "rests"]

_LOOK_AGAIN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Noted:
    """What was made last for a period.

    Attributes:
        basis: Digest of what it rests on.
        on: The local date of the job that made it.
        identifier: The submission; empty where the forms were filled and nothing could be sealed yet.
        share: How much of the forms was pre-filled, from 0 to 1.
        known_share: The same among the items that the record can answer.
        guarded: What was held back and how rare the cases are, as JSON values; names nobody.
    """

    basis: str
    on: date
    identifier: str
    share: float
    known_share: float
    guarded: Mapping[str, Any]


def _name(period: str) -> str:
    return f"sealed {period}"


def note_sealed(
    connection: Connection,
    period: str,
    basis: str,
    on: date,
    made: Prepared,
    guarded: Mapping[str, Any] | None = None,
) -> None:
    """Remembers what was made; in the transaction that puts it into the outbox.

    Args:
        connection: An open transaction.
        period: Label of the reported period.
        basis: Digest of what it rests on.
        on: The local date of the job.
        made: The submission; without an identifier where nothing could be sealed yet.
        guarded: What was held back and how rare the cases are, as JSON values.
    """
    known = {
        "basis": basis, "on": on.isoformat(), "identifier": made.identifier, "share": made.share,
        "known_share": made.known_share, "guarded": dict(guarded or {}),
    }  # fmt: skip
    write_state(connection, _name(period), json.dumps(known))


def noted(connection: Connection, period: str) -> Noted | None:
    """What was made last for a period, None where nothing was."""
    text = read_state(connection, _name(period))
    if not text:
        return None
    known = json.loads(text)
    return Noted(
        known["basis"], date.fromisoformat(known["on"]), known["identifier"], known["share"], known["known_share"],
        known.get("guarded", {}),
    )  # fmt: skip


def rests(ledger: Ledger, period: str, basis: str, on: date) -> Noted | None:
    """What was made on the same basis; None where there is none or it is a week old.

    A week, because records that nothing else depends on, such as a later laboratory value, may have been added.
    """
    with ledger.read() as connection:
        known = noted(connection, period)
    if known is None or known.basis != basis or not timedelta(0) <= on - known.on < _LOOK_AGAIN:
        return None
    return known


def as_noted(ledger: Ledger, known: Noted) -> Prepared | None:
    """The submission that was made, as it stands now; None where nothing could be sealed."""
    with ledger.read() as connection:
        found = item(connection, known.identifier)
    if found is None:
        return None
    return Prepared(found.identifier, False, found.body, known.share, known.known_share, found.state, found.cause)
