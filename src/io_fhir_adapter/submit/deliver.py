"""Sending what is in the outbox, and keeping what was answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import SystemRandom

from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.outbox import OutboxItem, Receipt, lease_due, put_receipt, settle
from io_fhir_adapter.submit.outbox_policy import LEASE, next_attempt, state_after
from io_fhir_adapter.submit.receipts import Verdict, judge, parse_retry_after
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["Delivered", "deliver_due"]

_RNG = SystemRandom()


@dataclass(frozen=True, slots=True)
class Delivered:
    """The outcome of one attempt: ``state`` is where the submission stands now."""

    identifier: str
    state: str
    sentence: str


async def deliver_due(
    ledger: Ledger, config: SubmissionConfig, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Delivered]:
    """Sends every submission that is due, one after the other, each once.

    An attempt that gets no answer, or none that is a receipt, leaves the submission queued for later; sending it
    again is harmless.
    """
    outcomes: list[Delivered] = []
    async with FhirClient(config, "submission") as client:
        while True:
            with ledger.begin() as connection:
                item = lease_due(connection, now(), LEASE)
            if item is None:
                return outcomes
            outcomes.append(await _attempt(ledger, client, item, now))


async def _attempt(ledger: Ledger, client: FhirClient, item: OutboxItem, now: Callable[[], datetime]) -> Delivered:
    verdict, status, body = await _send(client, item, now)
    moment = now()
    first = datetime.fromisoformat(item.created)
    state = state_after(verdict.kind, item.attempts, first, moment)
    later = next_attempt(moment, item.attempts, verdict.retry_after, _RNG) if state == "queued" else None
    with ledger.begin() as connection:
        put_receipt(
            connection, Receipt(item.identifier, timestamp(moment), status, verdict.kind, verdict.sentence, body)
        )
        settle(connection, item.identifier, state, "" if state == "accepted" else verdict.sentence, later)
    return Delivered(item.identifier, state, verdict.sentence)


async def _send(client: FhirClient, item: OutboxItem, now: Callable[[], datetime]) -> tuple[Verdict, int, bytes]:
    try:
        answer = await client.request("POST", client.base_url, body=item.body, retry=False, accept_errors=True)
    except TransportError as exc:
        return Verdict("transient", exc.sentence), 0, b""
    wait = parse_retry_after(answer.headers.get("retry-after"), now())
    content_type = answer.headers.get("content-type", "")
    verdict = judge(answer.status, content_type, answer.body, json.loads(item.body), retry_after=wait)
    return verdict, answer.status, answer.body
