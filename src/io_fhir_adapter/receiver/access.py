"""Who is asking: a facility by a lasting or a granted token, or one of the body's people by name and password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from io_fhir_adapter.look.passwords import BusyError, Passwords
from io_fhir_adapter.receiver.grants import granted
from io_fhir_adapter.receiver.rates import RateLimiter, neighbourhood
from io_fhir_adapter.receiver.registry import Registry
from io_fhir_adapter.receiver.responses import retry_after
from io_fhir_adapter.receiver.scopes import ALL_SCOPES, allowed
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import Issue, Limits, RefusedError

__all__ = ["Access", "Caller", "address_of", "too_many"]

_ANONYMOUS: Final = "operator"
_REMEMBERED: Final = 64
_REMEMBERED_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for something of the FHIR interface.

    Attributes:
        facility: Its code; None where the endpoint is open to everyone.
        scopes: What it may do.
    """

    facility: str | None
    scopes: tuple[str, ...]

    def need(self, kinds: Iterable[str], deeds: str) -> None:
        """Refuses who may not do something.

        Args:
            kinds: Resource types.
            deeds: Letters of ``cruds``.

        Raises:
            RefusedError: 403.
        """
        if not all(allowed(self.scopes, kind, deeds) for kind in kinds):
            challenge = {"WWW-Authenticate": 'Bearer realm="accreditation", error="insufficient_scope"'}
            raise RefusedError(403, Issue("forbidden", "the token's scopes do not allow this"), headers=challenge)


class Access:
    """Knows who is asking.

    Args:
        store: Keeps what was granted.
        registry: Who is registered; None opens the endpoint to everyone.
        operator_token: A password for the body's pages that goes with any name.
        limits: How often somebody may ask, and fail.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        store: ReceiverStore,
        registry: Registry | None,
        operator_token: str | None,
        limits: Limits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.registry = registry
        self.clock = clock
        self._operator_token = operator_token
        self._operators = {one.name: one.password_hash for one in registry.operators} if registry else {}
        self._passwords = Passwords() if self._operators else None
        self._rates = RateLimiter(limits.facility_rate)
        self._failures = RateLimiter(limits.failure_rate)
        self._mask = secrets.token_bytes(32)
        self._seen: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def caller(self, request: Request) -> Caller:
        """The facility that the bearer token is of. Reads the database: not for the event loop.

        Raises:
            RefusedError: 401 nobody that is known; 429 a facility that asks too often.
        """
        if self.registry is None:
            return Caller(None, ALL_SCOPES)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = self._bearer(self.registry, token.strip()) if scheme.lower() == "bearer" else None
        if found is None or found.facility is None:
            told = ', error="invalid_token"' if token else ""
            challenge = {"WWW-Authenticate": f'Bearer realm="accreditation"{told}'}
            raise RefusedError(401, Issue("login", "send the bearer token of a registered facility"), headers=challenge)
        too_many(self._rates.take(found.facility))
        return found

    def _bearer(self, registry: Registry, token: str) -> Caller | None:
        lasting = registry.bearer(token)
        if lasting is not None:
            return Caller(lasting.code, lasting.scopes) if lasting.active else None
        with self.store.reading() as connection:
            given = granted(connection, token, self.clock())
        owner = registry.facility(given.facility) if given is not None else None
        return Caller(owner.code, given.scopes) if given is not None and owner is not None and owner.active else None

    def operator(self, request: Request) -> str | None:
        """The name of the body's person who asks for a page; None for nobody that is known.

        Where the endpoint is open everyone may look. Hashes a password: not for the event loop.

        Raises:
            RefusedError: 429 after too many failed tries; 503 too many sign in at once.
        """
        if self.registry is None:
            return _ANONYMOUS
        given = request.headers.get("authorization", "")
        if not given:
            return None
        self.may_try(request)
        name = self._operator(given)
        if name is None:
            self.failed(request)
        return name

    def _operator(self, given: str) -> str | None:
        seen = hmac.digest(self._mask, given.encode("utf-8", "replace"), hashlib.sha256)
        name, until = self._seen.get(seen, ("", 0.0))
        if until > self.clock():
            return name
        scheme, _, encoded = given.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        if scheme.lower() != "basic":
            return None
        shared = self._operator_token
        if shared and hmac.compare_digest(password.encode(), shared.encode()):
            return _ANONYMOUS
        if self._passwords is None or not self._right(self._passwords, user, password):
            return None
        # Browsers send the password with every request, and a hash takes a good part of a second.
        self._seen[seen] = (user, self.clock() + _REMEMBERED_S)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return user

    def _right(self, passwords: Passwords, user: str, password: str) -> bool:
        try:
            return passwords.verify(self._operators.get(user), password)
        except BusyError as exc:
            raise RefusedError(503, Issue("throttled", "too many sign in at once"), headers=retry_after(1)) from exc

    def may_try(self, request: Request) -> None:
        """Refuses an address that failed too often.

        Raises:
            RefusedError: 429.
        """
        too_many(self._failures.wait(address_of(request)))

    def failed(self, request: Request) -> None:
        """Counts a failed sign-in."""
        self._failures.take(address_of(request))


def too_many(wait: float) -> None:
    """Refuses what has to wait so many seconds first.

    Raises:
        RefusedError: 429.
    """
    if wait > 0:
        raise RefusedError(429, Issue("throttled", "too many requests"), headers=retry_after(wait))


def address_of(request: Request) -> str:
    """The network address that a request is counted under."""
    return neighbourhood(request.client.host if request.client is not None else "")
