"""The outbox: a durable queue of sealed submissions, and the receipts that came back.

A submission is queued once by its identifier, leased while it is being sent, and ends accepted, rejected or
parked. A sender that dies leaves its lease to run out; sending again is harmless because every entry of the
Bundle is conditional.

Where a person has to approve, a submission is ``held`` first and queued by the approval; one that an approver returned
is ``returned``, and one whose contents were overtaken before it left is ``superseded``. None of these three is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, or_, select, update

from io_fhir_adapter.ledger.database import timestamp, upsert
from io_fhir_adapter.ledger.schema import outbox, receipts

__all__ = [
    "OutboxItem",
    "Receipt",
    "enqueue",
    "item",
    "latest_receipt",
    "lease_due",
    "pending",
    "put_receipt",
    "retry_parked",
    "settle",
    "supersede_open",
]

_SENDABLE = ("queued", "sending")
_UNSENT = ("held", "returned", "superseded")


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One submission in the queue; ``cause`` is why the last attempt did not end it."""

    identifier: str
    period: str
    created: str
    state: str
    attempts: int
    next_attempt: str
    body: bytes
    cause: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The accreditation system's recorded answer to one attempt."""

    identifier: str
    received: str
    status: int
    verdict: str
    sentence: str
    body: bytes


_COLUMNS = (
    outbox.c.identifier, outbox.c.period, outbox.c.created, outbox.c.state,
    outbox.c.attempts, outbox.c.next_attempt, outbox.c.body, outbox.c.cause,
)  # fmt: skip


def enqueue(
    connection: Connection, identifier: str, period: str, body: bytes, now: datetime, *, held: bool = False
) -> bool:
    """Queues a submission unless one with that identifier was ever queued; says whether it did.

    One that was kept from leaving, and says again what is to be said, is queued or held anew.

    Args:
        connection: An open transaction.
        identifier: The digest of what it says.
        period: Label of the reported period.
        body: The Bundle.
        now: When.
        held: Whether it waits for a person's approval first.
    """
    state, cause = ("held", "waits for approval") if held else ("queued", "")
    known = item(connection, identifier)
    if known is not None:
        if known.state in _UNSENT and (known.state != "held" or not held):
            settle(connection, identifier, state, cause, now)
        return False
    moment = timestamp(now)
    row = {
        "identifier": identifier, "period": period, "created": moment, "state": state, "attempts": 0,
        "next_attempt": moment, "lease_until": "", "body": body, "cause": cause,
    }  # fmt: skip
    upsert(connection, outbox, [row], ("identifier",), replace=False)
    return True


def item(connection: Connection, identifier: str) -> OutboxItem | None:
    """The submission with that identifier."""
    row = connection.execute(select(*_COLUMNS).where(outbox.c.identifier == identifier)).first()
    return OutboxItem(*row) if row is not None else None


def pending(connection: Connection) -> list[OutboxItem]:
    """All submissions that are not ended, oldest first."""
    query = select(*_COLUMNS).where(outbox.c.state.in_((*_SENDABLE, "parked"))).order_by(outbox.c.created)
    return [OutboxItem(*row) for row in connection.execute(query)]


def lease_due(connection: Connection, now: datetime, lease: timedelta) -> OutboxItem | None:
    """Takes the oldest submission that is due and that no living sender holds."""
    moment = timestamp(now)
    free = or_(outbox.c.state == "queued", outbox.c.lease_until < moment)
    query = (
        select(outbox.c.identifier)
        .where(outbox.c.state.in_(_SENDABLE), outbox.c.next_attempt <= moment, free)
        .order_by(outbox.c.created)
        .limit(1)
    )
    identifier = connection.execute(query).scalar()
    if identifier is None:
        return None
    taken = connection.execute(
        update(outbox)
        .where(outbox.c.identifier == identifier, outbox.c.state.in_(_SENDABLE), free)
        .values(state="sending", lease_until=timestamp(now + lease), attempts=outbox.c.attempts + 1)
    )
    return item(connection, identifier) if taken.rowcount == 1 else None


def settle(
    connection: Connection, identifier: str, state: str, cause: str = "", next_attempt: datetime | None = None
) -> None:
    """Ends an attempt: ``accepted``, ``rejected``, ``parked``, or ``queued`` again for ``next_attempt``.

    What is accepted stays accepted: a sender that was taken for dead and answers late changes nothing any more.
    """
    values: dict[str, object] = {"state": state, "cause": cause, "lease_until": ""}
    if next_attempt is not None:
        values["next_attempt"] = timestamp(next_attempt)
    open_still = outbox.c.state != "accepted"
    connection.execute(update(outbox).where(outbox.c.identifier == identifier, open_still).values(**values))


def retry_parked(connection: Connection, now: datetime) -> int:
    """Queues all parked submissions again; gives their number."""
    values = {"state": "queued", "next_attempt": timestamp(now), "attempts": 0}
    return connection.execute(update(outbox).where(outbox.c.state == "parked").values(**values)).rowcount


def supersede_open(connection: Connection, period: str, keep: str = "") -> list[str]:
    """Takes everything of a period that did not leave yet out of the queue, for good unless it is said again.

    Args:
        connection: An open transaction.
        period: Label of the reported period.
        keep: The submission that stands; none where empty.

    Returns:
        The identifiers of those that were taken out.
    """
    columns = outbox.c
    query = select(columns.identifier).where(
        columns.period == period, columns.identifier != keep, columns.state.in_((*_SENDABLE, "parked", "held"))
    )
    gone = list(connection.execute(query.order_by(columns.created)).scalars())
    for identifier in gone:
        settle(connection, identifier, "superseded", "what it rests on changed before it left")
    return gone


def put_receipt(connection: Connection, receipt: Receipt) -> None:
    """Stores an answer whole."""
    connection.execute(
        insert(receipts).values(
            identifier=receipt.identifier, received=receipt.received, status=receipt.status,
            verdict=receipt.verdict, sentence=receipt.sentence, body=receipt.body,
        )
    )  # fmt: skip


def latest_receipt(connection: Connection, identifier: str) -> Receipt | None:
    """The last answer to a submission."""
    columns = receipts.c
    query = (
        select(columns.identifier, columns.received, columns.status, columns.verdict, columns.sentence, columns.body)
        .where(columns.identifier == identifier)
        .order_by(columns.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return Receipt(*row) if row is not None else None
