"""Trying again: what may pass, how long to wait, how often in one run, and how many requests at a time."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from io_fhir_adapter.errors import TransportError

__all__ = ["AdaptiveLimit", "RetryBudget", "is_overload", "may_pass", "pause", "retry_after_seconds"]

_BASE_WAIT_S: Final = 0.5
_LONGEST_S: Final = 1e9  # that a Retry-After is taken for; who asks for more asks for ever
_CLIENT_STATUSES: Final = frozenset({408, 425, 429})
_LASTING_SERVER_STATUSES: Final = frozenset({501, 505})  # not implemented, HTTP version: no later attempt helps
_OVERLOAD: Final = frozenset({429, 503})
_REQUESTS_PER_RETRY: Final = 10


def may_pass(status: int) -> bool:
    """Whether an answer of this status may be another one later."""
    return status in _CLIENT_STATUSES or (500 <= status < 600 and status not in _LASTING_SERVER_STATUSES)


def is_overload(error: TransportError) -> bool:
    """Whether the server has too much to do: it says so, or does not answer in time."""
    return error.status in _OVERLOAD or error.code == "IOA-NET-002"


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """``Retry-After`` in seconds, from either of its forms; None where absent or unreadable."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_S)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def pause(attempt: int, retry_after: float | None, longest: float) -> float:
    """Seconds to the next attempt; with jitter, so that many clients do not come back in step.

    Args:
        attempt: How many attempts failed before this one.
        retry_after: What the server asked for.
        longest: The most that is waited, whatever the server asks for.
    """
    backoff = min(_BASE_WAIT_S * 2.0**attempt, longest) * random.uniform(0.5, 1.0)  # noqa: S311
    asked = retry_after + random.uniform(0.0, _BASE_WAIT_S) if retry_after is not None else 0.0  # noqa: S311
    return min(max(backoff, asked), longest)


class RetryBudget:
    """How many requests of one run may be tried again, so that a server that is down is not called all night.

    One request in ten may be tried again whatever the budget says: a long first pull meets more passing faults than a
    short night, and a busy server is not a broken one.

    Args:
        allowed: The retries beyond that.
    """

    def __init__(self, allowed: int) -> None:
        self.retried = 0
        self._allowed = allowed

    def spend(self, cause: TransportError | None, where: str, requests: int) -> None:
        """Takes one retry.

        Args:
            cause: Why it is needed, where that is a transport's error.
            where: The server, for the message.
            requests: How many requests the run has made.

        Raises:
            TransportError: There is none left.
        """
        if self.retried >= self._allowed + requests // _REQUESTS_PER_RETRY:
            last = f", the last time because {cause.what}" if cause is not None else ""
            raise TransportError(
                f"the retries of this run are used up ({self.retried} of {requests} requests{last})",
                where=where,
                do="look after the server's health, then run again; raise retry_budget if it is always like this",
                number=15,
                transient=False,
            ) from cause
        self.retried += 1


class AdaptiveLimit:
    """How many requests may be under way at once: halved when the server is overloaded, then slowly raised again.

    Additive increase, multiplicative decrease, as TCP does it: requests that were already under way when the limit was
    halved do not halve it again.

    Args:
        most: The limit at the start, which it never exceeds.
    """

    def __init__(self, most: int) -> None:
        self.current = float(most)
        self.under_way = 0
        self._most = float(most)
        self._cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Waits for a place."""
        if self.under_way < int(self.current) and not self._waiting:
            self.under_way += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # the place is taken for it by whoever lets it in
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Gives the place back."""
        self.under_way -= 1
        self._admit()

    @property
    def mark(self) -> int:
        """To be kept from the start of an attempt, for :meth:`overloaded`."""
        return self._cuts

    def succeeded(self) -> None:
        """An attempt went well: about one more place for each round of requests."""
        if self.current < self._most:
            self.current = min(self._most, self.current + 1.0 / self.current)
            self._admit()

    def overloaded(self, mark: int) -> None:
        """An attempt that began at ``mark`` met an overloaded server."""
        if mark == self._cuts:
            self._cuts += 1
            self.current = max(1.0, self.current / 2)

    def _admit(self) -> None:
        while self._waiting and self.under_way < int(self.current):
            turn = self._waiting.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)
