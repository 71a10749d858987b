"""Sending what is in the outbox, and keeping what was answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import SystemRandom

from io_fhir_adapter.config import Config, SubmissionConfig
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.ledger.approvals import approval_of, hold_unapproved
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.outbox import (
    OutboxItem,
    Receipt,
    item,
    lease_due,
    pending,
    put_receipt,
    retry_parked,
    settle,
)
from io_fhir_adapter.submit.outbox_policy import LEASE, next_attempt, state_after
from io_fhir_adapter.submit.receipts import Verdict, judge
from io_fhir_adapter.transport.client import FhirClient, retry_after_seconds

__all__ = ["Delivered", "Prepared", "as_it_stands", "deliver_due", "make_due", "needs_approval"]

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
    approved_only: bool = False,
) -> list[Delivered]:
    """Sends every submission that is due, one after the other, each once.

    An attempt that gets no answer, or none that is a receipt, leaves the submission queued for later; sending it
    again is harmless.

    Args:
        ledger: Has the outbox.
        config: The accreditation system's endpoint.
        now: The clock.
        approved_only: Hold back whatever has no approval of its very bytes.
    """
    outcomes: list[Delivered] = []
    async with FhirClient(config, "submission") as client:
        while True:
            with ledger.begin() as connection:
                if approved_only:
                    hold_unapproved(connection)
                due = lease_due(connection, now(), LEASE)
            if due is None:
                return outcomes
            outcomes.append(await _attempt(ledger, client, due, now, timedelta(days=config.give_up_after_days)))


def make_due(ledger: Ledger, now: datetime, *, ended: str | None = None) -> None:
    """Makes everything that waits for its next attempt due now.

    Args:
        ledger: Has the outbox.
        now: The time.
        ended: A submission that is to be sent again although it was rejected, and all that were parked with it.
    """
    with ledger.begin() as connection:
        if ended is not None:
            retry_parked(connection, now)
            found = item(connection, ended)
            if found is not None and found.state == "rejected":
                settle(connection, ended, "queued", found.cause, now)
        for waiting in pending(connection):
            if waiting.state == "queued":
                settle(connection, waiting.identifier, "queued", waiting.cause, now)


async def _attempt(
    ledger: Ledger, client: FhirClient, due: OutboxItem, now: Callable[[], datetime], max_age: timedelta
) -> Delivered:
    verdict, status, body = await _send(client, due, now)
    moment = now()
    with ledger.read() as connection:
        said = approval_of(connection, due.identifier)
    first = datetime.fromisoformat(said.at if said is not None else due.created)
    state = state_after(verdict.kind, due.attempts, first, moment, max_age)
    later = next_attempt(moment, due.attempts, verdict.retry_after, _RNG) if state == "queued" else None
    with ledger.begin() as connection:
        put_receipt(
            connection, Receipt(due.identifier, timestamp(moment), status, verdict.kind, verdict.sentence, body)
        )
        settle(connection, due.identifier, state, "" if state == "accepted" else verdict.sentence, later)
    return Delivered(due.identifier, state, verdict.sentence)


async def _send(client: FhirClient, due: OutboxItem, now: Callable[[], datetime]) -> tuple[Verdict, int, bytes]:
    try:
        answer = await client.request("POST", client.base_url, body=due.body, retry=False, accept_errors=True)
    except TransportError as exc:
        return Verdict("transient", exc.sentence), 0, b""
    wait = retry_after_seconds(answer.headers.get("retry-after"), now())
    content_type = answer.headers.get("content-type", "")
    verdict = judge(answer.status, content_type, answer.body, json.loads(due.body), retry_after=wait)
    return verdict, answer.status, answer.body
