"""What the accreditation body says of a submission after its system accepted it: kept with every change, in order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, func, insert, or_, select, update

from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.schema import outbox, verdicts

__all__ = ["ENDED", "STATES", "BodyVerdict", "latest_verdict", "put_asked", "put_verdict", "to_ask",
           "verdicts_of"]  # fmt: skip

STATES: Final = {
    "received": "the body has it and has not decided yet",
    "correction-asked": "the body asks for a correction",
    "accepted": "the body accepted it",
    "rejected": "the body rejected it",
    "withdrawn": "it is withdrawn",
}
"""What a body may have said, each in words; this project's proposal."""
ENDED: Final = ("accepted", "rejected", "withdrawn")

_SOON: Final = timedelta(hours=20)
_LATER: Final = timedelta(days=7)
_YOUNG: Final = timedelta(days=90)
_OLD: Final = timedelta(days=1100)


@dataclass(frozen=True, slots=True)
class BodyVerdict:
    """What the body said of a submission.

    Attributes:
        identifier: The submission.
        state: One of :data:`STATES`.
        note: The body's own text, as it wrote it: never trusted, empty where it wrote none.
        at: When it said so, as its Task has it.
        seen: When it was read, as the ledger writes it.
        task: The Task, JSON.
    """

    identifier: str
    state: str
    note: str
    at: str
    seen: str
    task: bytes


_COLUMNS = (
    verdicts.c.identifier, verdicts.c.state, verdicts.c.note, verdicts.c.at, verdicts.c.seen, verdicts.c.task,
)  # fmt: skip


def put_verdict(connection: Connection, verdict: BodyVerdict) -> bool:
    """Keeps a verdict unless it is the one that was kept last; says whether it did."""
    last = latest_verdict(connection, verdict.identifier)
    if last is not None and last.task == verdict.task:
        return False
    connection.execute(
        insert(verdicts).values(
            identifier=verdict.identifier, state=verdict.state, note=verdict.note, at=verdict.at, seen=verdict.seen,
            task=verdict.task,
        )
    )  # fmt: skip
    return True


def verdicts_of(connection: Connection, identifier: str) -> list[BodyVerdict]:
    """Everything that the body said of a submission, in order."""
    query = select(*_COLUMNS).where(verdicts.c.identifier == identifier).order_by(verdicts.c.id)
    return [BodyVerdict(*row) for row in connection.execute(query)]


def latest_verdict(connection: Connection, identifier: str) -> BodyVerdict | None:
    """What the body said last of a submission, None where it said nothing."""
    query = select(*_COLUMNS).where(verdicts.c.identifier == identifier).order_by(verdicts.c.id.desc()).limit(1)
    row = connection.execute(query).first()
    return BodyVerdict(*row) if row is not None else None


def put_asked(connection: Connection, identifier: str, now: datetime) -> None:
    """Remembers that the body was asked about a submission."""
    connection.execute(update(outbox).where(outbox.c.identifier == identifier).values(asked=timestamp(now)))


def to_ask(connection: Connection, now: datetime, *, soon: bool = False) -> list[str]:
    """The accepted submissions that the body is to be asked about now, oldest first.

    Every night for three months as long as it has not decided; once a week after that, or where it has, since it may
    change its mind; not at all after three years.

    Args:
        connection: An open transaction.
        now: When.
        soon: Ask about those of the last three months whenever they were asked about last.
    """
    newest = select(func.max(verdicts.c.id)).group_by(verdicts.c.identifier)
    last = select(verdicts.c.identifier, verdicts.c.state).where(verdicts.c.id.in_(newest)).subquery()
    columns = outbox.c
    young = columns.created >= timestamp(now - _YOUNG)
    undecided = young & or_(last.c.state.is_(None), last.c.state.not_in(ENDED))
    ripe = or_(columns.asked < timestamp(now - _LATER), undecided & (columns.asked < timestamp(now - _SOON)))
    query = (
        select(columns.identifier)
        .select_from(outbox.outerjoin(last, last.c.identifier == columns.identifier))
        .where(columns.state == "accepted", columns.created >= timestamp(now - _OLD), ripe | young if soon else ripe)
        .order_by(columns.created)
    )
    return list(connection.execute(query).scalars())
