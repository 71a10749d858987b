"""HTTP with a FHIR server: one pooled httpx client under fhirpy's AsyncFHIRClient.

fhirpy opens a session per request and parses into dictionaries of its own; here it keeps its vocabulary (resources,
search sets, execute) and the requests go through :class:`FhirClient`, which adds pooling, timeouts, retries with
jittered backoff, ``Retry-After`` in both forms, a bound on the size of an answer, and one rule: no request, and no
credential, goes to an origin that is not trusted.

What may pass is tried again in one place: a connection that fails, a status that says so, and an answer that arrived
whole but cannot be read (a proxy cut it, or put its own page there).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

import httpx
from fhirpy import AsyncFHIRClient

from io_fhir_adapter.config import AuthConfig, FhirSourceConfig, SubmissionConfig
from io_fhir_adapter.errors import AdapterError, ConfigError, ForeignOriginError, TransportError

__all__ = ["Answer", "FhirClient", "origin_of", "retry_after_seconds"]

T = TypeVar("T")

_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_BASE_WAIT_S: Final = 0.5
_JSON: Final = "application/fhir+json, application/json;q=0.9"
_LONGEST_S: Final = 1e9  # that a Retry-After is taken for; who asks for more asks for ever
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ISSUE_CODE: Final = re.compile(r"[a-z][a-z-]{0,30}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str

    @property
    def is_json(self) -> bool:
        """Whether the server says that the body is JSON."""
        return "json" in self.headers.get("content-type", "").lower()


def origin_of(url: str | httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port of a URL, ports spelt out.

    Parsed as the client that makes the request parses it, so that the two cannot disagree on where a URL leads.
    """
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port or _DEFAULT_PORTS.get(parsed.scheme, 0)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """``Retry-After`` in seconds, from either of its forms; None where absent or unreadable."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _auth_header(auth: AuthConfig, where: str) -> dict[str, str]:
    if auth.kind == "bearer" and auth.token is not None:
        return {"Authorization": f"Bearer {auth.token.read(where)}"}
    if auth.kind == "basic" and auth.username is not None and auth.password is not None:
        token = httpx.BasicAuth(auth.username, auth.password.read(where))
        request = next(token.auth_flow(httpx.Request("GET", "http://unused.invalid")))
        return {"Authorization": request.headers["Authorization"]}
    return {}


def _parsed(answer: Answer) -> tuple[Any, int]:
    try:
        return (json.loads(answer.body) if answer.body else None), answer.status
    except ValueError as exc:
        raise TransportError(
            "the server's answer is no JSON", where=answer.url, do="check the base URL and proxies", number=10
        ) from exc


class _FhirpyOverHttpx(AsyncFHIRClient):
    """fhirpy's client with its transport replaced: every request goes through the pooled one."""

    def __init__(self, base_url: str, client: FhirClient) -> None:
        super().__init__(base_url)
        self._client = client

    async def _do_request(
        self,
        method: str,
        path: str,
        data: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        extra_headers: dict[str, str] | None = None,
        *,
        returning_status: bool = False,
    ) -> Any:
        body = json.dumps(data).encode() if data is not None else None
        url = self._build_request_url(path, params)
        parsed, status = await self._client.exchange(method.upper(), url, _parsed, body=body, headers=extra_headers)
        return (parsed, status) if returning_status else parsed


class FhirClient:
    """A client for one FHIR server. Use as an async context manager.

    Args:
        config: Address, credentials, timeouts, limits.
        where: The configuration key, for messages.
        transport: An httpx transport for tests.
        wait: How to wait between attempts, for tests.
    """

    def __init__(
        self,
        config: FhirSourceConfig | SubmissionConfig,
        where: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.base_url = config.base_url
        self.retried = 0
        self.requests = 0
        self.server_date = ""  # the Date header of the first answer
        self._config = config
        self._trusted = {origin_of(self.base_url), *(origin_of(str(url)) for url in config.trusted_origins)}
        self._wait = wait
        self._auth = _auth_header(config.auth, where)
        self._limit = config.max_response_mib << 20
        self._http = httpx.AsyncClient(
            transport=transport,
            verify=_tls(config),
            timeout=httpx.Timeout(config.read_timeout_s, connect=config.connect_timeout_s),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=16),
            headers={"Accept": _JSON, "User-Agent": "io-fhir-adapter"},
            follow_redirects=False,
        )
        self.fhirpy = _FhirpyOverHttpx(self.base_url, self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    def resolve(self, link: str, base: str | None = None) -> str:
        """A link that the server gave, made absolute and checked.

        Raises:
            ForeignOriginError: It leads to an origin that is neither the configured one nor a trusted one.
            TransportError: It is no URL.
        """
        return str(self._resolved(link, base))

    def _resolved(self, link: str, base: str | None = None) -> httpx.URL:
        try:
            # parsing a URL of many ids takes long enough to do it once only
            url = httpx.URL(link) if "://" in link else httpx.URL(base or self.base_url).join(link)
            scheme, host, port = origin_of(url)
        except (httpx.InvalidURL, ValueError) as exc:
            raise TransportError(
                "the server's link is no URL",
                where=self.base_url,
                do="report this to the server's vendor",
                number=11,
                transient=False,
            ) from exc
        if (scheme, host, port) not in self._trusted:
            raise ForeignOriginError(
                f"the server's link leads to another origin ({scheme}://{host}:{port})",
                where=self.base_url,
                do="if that is the same server, name it under trusted_origins",
                number=6,
            )
        return url

    async def get(self, path_or_url: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET of a path below the base URL or of a link already resolved."""
        return await self.read(path_or_url, _as_it_is, params)

    async def read(self, path_or_url: str, parse: Callable[[Answer], T], params: Mapping[str, str] | None = None) -> T:
        """GET, and what ``parse`` makes of the answer; a transient error of ``parse`` counts as a failed attempt.

        Raises:
            AdapterError: What :meth:`request` raises, and what ``parse`` raises after all attempts.
        """
        url = path_or_url if "://" in path_or_url else f"{self.base_url}/{path_or_url}"
        if params:
            url += ("&" if "?" in url else "?") + urlencode(params, safe="/,:")
        return await self.exchange("GET", url, parse)

    async def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        retry: bool = True, accept_errors: bool = False,
    ) -> Answer:  # fmt: skip
        """One request, repeated while the failure may pass.

        Args:
            method: HTTP method.
            url: Absolute URL; its origin must be trusted.
            body: JSON bytes.
            headers: More headers.
            retry: Whether to repeat at all; the outbox does its own.
            accept_errors: Whether to return answers of 300 and above, those that may pass after all attempts only.

        Raises:
            TransportError: Connection failed or the answer was an error, after all attempts.
            ForeignOriginError: The URL's origin is not trusted.
        """
        return await self.exchange(
            method, url, _as_it_is, body=body, headers=headers, retry=retry, accept_errors=accept_errors
        )

    async def exchange(
        self, method: str, url: str, parse: Callable[[Answer], T], *, body: bytes | None = None,
        headers: Mapping[str, str] | None = None, retry: bool = True, accept_errors: bool = False,
    ) -> T:  # fmt: skip
        """:meth:`request` and :meth:`read` in one: any method, and what ``parse`` makes of the answer."""
        target = self._resolved(url)
        sent = {**(headers or {}), **self._auth}
        if body is not None:
            sent.setdefault("Content-Type", "application/fhir+json")
        last = self._config.retries if retry else 0
        for attempt in range(last + 1):
            try:
                answer = await self._once(method, target, body, sent)
                refusal = self._refusal(answer) if answer.status >= HTTPStatus.MULTIPLE_CHOICES else None
                if refusal is not None and not (accept_errors and (not refusal.transient or attempt == last)):
                    raise refusal
                return parse(answer)
            except AdapterError as exc:
                if not exc.transient or attempt == last:
                    raise
                asked = exc.retry_after if isinstance(exc, TransportError) else None
            self.retried += 1
            await self._wait(self._pause(attempt, asked))
        raise AssertionError("unreachable")  # pragma: no cover

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to the next attempt; with jitter, so that many clients do not come back in step."""
        longest = self._config.max_retry_wait_s
        backoff = min(_BASE_WAIT_S * 2.0**attempt, longest) * random.uniform(0.5, 1.0)  # noqa: S311
        asked = retry_after + random.uniform(0.0, _BASE_WAIT_S) if retry_after is not None else 0.0  # noqa: S311
        return min(max(backoff, asked), longest)

    async def _once(self, method: str, url: httpx.URL, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        self.requests += 1
        try:
            async with self._http.stream(method, url, content=body, headers=headers) as response:
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > self._limit:
                        raise TransportError(
                            f"the answer is larger than {self._config.max_response_mib} MiB",
                            where=self.base_url,
                            do="lower page_size or raise max_response_mib",
                            number=5,
                            transient=False,
                        )
                self.server_date = self.server_date or response.headers.get("date", "")
                return Answer(response.status_code, response.headers, bytes(data), str(response.url))
        except httpx.TimeoutException as exc:
            raise TransportError(
                "the server did not answer in time",
                where=self.base_url,
                do="raise read_timeout_s or ask for less",
                number=2,
            ) from exc
        except httpx.HTTPError as exc:
            if _is_distrust(exc):
                raise TransportError(
                    "the server's certificate is not trusted",
                    where=self.base_url,
                    do="name the CA that signed it under ca_file, or correct the host name",
                    number=9,
                    transient=False,
                ) from exc
            raise TransportError(
                f"the connection failed ({type(exc).__name__})",
                where=self.base_url,
                do="check the address, the network and the certificate",
                number=1,
            ) from exc

    def _refusal(self, answer: Answer) -> TransportError:
        status = answer.status
        retry_after = retry_after_seconds(answer.headers.get("retry-after"), datetime.now(UTC))
        if status in {401, 403}:
            what, do, number = "the server refused the credentials", "check auth and what it may read", 3
        elif status in range(300, 400):
            what, do, number = "the server redirects", "configure the address that it redirects to", 7
        elif status in _RETRIED:
            what, do, number = "the server is busy or failing", "try again later; lower concurrency if it persists", 4
        else:
            what, do, number = "the server refused the request", "see what it supports with the check command", 8
        detail = _outcome(answer)
        return TransportError(
            f"{what} (HTTP {status}{detail})",
            where=self.base_url,
            do=do,
            number=number,
            transient=status in _RETRIED,
            status=status,
            retry_after=retry_after,
        )


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _outcome(answer: Answer) -> str:
    """The issue codes of an OperationOutcome; its texts may quote patient data and stay out."""
    if not answer.is_json:
        return ""
    try:
        codes = [str(issue["code"]) for issue in json.loads(answer.body)["issue"]]
    except (ValueError, KeyError, TypeError):
        return ""
    return "".join(f", {code}" for code in dict.fromkeys(codes) if _ISSUE_CODE.fullmatch(code))


def _is_distrust(exc: BaseException) -> bool:
    """Whether a failed check of the server's certificate lies behind an error; no later attempt will pass it."""
    behind: BaseException | None = exc
    while behind is not None:
        if isinstance(behind, ssl.SSLCertVerificationError):
            return True
        behind = behind.__cause__ or behind.__context__
    return False


def _tls(config: FhirSourceConfig | SubmissionConfig) -> ssl.SSLContext | bool:
    if config.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(config.ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            "the CA file cannot be read",
            where=str(config.ca_file),
            do="give a PEM file with the CA certificate",
            number=4,
        ) from exc
