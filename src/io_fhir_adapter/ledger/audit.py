"""The audit: who signed in, who looked at whom, who changed, signed and approved what, in the order it happened.

Entries are only ever added, each hashed over the one before it (``trust.chain``); the database refuses to change or
remove one, and the digests show it where somebody made it. The columns mean what FHIR's AuditEvent means by them.

An entry never holds a password or anything about a patient. A look at a patient's identity names draw and case
(``Case/3/7``), which only the ledger can lead back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, func, insert, select, text

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.schema import audit
from io_fhir_adapter.trust.chain import START, Link, first_broken, link_digest

__all__ = ["Action", "AuditEntry", "Outcome", "audit_size", "entries", "note", "verify_audit"]

Action = Literal["C", "R", "U", "D", "E"]
"""AuditEvent.action: create, read, update, delete, execute (such as signing in, signing a case, approving)."""

Outcome = Literal["0", "4", "8", "12"]
"""AuditEvent.outcome: done, refused (a minor failure), serious failure, major failure."""

_KIND = "audit"
_LONGEST_DETAIL = 400


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry.

    Attributes:
        number: Its place, from 1.
        at: When, UTC.
        action: What was done.
        outcome: What became of it.
        agent: The account; ``console`` for the command line, ``unknown`` for a name that no account has.
        role: The roles of the account then, by comma.
        entity: What it was done to, such as ``Account/weber`` or ``Case/3/7`` (draw and number).
        detail: A word or sentence about it, such as ``sign-in`` or ``identity``.
        digest: Hash over the digest before it and over all of the above but ``number``.
    """

    number: int
    at: str
    action: str
    outcome: str
    agent: str
    role: str
    entity: str
    detail: str
    digest: str

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` and the export show it."""
        return asdict(self)


def note(
    connection: Connection,
    *,
    at: datetime,
    agent: str,
    role: str,
    action: Action,
    entity: str,
    outcome: Outcome = "0",
    detail: str = "",
) -> str:
    """Adds an entry, and gives its digest.

    Args:
        connection: An open transaction that writes; what the entry tells of is written in the same one.
        at: When.
        agent: The account.
        role: The account's roles, by comma.
        action: What was done.
        entity: What it was done to; never a patient.
        outcome: What became of it.
        detail: A word or sentence; never a patient, never a password.
    """
    if connection.dialect.name == "postgresql":  # two at once would take the same number; SQLite has one writer anyway
        connection.execute(text("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE"))
    last = connection.execute(select(audit.c.number, audit.c.digest).order_by(audit.c.number.desc()).limit(1)).first()
    number, previous = (last.number + 1, last.digest) if last is not None else (1, START)
    row = {
        "action": action,
        "outcome": outcome,
        "agent": agent,
        "role": role,
        "entity": entity,
        "detail": detail[:_LONGEST_DETAIL],
    }
    moment = timestamp(at)
    made = link_digest(previous, moment, _KIND, row)
    connection.execute(insert(audit).values(number=number, at=moment, digest=made, **row))
    return made


def entries(connection: Connection, *, newest: int | None = None, before: int | None = None) -> Iterator[AuditEntry]:
    """Entries, the first first; or the newest ones, the newest first.

    Args:
        connection: An open transaction.
        newest: So many of the newest instead of all.
        before: Only those with a lower number.
    """
    columns = audit.c
    query = select(audit).order_by(columns.number if newest is None else columns.number.desc())
    if newest is not None:
        query = query.limit(newest)
    if before is not None:
        query = query.where(columns.number < before)
    for row in connection.execute(query):
        yield AuditEntry(**row._mapping)


def audit_size(connection: Connection) -> int:
    """How many entries there are."""
    return int(connection.execute(select(func.count()).select_from(audit)).scalar_one())


def verify_audit(connection: Connection) -> tuple[int, str]:
    """The number of entries and the newest one's digest, where every one follows from those before it.

    Who keeps that digest elsewhere sees later whether entries were cut off at the end.

    Raises:
        LedgerError: One does not follow.
    """
    count, digest = 0, START

    def links() -> Iterator[Link]:
        nonlocal count, digest
        for entry in entries(connection):
            count, digest = entry.number, entry.digest
            body = {name: getattr(entry, name) for name in ("action", "outcome", "agent", "role", "entity", "detail")}
            yield Link(entry.number, entry.at, _KIND, body, entry.digest)

    broken = first_broken(links())
    if broken is not None:
        raise LedgerError(
            "the audit is broken",
            where=f"audit, entry {broken}",
            do="the ledger was changed by hand or damaged; restore a backup and keep this file as evidence",
            number=30,
        )
    return count, digest
