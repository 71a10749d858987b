"""What was sealed last for a period and what it rested on, so that an unchanged submission is not made again."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Final

from sqlalchemy import Connection

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import item
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.submit.deliver import Prepared

__all__ = ["note_sealed", "sealed_before"]

_LOOK_AGAIN: Final = timedelta(days=7)


def _name(period: str) -> str:
    return f"sealed {period}"


def note_sealed(connection: Connection, period: str, basis: str, on: date, made: Prepared) -> None:
    """Remembers what was sealed; in the transaction that puts it into the outbox.

    Args:
        connection: An open transaction.
        period: Label of the reported period.
        basis: Digest of what it rests on.
        on: The local date of the job.
        made: The submission.
    """
    known = {
        "basis": basis, "on": on.isoformat(), "identifier": made.identifier, "share": made.share,
        "known_share": made.known_share,
    }  # fmt: skip
    write_state(connection, _name(period), json.dumps(known))


def sealed_before(ledger: Ledger, period: str, basis: str, on: date) -> Prepared | None:
    """The submission that rested on the same, as it stands now; None where there is none or it is a week old.

    A week, because records that nothing else depends on, such as a later laboratory value, may have been added.
    """
    with ledger.read() as connection:
        text = read_state(connection, _name(period))
        known = json.loads(text) if text else {}
        found = item(connection, known["identifier"]) if known.get("basis") == basis else None
    if found is None or not timedelta(0) <= on - date.fromisoformat(known["on"]) < _LOOK_AGAIN:
        return None
    return Prepared(found.identifier, False, found.body, known["share"], known["known_share"], found.state, found.cause)
