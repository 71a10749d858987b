"""When the outbox tries again and when it stops: pure functions, no clock and no database.

All times are aware datetimes; ``attempts`` counts the attempts already made.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Final, Literal

from io_fhir_adapter.submit.receipts import VerdictKind

__all__ = [
    "FIRST_DELAY",
    "LEASE",
    "MAX_AGE",
    "MAX_ATTEMPTS",
    "MAX_DELAY",
    "MAX_RETRY_AFTER",
    "OutboxState",
    "give_up",
    "lease_expired",
    "next_attempt",
    "state_after",
]

FIRST_DELAY: Final = timedelta(seconds=30)
"""The longest wait after the first failed attempt."""
MAX_DELAY: Final = timedelta(hours=6)
"""The longest wait that backing off leads to."""
MAX_RETRY_AFTER: Final = timedelta(hours=24)
"""The longest wait that a receiver may ask for."""
MAX_ATTEMPTS: Final = 60
"""After so many attempts an item is parked."""
MAX_AGE: Final = timedelta(days=14)
"""After so long an item is parked, once it was tried often enough."""
LEASE: Final = timedelta(minutes=15)
"""How long a sender may hold an item before another takes it for dead."""

_MIN_ATTEMPTS: Final = 8
_SPREAD: Final = timedelta(seconds=60)

OutboxState = Literal["queued", "sending", "sent", "accepted", "rejected", "parked"]


def next_attempt(now: datetime, attempts: int, retry_after: float | None, rng: Random) -> datetime:
    """When to try again: exponential with jitter, never before the receiver's ``retry_after`` (seconds).

    The delay lies between half of and all of ``FIRST_DELAY * 2 ** (attempts - 1)``, at most ``MAX_DELAY``; a longer
    ``retry_after`` wins, up to ``MAX_RETRY_AFTER``, plus up to a minute so that many senders do not return at once.
    """
    doublings = min(max(attempts - 1, 0), 32)
    ceiling = min(FIRST_DELAY * (1 << doublings), MAX_DELAY)
    delay = ceiling * rng.uniform(0.5, 1.0)
    if retry_after is not None and retry_after > 0:
        asked = timedelta(seconds=min(retry_after, MAX_RETRY_AFTER.total_seconds()))
        delay = max(delay, asked + _SPREAD * rng.random())
    return now + delay


def give_up(attempts: int, first: datetime, now: datetime, max_age: timedelta = MAX_AGE) -> bool:
    """Whether to park an item instead of trying it again.

    Age alone does not do it: a machine that slept for a month still tries a few times.
    """
    return attempts >= MAX_ATTEMPTS or (attempts >= _MIN_ATTEMPTS and now - first >= max_age)


def state_after(
    kind: VerdictKind, attempts: int, first: datetime, now: datetime, max_age: timedelta = MAX_AGE
) -> OutboxState:
    """The state that an attempt with this verdict leaves an item in."""
    if kind == "transient":
        return "parked" if give_up(attempts, first, now, max_age) else "queued"
    return kind


def lease_expired(leased_at: datetime, now: datetime) -> bool:
    """Whether a sender that took an item at ``leased_at`` must be taken for dead.

    A lease from the future (a clock set back) counts as expired: sending twice is harmless, waiting for ever is not.
    """
    return now < leased_at or now - leased_at >= LEASE
