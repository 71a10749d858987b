"""Asking a token endpoint for an access token: OAuth client credentials, with a secret or with a signed assertion.

The endpoint is trusted with this client's proof where the configuration names it, or where the configured server
advertises it over https (or on this machine). An advertised one gets nothing but an assertion made out to itself, and
must lie at a public address unless the configuration names its origin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode

import httpx

from io_fhir_adapter.config.http import AuthConfig, HttpConfig, is_loopback_host
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.transport.auth import Grant, SignIn, StaticSignIn, TokenSignIn, basic, is_token
from io_fhir_adapter.transport.origins import Origins, parse_url
from io_fhir_adapter.transport.retry import RetryBudget, may_pass, pause, retry_after_seconds
from io_fhir_adapter.transport.smart import DEFAULT_SCOPES, advertised_token_url
from io_fhir_adapter.transport.wire import Wire, skew

if TYPE_CHECKING:
    from io_fhir_adapter.transport.signing_key import SigningKey

__all__ = ["TokenEndpoint", "sign_in"]

T = TypeVar("T")

_FORM: Final = "application/x-www-form-urlencoded"
_WELL_KNOWN: Final = ".well-known/smart-configuration"
_MOST_MIB: Final = 1
_SKEW_S: Final = 30.0  # from here on the server's clock is used without being asked
_SEEN_SKEW_S: Final = 2.0  # a Date header has whole seconds
_USUAL_LIFE_S: Final = 300.0  # where the server does not say
_SHORTEST_LIFE_S: Final = 10.0  # a token that ends at once would be asked for without end
_CODE: Final = re.compile(r"[a-z][a-z_]{0,40}")
_REFUSALS: Final = frozenset({400, 401, 403})


def sign_in(
    auth: AuthConfig,
    where: str,
    config: HttpConfig,
    wire: Wire,
    origins: Origins,
    budget: RetryBudget,
    wait: Callable[[float], Awaitable[None]],
) -> SignIn:
    """What signs the requests of one client in.

    Args:
        auth: How to sign in.
        where: The configuration key, for messages.
        config: The server.
        wire: The client's connections.
        origins: Whom it trusts.
        budget: The retries of the run.
        wait: How to wait between attempts.

    Raises:
        ConfigError: A secret or key cannot be used.
    """
    if auth.kind in {"none", "bearer", "basic"}:
        return StaticSignIn(auth, where)
    return TokenSignIn(TokenEndpoint(auth, where, config, wire, origins, budget, wait).grant)


class TokenEndpoint:
    """The token endpoint of one server. The arguments are those of :func:`sign_in`."""

    def __init__(
        self,
        auth: AuthConfig,
        where: str,
        config: HttpConfig,
        wire: Wire,
        origins: Origins,
        budget: RetryBudget,
        wait: Callable[[float], Awaitable[None]],
    ) -> None:
        self._auth = auth
        self._where = where
        self._config = config
        self._wire = wire
        self._origins = origins
        self._budget = budget
        self._wait = wait
        self._key = _signing_key(auth, where) if auth.kind == "smart-backend" else None
        self._secret = auth.client_secret.read(where) if auth.client_secret is not None else ""
        self._url = auth.token_url or ""
        self._ahead_s = 0.0  # the endpoint's clock before ours

    async def grant(self) -> Grant:
        """One access token; what may pass is tried again here, so that those who wait need not.

        Raises:
            TransportError: There is none to be had.
        """
        if not self._url:
            self._url = await self._patiently(self._discover)
        return await self._patiently(self._ask)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        attempt = 0
        while True:
            try:
                return await ask()
            except TransportError as exc:
                if not exc.transient:
                    raise
                if attempt >= self._config.retries:
                    raise TransportError(
                        f"there is no access token to be had ({exc.what})",
                        where=self._url or self._config.base_url,
                        do="see whether the authorisation server is up and can be reached from here",
                        number=12,
                        transient=False,
                        status=exc.status,
                    ) from exc
                self._budget.spend(exc, self._config.base_url, self._wire.requests)
                asked = exc.retry_after
            await self._wait(pause(attempt, asked, self._config.max_retry_wait_s))
            attempt += 1

    async def _discover(self) -> str:
        base = self._config.base_url
        status, headers, body = await self._exchange("GET", f"{base}/{_WELL_KNOWN}", {"Accept": "application/json"})
        if status != httpx.codes.OK:
            raise TransportError(
                f"the server has no SMART configuration (HTTP {status})",
                where=f"{base}/{_WELL_KNOWN}",
                do="name the token endpoint under auth.token_url",
                number=14,
                transient=may_pass(status),
                status=status,
                retry_after=self._asked_wait(headers),
            )
        self._corrected(headers, _SKEW_S)
        return advertised_token_url(body, base)

    async def _ask(self) -> Grant:
        status, headers, body = await self._attempt()
        if status in _REFUSALS and self._key is not None and self._corrected(headers, _SEEN_SKEW_S):
            status, headers, body = await self._attempt()  # the assertion may have come too early or too late
        if status != httpx.codes.OK:
            raise self._refusal(status, headers, body)
        return self._read(body)

    async def _attempt(self) -> tuple[int, httpx.Headers, bytes]:
        form, headers = self._request()
        status, answered, body = await self._exchange("POST", self._url, headers, urlencode(form).encode())
        if status == httpx.codes.OK:
            self._corrected(answered, _SKEW_S)
        return status, answered, body

    def _request(self) -> tuple[dict[str, str], dict[str, str]]:
        """Form and headers of a request for a token."""
        auth, client_id = self._auth, self._auth.client_id or ""
        form = {"grant_type": "client_credentials"}
        headers = {"Content-Type": _FORM, "Accept": "application/json"}
        scopes = auth.scopes or (DEFAULT_SCOPES if self._key is not None else ())
        if scopes:
            form["scope"] = " ".join(scopes)
        if self._key is not None:
            now = self._wire.now() + self._ahead_s
            return form | self._key.proof(client_id, auth.audience or self._url, now), headers
        if auth.audience:
            form["audience"] = auth.audience
        if auth.client_auth == "form":
            form |= {"client_id": client_id, "client_secret": self._secret}
        else:
            # RFC 6749, 2.3.1: both are form-encoded before they become a user name and a password
            headers["Authorization"] = basic(quote_plus(client_id), quote_plus(self._secret))
        return form, headers

    async def _exchange(
        self, method: str, text: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[int, httpx.Headers, bytes]:
        url = parse_url(text, self._config.base_url, self._where)
        if self._origins.trusts(url):
            incoming = await self._wire.open(method, url, headers=headers, body=body)
        else:
            here = is_loopback_host(self._config.url.host) and is_loopback_host(url.host)
            named = self._auth.token_url is not None or here or self._origins.named(url)
            incoming = await self._wire.open_outside(method, url, headers=headers, body=body, named=named)
        try:
            return incoming.status, incoming.headers, await incoming.read(_MOST_MIB) or b""
        finally:
            await incoming.aclose()

    def _corrected(self, headers: httpx.Headers, least: float) -> bool:
        """Takes over the endpoint's clock where ours is off by more than ``least`` seconds; whether that was so."""
        ahead = skew(headers.get("date", ""), self._wire.now())
        if ahead is None or abs(ahead - self._ahead_s) < least:
            return False
        self._ahead_s = ahead
        return True

    def _asked_wait(self, headers: httpx.Headers) -> float | None:
        return retry_after_seconds(headers.get("retry-after"), datetime.fromtimestamp(self._wire.now(), UTC))

    def _refusal(self, status: int, headers: httpx.Headers, body: bytes) -> TransportError:
        code = _member(body, "error")
        # the description that may stand beside it can repeat what was sent, and stays out
        code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
        return TransportError(
            f"the token endpoint refuses (HTTP {status}{', ' * bool(code)}{code})",
            where=self._url,
            do=_ADVICE.get(code, _ADVICE[""]),
            number=13,
            transient=may_pass(status),
            status=status,
            retry_after=self._asked_wait(headers),
        )

    def _read(self, body: bytes) -> Grant:
        token = _member(body, "access_token")
        kind = _member(body, "token_type")
        if not isinstance(token, str) or not is_token(token) or str(kind or "bearer").lower() != "bearer":
            raise TransportError(
                "the token endpoint's answer holds no bearer token",
                where=self._url,
                do="check auth.token_url, and whether a proxy answers in its place",
                number=22,
                transient=False,
            )
        scope = _member(body, "scope")
        scopes = tuple(scope.split()) if isinstance(scope, str) else ()
        return Grant(f"Bearer {token}", _seconds(_member(body, "expires_in")), scopes)


_ADVICE: Final = {
    "": "check client_id, its secret or key, and what the server's administrator registered",
    "invalid_client": "check client_id and the secret, or that the server knows the public key and its key_id; "
    "if it does, name the audience that it wants under auth.audience",
    "invalid_scope": "ask under auth.scopes for what the client was registered for",
    "unauthorized_client": "have the server's administrator allow this client the grant client_credentials",
    "unsupported_grant_type": "check auth.token_url: this endpoint does not serve backend clients",
}


def _signing_key(auth: AuthConfig, where: str) -> SigningKey:
    from io_fhir_adapter.transport.signing_key import SigningKey  # noqa: PLC0415 - cryptography, nine MiB

    return SigningKey(auth, where)


def _member(body: bytes, name: str) -> Any:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content.get(name) if isinstance(content, dict) else None


def _seconds(value: Any) -> float:
    """How long a token lasts; some servers write the number as text."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return _USUAL_LIFE_S
    return max(_SHORTEST_LIFE_S, seconds) if seconds < float("inf") else _USUAL_LIFE_S
