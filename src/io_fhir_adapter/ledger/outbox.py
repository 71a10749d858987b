"""The outbox: a durable queue of sealed submissions, and the receipts that came back.

A submission is queued once by its identifier, leased while it is being sent, and ends accepted, rejected or
parked. A sender that dies leaves its lease to run out; sending again is harmless because every entry of the
Bundle is conditional. One that left by a way on which the receipt comes later is ``sent`` until it is there.

Where a person has to approve, a submission is ``held`` first and queued by the approval; one that an approver returned
is ``returned``, and one whose contents were overtaken before it left is ``superseded``. None of these three is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, true, update

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import timestamp, upsert
from io_fhir_adapter.ledger.schema import outbox, receipts

__all__ = [
    "OutboxItem",
    "Receipt",
    "accepted_of",
    "awaiting_receipt",
    "enqueue",
    "find_item",
    "is_anything_due",
    "item",
    "items",
    "latest_receipt",
    "lease_due",
    "pending",
    "put_body",
    "put_receipt",
    "receipts_of",
    "release",
    "retry",
    "retry_parked",
    "settle",
    "supersede_open",
]

_SENDABLE = ("queued", "sending")
_UNSENT = ("held", "returned", "superseded")
_RETRIED = ("parked", "rejected")
_REPLACED = (*_UNSENT, *_RETRIED, "queued")


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
_RECEIPT = (
    receipts.c.identifier, receipts.c.received, receipts.c.status,
    receipts.c.verdict, receipts.c.sentence, receipts.c.body,
)  # fmt: skip


def enqueue(
    connection: Connection, identifier: str, period: str, body: bytes, now: datetime, *, held: bool = False
) -> bool:
    """Queues a submission unless one with that identifier was ever queued; says whether it did.

    One that was kept from leaving, and says again what is to be said, is queued or held anew, as it is written now.

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
            put_body(connection, identifier, body)
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


def put_body(connection: Connection, identifier: str, body: bytes) -> None:
    """Puts another form of the same submission, signed or without it, in the place of one that is not on its way."""
    values = update(outbox).where(outbox.c.identifier == identifier, outbox.c.state.in_(_REPLACED))
    connection.execute(values.values(body=body))


def accepted_of(connection: Connection, period: str) -> list[OutboxItem]:
    """The submissions of a period that were accepted, the newest first."""
    accepted = select(*_COLUMNS).where(outbox.c.period == period, outbox.c.state == "accepted")
    rows = connection.execute(accepted.order_by(outbox.c.created.desc(), outbox.c.identifier))
    return [OutboxItem(*row) for row in rows]


def find_item(connection: Connection, beginning: str) -> OutboxItem:
    """The one submission whose identifier, or the hexadecimal digits in it, begins so.

    Raises:
        LedgerError: There is none, or more than one.
    """
    ids = outbox.c.identifier
    begins = [ids.startswith(start, autoescape=True) for start in (beginning, f"sha256:{beginning}")]
    rows = connection.execute(select(*_COLUMNS).where(or_(*begins)).limit(2)).all() if beginning else []
    if len(rows) != 1:
        raise LedgerError(
            f"{'more than one submission' if rows else 'no submission'} of the outbox is called {beginning!r}",
            do="see the outbox list command; give more of the identifier where it is not enough", number=70,
        )  # fmt: skip
    return OutboxItem(*rows[0])


def items(connection: Connection) -> list[OutboxItem]:
    """Every submission that was ever queued, the newest first."""
    query = select(*_COLUMNS).order_by(outbox.c.created.desc(), outbox.c.identifier)
    return [OutboxItem(*row) for row in connection.execute(query)]


def pending(connection: Connection) -> list[OutboxItem]:
    """All submissions that are still to leave, oldest first."""
    return _in_state(connection, *_SENDABLE, "parked")


def awaiting_receipt(connection: Connection) -> list[OutboxItem]:
    """All submissions that have left and whose receipt comes later, oldest first."""
    return _in_state(connection, "sent")


def _in_state(connection: Connection, *states: str) -> list[OutboxItem]:
    query = select(*_COLUMNS).where(outbox.c.state.in_(states)).order_by(outbox.c.created)
    return [OutboxItem(*row) for row in connection.execute(query)]


def _is_due(moment: str) -> ColumnElement[bool]:
    """The condition that a submission is due and that no living sender holds it."""
    free = or_(outbox.c.state == "queued", outbox.c.lease_until < moment)
    return and_(outbox.c.state.in_(_SENDABLE), outbox.c.next_attempt <= moment, free)


def is_anything_due(connection: Connection, now: datetime) -> bool:
    """Whether any submission is to be sent now."""
    query = select(outbox.c.identifier).where(_is_due(timestamp(now))).limit(1)
    return connection.execute(query).first() is not None


def lease_due(connection: Connection, now: datetime, lease: timedelta, only: str = "") -> OutboxItem | None:
    """Takes the oldest submission that is due and that no living sender holds; with ``only`` that one or none."""
    due = _is_due(timestamp(now))
    query = (
        select(outbox.c.identifier)
        .where(due, outbox.c.identifier == only if only else true())
        .order_by(outbox.c.created)
        .limit(1)
    )
    identifier = connection.execute(query).scalar()
    if identifier is None:
        return None
    taken = connection.execute(
        update(outbox)
        .where(outbox.c.identifier == identifier, due)
        .values(state="sending", lease_until=timestamp(now + lease), attempts=outbox.c.attempts + 1)
    )
    return item(connection, identifier) if taken.rowcount == 1 else None


def settle(
    connection: Connection, identifier: str, state: str, cause: str = "", next_attempt: datetime | None = None
) -> None:
    """Ends an attempt: ``accepted``, ``rejected``, ``parked``, ``sent``, or ``queued`` again for ``next_attempt``.

    What is accepted stays accepted: a sender that was taken for dead and answers late changes nothing any more.
    """
    values: dict[str, object] = {"state": state, "cause": cause, "lease_until": ""}
    if next_attempt is not None:
        values["next_attempt"] = timestamp(next_attempt)
    open_still = outbox.c.state != "accepted"
    connection.execute(update(outbox).where(outbox.c.identifier == identifier, open_still).values(**values))


def release(connection: Connection, now: datetime) -> int:
    """Queues what a sender holds that is dead for certain: for who keeps every other job from running.

    Args:
        connection: An open transaction.
        now: When.

    Returns:
        How many it was holding.
    """
    values = {"state": "queued", "next_attempt": timestamp(now), "lease_until": "", "cause": "the sender was cut off"}
    return connection.execute(update(outbox).where(outbox.c.state == "sending").values(**values)).rowcount


def retry_parked(connection: Connection, now: datetime) -> list[str]:
    """Queues all parked submissions again; gives their identifiers."""
    columns = outbox.c
    parked = select(columns.identifier).where(columns.state == "parked").order_by(columns.identifier)
    found = list(connection.execute(parked).scalars())
    for identifier in found:
        retry(connection, identifier, now)
    return found


def retry(connection: Connection, identifier: str, now: datetime) -> None:
    """Queues one submission again that was parked or rejected; its approval and its receipts stay.

    Args:
        connection: An open transaction.
        identifier: The submission.
        now: When.

    Raises:
        LedgerError: There is none of that name, or it is neither parked nor rejected.
    """
    values = {"state": "queued", "next_attempt": timestamp(now), "attempts": 0}
    ended = (outbox.c.identifier == identifier) & outbox.c.state.in_(_RETRIED)
    if connection.execute(update(outbox).where(ended).values(**values)).rowcount:
        return
    found = item(connection, identifier)
    raise LedgerError(
        f"the submission is not to be sent again, it is {found.state if found is not None else 'unknown'}",
        where=identifier, do="only what is parked or rejected is; see the outbox list command", number=71,
    )  # fmt: skip


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
    query = select(*_RECEIPT).where(receipts.c.identifier == identifier).order_by(receipts.c.id.desc()).limit(1)
    row = connection.execute(query).first()
    return Receipt(*row) if row is not None else None


def receipts_of(connection: Connection, identifier: str) -> list[Receipt]:
    """Every answer to a submission in the order of the attempts; an attempt that was cut off has none."""
    query = select(*_RECEIPT).where(receipts.c.identifier == identifier).order_by(receipts.c.id)
    return [Receipt(*row) for row in connection.execute(query)]
