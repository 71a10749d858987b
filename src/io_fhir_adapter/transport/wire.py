"""Requests on the wire: pooled connections, a proxy where one is named, and httpx's errors as ours.

Below the policy: it sends what it is told to where it is told to, and says what became of it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import httpx
from httpcore._async.http11 import AsyncHTTP11Connection

from io_fhir_adapter.config.http import HttpConfig
from io_fhir_adapter.errors import ConfigError, TransportError
from io_fhir_adapter.transport.bodies import ACCEPTED_ENCODING, decoded
from io_fhir_adapter.transport.origins import Lookup, Origin, open_addresses, origin_of
from io_fhir_adapter.transport.tls import home_context, is_distrust, is_refused_handshake, outside_context, peer_end

__all__ = ["Incoming", "Wire", "skew"]

_MOST_CONNECTIONS: Final = 64
_KEPT_CONNECTIONS: Final = 32
_JSON: Final = "application/fhir+json, application/json;q=0.9"
_SHORT: Final = 1 << 16
_PATIENCE: Final = 10  # times read_timeout_s, for a whole answer: else a server that drips would hold a pull for ever
_SLOWEST: Final = 4_096  # bytes a second; an answer that comes as quickly is never cut off
_PROXY_AUTHENTICATION: Final = "407"

# a page of a search is half a megabyte: taken in pieces of httpcore's 64 KiB it costs a quarter more than in large ones
AsyncHTTP11Connection.READ_NUM_BYTES = 1 << 20


class Incoming:
    """An answer whose body is still to come; to be closed.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        url: The address that it was asked of.
    """

    def __init__(self, response: httpx.Response, url: httpx.URL, where: str, patience_s: float) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.url = url
        self._response = response
        self._where = where
        self._patience_s = patience_s

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body without its Content-Encoding.

        Raises:
            TransportError: The connection ends or stalls, or the encoding is broken.
        """
        encoding = self.headers.get("content-encoding", "")
        if not encoding:
            async for chunk in self.raw_chunks():
                yield chunk
            return
        async for chunk in decoded(self.raw_chunks(), encoding, self._where):
            yield chunk

    async def raw_chunks(self) -> AsyncIterator[bytes]:
        """The body as it travels, chunked transfer undone.

        Raises:
            TransportError: The connection ends or stalls.
        """
        try:
            # the stream itself: httpx would unpack without a bound, and does not notice a cut gzip body
            async for chunk in self._response.stream:  # type: ignore[union-attr]
                yield chunk
        except (httpx.HTTPError, OSError) as exc:  # alerts of TLS 1.3 come while reading, as they are
            raise _translated(exc, self._where) from exc

    async def read(self, mebibytes: int) -> bytes | None:
        """The whole body.

        Args:
            mebibytes: The most that is taken, uncompressed.

        Returns:
            None where that of a refusal (300 and above) cannot be read: its status says enough.

        Raises:
            TransportError: It is larger, or does not arrive whole, or not in any reasonable time.
        """
        try:
            return await self._whole(mebibytes)
        except TransportError:
            if self.status >= HTTPStatus.MULTIPLE_CHOICES:
                return None
            raise

    async def _whole(self, mebibytes: int) -> bytes:
        limit = mebibytes << 20
        pieces: list[bytes] = []
        size = 0
        end = asyncio.get_running_loop().time() + self._patience_s
        try:
            async with asyncio.timeout_at(end) as waiting:
                async for chunk in self.chunks():
                    pieces.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise TransportError(
                            f"the answer is larger than {mebibytes} MiB",
                            where=self._where,
                            do="lower page_size or raise max_response_mib",
                            number=5,
                            transient=False,
                        )
                    waiting.reschedule(end + size / _SLOWEST)
        except TimeoutError as exc:
            raise _too_late(self._where) from exc
        return b"".join(pieces)

    async def discard(self) -> None:
        """Closes it unread, but keeps the connection where the rest is short."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) <= _SHORT:
            await self.read(1)
        await self.aclose()

    async def aclose(self) -> None:
        """Gives the connection back, or ends it where the body was not read whole."""
        await self._response.aclose()


@dataclass(frozen=True, slots=True)
class _Pin:
    address: str
    client: httpx.AsyncClient


class Wire:
    """The connections of one client.

    Args:
        config: Address, certificates, proxy, timeouts.
        where: The configuration key, for messages.
        transport: An httpx transport for tests.
        lookup: How to find the addresses of a host name.
        clock: This machine's time, in seconds since 1970.

    Raises:
        ConfigError: A certificate, a key or a secret cannot be used.
    """

    def __init__(
        self,
        config: HttpConfig,
        where: str,
        *,
        transport: httpx.AsyncBaseTransport | None,
        lookup: Lookup,
        clock: Callable[[], float],
    ) -> None:
        self.requests = 0
        self.server_date = ""
        self.clock_skew_s: float | None = None
        self.certificate_end: datetime | None = None
        self._config = config
        self._where = config.base_url
        self._transport = transport
        self._lookup = lookup
        self._clock = clock
        self._proxy = _proxy(config, where)
        self._home_origin = origin_of(config.base_url)
        self._home = self._client(home_context(config, where))
        self._outside: httpx.AsyncClient | None = None
        self._pinned: dict[Origin, _Pin] = {}
        self._unpinned: list[_Pin] = []

    def _client(self, context: ssl.SSLContext) -> httpx.AsyncClient:
        config = self._config
        return httpx.AsyncClient(
            transport=self._transport,
            verify=context,
            proxy=self._proxy if self._transport is None else None,
            timeout=httpx.Timeout(config.read_timeout_s, connect=config.connect_timeout_s, pool=None),
            limits=httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_KEPT_CONNECTIONS),
            headers={"Accept": _JSON, "Accept-Encoding": ACCEPTED_ENCODING, "User-Agent": "io-fhir-adapter"},
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._home.aclose()
        if self._outside is not None:
            await self._outside.aclose()
        for pin in (*self._pinned.values(), *self._unpinned):
            await pin.client.aclose()

    async def open(
        self, method: str, url: httpx.URL, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Incoming:
        """A request to a trusted origin.

        Raises:
            TransportError: There was no answer.
        """
        return await self._open(self._home, method, url, url, headers, body, {})

    async def open_outside(
        self, method: str, url: httpx.URL, *, headers: Mapping[str, str], named: bool, body: bytes | None = None
    ) -> Incoming:
        """A request to an origin that is not trusted, with nothing of this server's trust: no certificate of ours.

        Args:
            method: HTTP method.
            url: The address.
            headers: Headers.
            named: Whether the configuration names the origin. Where it does not, the address behind the name must be
                a public one, and the request goes to the very address that was looked at.
            body: What to send.

        Raises:
            ForeignOriginError: The address lies inside a network.
            TransportError: There was no answer.
        """
        if named:
            if self._outside is None:
                self._outside = self._client(outside_context(self._config))
            return await self._open(self._outside, method, url, url, headers, body, {})
        pin = await self._pin(url)
        # through a proxy the name itself travels: it is the proxy that connects
        target = url if self._proxy is not None else url.copy_with(host=pin.address)
        sent = {**headers, "Host": url.netloc.decode("ascii")}
        try:
            return await self._open(pin.client, method, target, url, sent, body, {"sni_hostname": url.host})
        except TransportError:
            if self._pinned.get(origin_of(url)) is pin:  # the next attempt looks again, and at the next address
                self._unpinned.append(self._pinned.pop(origin_of(url)))
            raise

    async def _pin(self, url: httpx.URL) -> _Pin:
        """The address that an origin is asked at in this run, and connections of its own.

        Of its own, because connections are kept by address, and two hosts may share one.
        """
        origin = origin_of(url)
        if origin not in self._pinned:
            addresses = await open_addresses(url, self._lookup, self._where)
            address = addresses[len(self._unpinned) % len(addresses)]
            if origin not in self._pinned:  # nobody was faster
                self._pinned[origin] = _Pin(address, self._client(outside_context(self._config)))
        return self._pinned[origin]

    async def _open(
        self,
        client: httpx.AsyncClient,
        method: str,
        target: httpx.URL,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: bytes | None,
        extensions: dict[str, str],
    ) -> Incoming:
        self.requests += 1
        request = client.build_request(method, target, content=body, headers=headers, extensions=extensions)
        try:
            response = await client.send(request, stream=True)
        except (httpx.HTTPError, OSError) as exc:  # alerts of TLS 1.3 come while reading, as they are
            raise _translated(exc, self._where) from exc
        if not self.server_date and origin_of(url) == self._home_origin:
            self._note(response)
        return Incoming(response, url, self._where, _PATIENCE * self._config.read_timeout_s)

    def _note(self, response: httpx.Response) -> None:
        """What the first answer tells about the server's clock and certificate."""
        self.server_date = response.headers.get("date", "")
        self.clock_skew_s = skew(self.server_date, self._clock())
        self.certificate_end = peer_end(response)

    def now(self) -> float:
        """This machine's time, in seconds since 1970."""
        return self._clock()


def skew(date: str, now: float) -> float | None:
    """How many seconds a server's Date header is ahead of ``now``; None where it cannot be read."""
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _translated(exc: httpx.HTTPError | OSError, where: str) -> TransportError:
    """An error of the connection in our words."""
    if isinstance(exc, httpx.TimeoutException):
        return _too_late(where)
    if is_distrust(exc):
        return TransportError(
            "the server's certificate is not trusted",
            where=where,
            do="name the CA that signed it under ca_file, or correct the host name",
            number=9,
            transient=False,
        )
    if is_refused_handshake(exc):
        return TransportError(
            "the server refuses the TLS handshake",
            where=where,
            do="if it wants a client certificate, check client_cert_file: issuer, end, whether it is known",
            number=20,
            transient=False,
        )
    if isinstance(exc, httpx.ProxyError):
        refused = str(exc).startswith(_PROXY_AUTHENTICATION)
        return TransportError(
            "the proxy refuses the sign-in" if refused else "the proxy does not let the request through",
            where=where,
            do="check proxy, proxy_username and proxy_password",
            number=21,
            transient=not refused,
        )
    return TransportError(
        f"the connection failed ({type(exc).__name__})",
        where=where,
        do="check the address, the network and the certificate",
        number=1,
    )


def _too_late(where: str) -> TransportError:
    return TransportError(
        "the server did not answer in time", where=where, do="raise read_timeout_s or ask for less", number=2
    )


def _proxy(config: HttpConfig, where: str) -> httpx.Proxy | None:
    if config.proxy is None:
        return None
    auth = None
    if config.proxy_username is not None and config.proxy_password is not None:
        auth = (config.proxy_username, config.proxy_password.read(where))
    try:
        return httpx.Proxy(str(config.proxy), auth=auth)
    except (ValueError, httpx.InvalidURL) as exc:
        raise ConfigError(
            "the proxy's address cannot be used", where=where, do="write it like http://host:3128", number=11
        ) from exc
