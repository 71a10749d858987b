"""Sending what is in the outbox, and keeping what was answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from typing import Literal

from io_fhir_adapter.config import Config, SubmissionConfig
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.approvals import approval_of, hold_unapproved
from io_fhir_adapter.ledger.audited import note_retried
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.outbox import (
    OutboxItem,
    Receipt,
    awaiting_receipt,
    item,
    latest_receipt,
    lease_due,
    pending,
    put_receipt,
    release,
    retry_parked,
    settle,
)
from io_fhir_adapter.submit.channels import Answered, Channel, open_channel
from io_fhir_adapter.submit.outbox_policy import LEASE, next_attempt, state_after

__all__ = [
    "Delivered", "Prepared", "as_it_stands", "collect_receipts", "deliver_due", "make_due", "needs_approval",
]  # fmt: skip

_RNG = SystemRandom()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sealed submission.

    Attributes:
        identifier: The digest of what it says.
        fresh: Whether it was new to the outbox.
        body: The Bundle as it is sent.
        share: How much of the forms is pre-filled, from 0 to 1.
        known_share: The same among the items that the pulled resources can answer.
        state: Where it stands in the outbox, such as ``queued``, ``held``, ``accepted``, ``rejected`` or ``parked``.
        cause: Why it is not accepted yet, in one sentence.
    """

    identifier: str
    fresh: bool
    body: bytes
    share: float
    known_share: float
    state: str
    cause: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The outcome of one attempt: ``state`` is where the submission stands now."""

    identifier: str
    state: str
    sentence: str


def needs_approval(config: Config) -> bool:
    """Whether nothing with case data may leave without an approver's word: where people sign in."""
    return config.sign_in is not None


def as_it_stands(ledger: Ledger, made: Prepared) -> Prepared:
    """The submission as the outbox has it: its state now, and the very bytes that were sealed first."""
    with ledger.begin() as connection:
        found = item(connection, made.identifier)
    return replace(made, body=found.body, state=found.state, cause=found.cause) if found is not None else made


async def deliver_due(
    ledger: Ledger,
    config: SubmissionConfig,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    hold: Literal["nothing", "cases", "all"] = "nothing",
    only: str = "",
) -> list[Delivered]:
    """Sends every submission that is due, one after the other, each once.

    An attempt that gets no answer, or none that is a receipt, leaves the submission queued for later; sending it
    again is harmless.

    Args:
        ledger: Has the outbox.
        config: The accreditation system's endpoint.
        now: The clock.
        hold: What is held back without an approval of its very bytes: whatever says anything of cases, or all but a
            volume alone.
        only: Identifier of the one submission to send; every one that is due where empty.
    """
    async with open_channel(config, now) as channel:
        outcomes = await _look(ledger, channel, now)
        while True:
            with ledger.begin() as connection:
                if hold != "nothing":
                    hold_unapproved(connection, cases_alone=hold == "cases")
                due = lease_due(connection, now(), LEASE, only)
            if due is None:
                return outcomes
            outcomes.append(await _attempt(ledger, channel, due, now, timedelta(days=config.give_up_after_days)))


def make_due(ledger: Ledger, now: datetime, *, ended: str | None = None) -> None:
    """Makes everything that waits for its next attempt due now; for who keeps every other job from running.

    Args:
        ledger: Has the outbox.
        now: The time.
        ended: A submission that is to be sent again although it was rejected, and all that were parked with it.
    """
    with ledger.begin() as connection:
        release(connection, now)
        if ended is not None:
            again = retry_parked(connection, now)
            found = item(connection, ended)
            if found is not None and found.state == "rejected":
                settle(connection, ended, "queued", found.cause, now)
                again.append(ended)
            for identifier in again:
                note_retried(connection, identifier, now)
        for waiting in pending(connection):
            if waiting.state == "queued":
                settle(connection, waiting.identifier, "queued", waiting.cause, now)


async def collect_receipts(
    ledger: Ledger, config: SubmissionConfig, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Delivered]:
    """Takes the receipts that came since for what has left already, and sends nothing.

    Args:
        ledger: Has the outbox.
        config: The accreditation system.
        now: The clock.
    """
    with ledger.read() as connection:
        if not awaiting_receipt(connection):
            return []
    async with open_channel(config, now) as channel:
        return await _look(ledger, channel, now)


async def _look(ledger: Ledger, channel: Channel, now: Callable[[], datetime]) -> list[Delivered]:
    """Takes the receipts that came since for what was sent; what they cannot come for any more is sent again."""
    outcomes: list[Delivered] = []
    with ledger.read() as connection:
        sent = awaiting_receipt(connection)
    for waiting in sent:
        if not channel.answers_later:
            with ledger.begin() as connection:
                settle(connection, waiting.identifier, "queued", "it was sent on another channel", now())
            continue
        answered = await channel.look(waiting.body, waiting.identifier)
        if answered is not None:
            outcomes.append(_take(ledger, waiting.identifier, answered, now()))
    return outcomes


def _take(ledger: Ledger, identifier: str, answered: Answered, now: datetime) -> Delivered:
    """Keeps a receipt that came later; one that is none leaves the submission waiting, and is kept once."""
    verdict = answered.verdict
    state = "sent" if verdict.kind == "transient" else verdict.kind
    with ledger.begin() as connection:
        last = latest_receipt(connection, identifier)
        if last is None or (last.body, last.sentence) != (answered.body, verdict.sentence):
            put_receipt(connection, _receipt(identifier, answered, now))
        settle(connection, identifier, state, _cause(state, verdict.sentence))
    return Delivered(identifier, state, verdict.sentence)


async def _attempt(
    ledger: Ledger, channel: Channel, due: OutboxItem, now: Callable[[], datetime], max_age: timedelta
) -> Delivered:
    with ledger.read() as connection:
        said, last = approval_of(connection, due.identifier), latest_receipt(connection, due.identifier)
    try:
        answered = await channel.send(due.body, due.identifier, last.body if last is not None else b"")
    except AdapterError as exc:  # nothing was sent: a secret that cannot be read, a certificate
        with ledger.begin() as connection:
            settle(connection, due.identifier, "queued", exc.sentence, now())
        raise
    moment, verdict = now(), answered.verdict
    first = datetime.fromisoformat(said.at if said is not None else due.created)
    state = state_after(verdict.kind, due.attempts, first, moment, max_age)
    later = next_attempt(moment, due.attempts, verdict.retry_after, _RNG) if state == "queued" else None
    with ledger.begin() as connection:
        put_receipt(connection, _receipt(due.identifier, answered, moment))
        settle(connection, due.identifier, state, _cause(state, verdict.sentence), later)
    return Delivered(due.identifier, state, verdict.sentence)


def _receipt(identifier: str, answered: Answered, now: datetime) -> Receipt:
    verdict = answered.verdict
    return Receipt(identifier, timestamp(now), answered.status, verdict.kind, verdict.sentence, answered.body)


def _cause(state: str, sentence: str) -> str:
    return "" if state == "accepted" else sentence
