"""HTTP with a FHIR server: one pooled client, and every rule about requests in one place.

What may pass is tried again: a connection that fails, a status that says so, and an answer that arrived whole but
cannot be read (a proxy cut it, or put its own page there). How often, in one run, is bounded; so is how many requests
are under way at once, which gives way when the server is overloaded. No request, and no credential, goes to an origin
that is not trusted; files alone are fetched from elsewhere where the caller asks for that, without credentials.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self, TypeVar
from urllib.parse import urlencode

import httpx

from io_fhir_adapter.config import AuthConfig, FhirSourceConfig
from io_fhir_adapter.config.http import HttpConfig
from io_fhir_adapter.errors import AdapterError, TransportError
from io_fhir_adapter.transport.answers import Answer, refusal
from io_fhir_adapter.transport.oauth import sign_in
from io_fhir_adapter.transport.origins import Lookup, Origins, is_absolute, look_up, origin_of, parse_url
from io_fhir_adapter.transport.retry import AdaptiveLimit, RetryBudget, is_overload, pause, retry_after_seconds
from io_fhir_adapter.transport.wire import Incoming, Wire

if TYPE_CHECKING:
    from io_fhir_adapter.transport.fhirpy_bridge import FhirpyOverHttpx

__all__ = ["Answer", "FhirClient", "Incoming", "origin_of", "retry_after_seconds"]

T = TypeVar("T")

_FHIR_JSON: Final = "application/fhir+json"
_USUAL_CONCURRENCY: Final = 4
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REPEATABLE: Final = frozenset({"GET", "HEAD"})
_ERROR_BODY_MIB: Final = 1
_BOM: Final = b"\xef\xbb\xbf"  # JSON has none, but some servers and proxies send one


class FhirClient:
    """A client for one FHIR server. Use as an async context manager.

    Args:
        config: Address, credentials, timeouts, limits.
        where: The configuration key, for messages.
        auth: Other credentials than those of ``config``.
        transport: An httpx transport for tests.
        wait: How to wait between attempts, for tests.
        lookup: How to find the addresses of a host name, for tests.
        clock: This machine's time in seconds since 1970, for tests.

    Attributes:
        base_url: The server, without a trailing slash.
        limit: How many requests may be under way at once.

    Raises:
        ConfigError: A secret, key or certificate cannot be used.
    """

    def __init__(
        self,
        config: HttpConfig,
        where: str,
        *,
        auth: AuthConfig | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = config.base_url
        self._config = config
        self._wait = wait
        self._origins = Origins(self.base_url, map(str, config.trusted_origins), map(str, config.download_origins))
        self._budget = RetryBudget(config.retry_budget)
        self._wire = Wire(config, where, transport=transport, lookup=lookup, clock=clock)
        self._sign_in = sign_in(auth or config.auth, where, config, self._wire, self._origins, self._budget, wait)
        most = config.concurrency if isinstance(config, FhirSourceConfig) else _USUAL_CONCURRENCY
        self.limit = AdaptiveLimit(most)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._sign_in.aclose()
        await self._wire.aclose()

    @cached_property
    def fhirpy(self) -> FhirpyOverHttpx:
        """fhirpy's client for the same server, imported when it is first asked for: a pull does without."""
        from io_fhir_adapter.transport.fhirpy_bridge import FhirpyOverHttpx  # noqa: PLC0415 - and all of aiohttp

        return FhirpyOverHttpx(self.base_url, self.exchange)

    @property
    def requests(self) -> int:
        """How many requests were made."""
        return self._wire.requests

    @property
    def retried(self) -> int:
        """How many of them were made again because something failed."""
        return self._budget.retried

    @property
    def server_date(self) -> str:
        """The Date header of the server's first answer."""
        return self._wire.server_date

    @property
    def clock_skew_s(self) -> float | None:
        """How many seconds the server's clock was ahead of ours at its first answer; None where it did not say."""
        return self._wire.clock_skew_s

    @property
    def certificate_end(self) -> datetime | None:
        """When the server's certificate ends; None without TLS."""
        return self._wire.certificate_end

    @property
    def granted_scopes(self) -> tuple[str, ...]:
        """What the last token may be used for, where the token endpoint said."""
        return self._sign_in.scopes

    def resolve(self, link: str, base: str | None = None) -> str:
        """A link that the server gave, made absolute and checked.

        Raises:
            ForeignOriginError: It leads to an origin that is neither the configured one nor a trusted one.
            TransportError: It is no URL.
        """
        return str(self._resolved(link, base))

    def _resolved(self, link: str, base: str | None = None) -> httpx.URL:
        url = parse_url(link, base or self.base_url, self.base_url)
        self._origins.check(url)
        return url

    async def get(self, path_or_url: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET of a path below the base URL or of a link already resolved."""
        return await self.read(path_or_url, _as_it_is, params)

    async def read(
        self,
        path_or_url: str,
        parse: Callable[[Answer], T],
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> T:
        """GET, and what ``parse`` makes of the answer; a transient error of ``parse`` counts as a failed attempt.

        Raises:
            AdapterError: What :meth:`request` raises, and what ``parse`` raises after all attempts.
        """
        url = path_or_url if is_absolute(path_or_url) else f"{self.base_url}/{path_or_url}"
        if params:
            url += ("&" if "?" in url else "?") + urlencode(params, safe="/,:")
        return await self.exchange("GET", url, parse)

    async def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        content_type: str = _FHIR_JSON, retry: bool = True, accept_errors: bool = False,
    ) -> Answer:  # fmt: skip
        """One request, repeated while the failure may pass.

        Args:
            method: HTTP method. Redirects of GET and HEAD are followed among trusted origins; others are refused.
            url: Absolute URL; its origin must be trusted.
            body: What to send.
            headers: More headers.
            content_type: What the body is, such as ``application/x-www-form-urlencoded`` for a search by POST.
            retry: Whether to repeat at all; the outbox does its own.
            accept_errors: Whether to return answers of 300 and above: those that may pass after all attempts only, and
                none whose body cannot be read.

        Raises:
            TransportError: Connection failed or the answer was an error, after all attempts.
            ForeignOriginError: The URL, or what it redirects to, has an origin that is not trusted.
        """
        return await self.exchange(
            method, url, _as_it_is, body=body, headers=headers, content_type=content_type,
            retry=retry, accept_errors=accept_errors,
        )  # fmt: skip

    async def exchange(
        self, method: str, url: str, parse: Callable[[Answer], T], *, body: bytes | None = None,
        headers: Mapping[str, str] | None = None, content_type: str = _FHIR_JSON, retry: bool = True,
        accept_errors: bool = False,
    ) -> T:  # fmt: skip
        """:meth:`request` and :meth:`read` in one: any method, and what ``parse`` makes of the answer."""
        target = self._resolved(url)
        sent = dict(headers or {})
        if body is not None:
            sent.setdefault("Content-Type", content_type)

        async def attempt(is_last: bool) -> T:
            incoming = await self._open(method, target, sent, body)
            try:
                data = await incoming.read(self._config.max_response_mib)
            finally:
                await incoming.aclose()
            answer = Answer(incoming.status, incoming.headers, (data or b"").removeprefix(_BOM), str(incoming.url))
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                refused = refusal(answer, self.base_url)
                if not accept_errors or data is None or (refused.transient and not is_last):
                    raise refused
            return parse(answer)

        return await self._repeated(attempt, self._config.retries if retry else 0)

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, follow_foreign_without_auth: bool = False, authorised: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Incoming]:  # fmt: skip
        """A large answer, piece by piece: status, headers and final URL at once, then ``chunks()``.

        Tried again until there is an answer of status below 300; what fails after that is the caller's to repeat, as a
        transient TransportError of ``chunks()``. The place among the requests under way is held until then only, so
        that other requests may be made while the body is read.

        Args:
            method: HTTP method.
            url: Absolute URL.
            follow_foreign_without_auth: Whether the URL, and what it redirects to, may have an origin that is not
                trusted: it is asked without credentials, and must not lie inside a network unless it is named under
                ``download_origins``.
            authorised: Whether trusted origins get the credentials.
            headers: More headers, such as Accept.

        Raises:
            TransportError: Connection failed or the answer was an error, after all attempts.
            ForeignOriginError: The URL, or what it redirects to, is not allowed.
        """
        target = parse_url(url, self.base_url, self.base_url)
        if not follow_foreign_without_auth:
            self._origins.check(target)
        sent = dict(headers or {})

        async def attempt(_: bool) -> Incoming:
            incoming = await self._open(
                method, target, sent, None, authorised=authorised, foreign=follow_foreign_without_auth
            )
            if incoming.status < HTTPStatus.MULTIPLE_CHOICES:
                return incoming
            try:
                data = await incoming.read(_ERROR_BODY_MIB)
            finally:
                await incoming.aclose()
            answer = Answer(incoming.status, incoming.headers, data or b"", str(incoming.url))
            raise refusal(answer, self.base_url, untrusted=not self._origins.trusts(incoming.url))

        incoming = await self._repeated(attempt, self._config.retries)
        try:
            yield incoming
        finally:
            await incoming.aclose()

    async def _repeated(self, attempt: Callable[[bool], Awaitable[T]], last: int) -> T:
        """Makes an attempt, and more while the failure may pass, in one place among the requests under way.

        The place is kept while waiting: that is how a busy server gets less to do at once.
        """
        await self.limit.enter()
        try:
            done = 0
            while True:
                mark = self.limit.mark
                try:
                    result = await attempt(done == last)
                except AdapterError as exc:
                    cause = exc if isinstance(exc, TransportError) else None
                    if cause is not None and is_overload(cause):
                        self.limit.overloaded(mark)
                    if not exc.transient or done == last:
                        raise
                    self._budget.spend(cause, self.base_url, self.requests)
                else:
                    self.limit.succeeded()
                    return result
                asked = cause.retry_after if cause is not None else None
                await self._wait(pause(done, asked, self._config.max_retry_wait_s))
                done += 1
        finally:
            self.limit.leave()

    async def _open(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes | None, *,
        authorised: bool = True, foreign: bool = False,
    ) -> Incoming:  # fmt: skip
        """One attempt, redirects and a renewed token included; the answer may be a refusal."""
        target = url
        for _ in range(_MOST_REDIRECTS + 1):
            if not foreign or self._origins.trusts(target):
                incoming = await self._signed(method, target, headers, body, authorised=authorised)
            else:
                self._origins.check_download(target)
                named = self._origins.named(target)
                incoming = await self._wire.open_outside(method, target, headers=headers, named=named)
            location = incoming.headers.get("location") if incoming.status in _REDIRECTS else None
            if location is None or method not in _REPEATABLE:
                return incoming
            await incoming.discard()
            target = parse_url(location, target, self.base_url)
            if not foreign:
                self._origins.check(target, "redirect")
        raise TransportError(
            "the server redirects again and again",
            where=self.base_url,
            do="configure the address that it redirects to",
            number=7,
            transient=False,
        )

    async def _signed(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes | None, *, authorised: bool
    ) -> Incoming:
        """One request to a trusted origin; a second one where the credentials were refused and could be renewed."""
        credentials = self._sign_in.ready if authorised else ""
        if credentials is None:
            credentials = await self._sign_in.header()
        if not credentials:
            return await self._wire.open(method, url, headers=headers, body=body)
        incoming = await self._wire.open(method, url, headers={**headers, "Authorization": credentials}, body=body)
        if incoming.status == HTTPStatus.UNAUTHORIZED and await self._renewed(incoming, credentials):
            credentials = await self._sign_in.header()
            incoming = await self._wire.open(method, url, headers={**headers, "Authorization": credentials}, body=body)
        if incoming.status != HTTPStatus.UNAUTHORIZED:
            self._sign_in.accepted(credentials)
        return incoming

    async def _renewed(self, incoming: Incoming, refused: str) -> bool:
        """Whether there are other credentials after a 401; the answer is closed where there are."""
        renewed = False
        try:
            renewed = await self._sign_in.renewed(refused)
        except AdapterError:
            await incoming.aclose()
            raise
        if renewed:
            await incoming.discard()
        return renewed


def _as_it_is(answer: Answer) -> Answer:
    return answer
