"""What is entered in the audit beside what people do on the pages: what decides changed, what was sent, what again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from io_fhir_adapter.ledger.audit import Outcome, note
from io_fhir_adapter.ledger.runs import read_state, write_state

__all__ = ["note_changes", "note_retried", "note_sent"]

_AGENT: Final = "adapter"
_CONSOLE: Final = "console"
_SHOWN: Final = 24


def note_changes(connection: Connection, digests: Mapping[str, str], now: datetime) -> None:
    """Enters what has another digest than when this was looked at last; who changed it is not known here.

    Args:
        connection: An open transaction that writes.
        digests: Of what, such as ``Configuration``, to its digest.
        now: When.
    """
    for name, digest in digests.items():
        before = read_state(connection, f"audited {name}")
        if before == digest:
            continue
        was = f"before {before[:_SHOWN]}" if before else "seen for the first time"
        detail = f"now {digest[:_SHOWN]}, {was}"
        note(connection, at=now, agent=_AGENT, role="", action="U" if before else "C", entity=name, detail=detail)
        write_state(connection, f"audited {name}", digest)


def note_retried(
    connection: Connection, identifier: str, now: datetime, *, agent: str = _CONSOLE, role: str = ""
) -> None:
    """Enters that somebody had a submission sent again that was parked or rejected.

    Args:
        connection: An open transaction that writes, the one that queues it.
        identifier: The submission.
        now: When.
        agent: The account; the command line where nobody signed in.
        role: The account's roles, by comma.
    """
    entity = f"Submission/{identifier}"
    note(connection, at=now, agent=agent, role=role, action="E", entity=entity, detail="tried once more")


def note_sent(connection: Connection, identifier: str, state: str, now: datetime) -> None:
    """Enters that a submission was sent, and where that left it."""
    outcome: Outcome = "0" if state in {"accepted", "sent"} else "8" if state in {"rejected", "parked"} else "4"
    entity = f"Outbox/{identifier}"
    note(connection, at=now, agent=_AGENT, role="", action="E", entity=entity, outcome=outcome,
         detail=f"submission sent: {state}")  # fmt: skip
