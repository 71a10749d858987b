"""Signing in: the Authorization header of requests, and who renews it.

Tokens live in memory alone and are never written or logged.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from io_fhir_adapter.config.http import AuthConfig
from io_fhir_adapter.errors import ConfigError

__all__ = ["Grant", "SignIn", "StaticSignIn", "TokenSignIn", "basic", "is_token"]

_LATEST_RENEWAL_S: Final = 60.0  # before the end
_RENEWED_SHARE: Final = 0.2  # of a short token's life
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """An access token.

    Attributes:
        header: The Authorization header.
        lasts_s: How many seconds it lasts from when it was asked for.
        scopes: What was granted, where the server says.
    """

    header: str
    lasts_s: float
    scopes: tuple[str, ...] = ()


class SignIn(Protocol):
    """What gives requests their Authorization header."""

    scopes: tuple[str, ...]

    @property
    def ready(self) -> str | None:
        """The header, empty where none is sent; None where it has to be fetched first."""

    async def header(self) -> str:
        """The header, fetched where needed."""

    def accepted(self, header: str) -> None:
        """The server took the header."""

    async def renewed(self, refused: str) -> bool:
        """After a 401: whether there is another header than the refused one, so that one more try makes sense."""

    async def aclose(self) -> None:
        """Ends what is still under way."""


class StaticSignIn:
    """Nothing, a lasting token, or a user name and password; read again after a 401, since files are replaced.

    Args:
        config: What to send.
        where: The configuration key, for messages.

    Raises:
        ConfigError: A secret cannot be read, or is none that can be sent.
    """

    scopes: tuple[str, ...] = ()

    def __init__(self, config: AuthConfig, where: str) -> None:
        self._config = config
        self._where = where
        self.ready: str | None = _static_header(config, where)

    async def header(self) -> str:
        """The header."""
        return self.ready or ""

    def accepted(self, header: str) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""

    async def renewed(self, refused: str) -> bool:
        """Whether the secret was replaced meanwhile."""
        self.ready = _static_header(self._config, self._where)
        return self.ready != refused


class TokenSignIn:
    """Access tokens: fetched when needed, renewed before they end and after a 401, by one request for all who wait.

    A token that was itself fetched because of a 401 and was never accepted is not renewed: the server refuses this
    client, not this token, and asking again would only make a storm.

    Args:
        fetch: Asks the token endpoint.
        monotonic: A clock that nobody sets, for tests.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Grant]], monotonic: Callable[[], float] = time.monotonic) -> None:
        self.scopes: tuple[str, ...] = ()
        self._fetch = fetch
        self._monotonic = monotonic
        self._header = ""
        self._renew_at = 0.0
        self._fetching: asyncio.Task[None] | None = None
        self._after_refusal = False

    @property
    def ready(self) -> str | None:
        """The header while its token is good for a while yet."""
        return self._header if self._header and self._monotonic() < self._renew_at else None

    async def header(self) -> str:
        """The header, with a fresh token where the last one is about to end.

        Raises:
            TransportError: The token endpoint gives none.
        """
        header = self.ready
        while not header:
            await self._refresh()
            header = self._header  # however short it lasts; only a refusal meanwhile takes it away
        return header

    def accepted(self, header: str) -> None:
        """The server took the token."""
        if self._after_refusal and header == self._header:
            self._after_refusal = False

    async def renewed(self, refused: str) -> bool:
        """Whether another token could be fetched, or someone else has fetched one already.

        Raises:
            TransportError: The token endpoint gives none.
        """
        if self._header == refused:
            if self._after_refusal:
                return False
            self._renew_at = 0.0
            self._header = ""
            self._after_refusal = True
        await self.header()
        return True

    async def _refresh(self) -> None:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_one())
            self._fetching.add_done_callback(self._fetched)
        # shielded: whoever gives up waiting does not take the token from the others
        await asyncio.shield(self._fetching)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()  # those who wait raise it; with nobody left it has been seen

    async def _fetch_one(self) -> None:
        asked = self._monotonic()
        grant = await self._fetch()
        early = min(_LATEST_RENEWAL_S, grant.lasts_s * _RENEWED_SHARE)
        self._header = grant.header
        self._renew_at = asked + grant.lasts_s - early
        self.scopes = grant.scopes

    async def aclose(self) -> None:
        """Ends a request for a token that nobody waits for any more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)


def _static_header(config: AuthConfig, where: str) -> str:
    if config.kind == "bearer" and config.token is not None:
        return f"Bearer {_sendable(config.token.read(where), where)}"
    if config.kind == "basic" and config.username is not None and config.password is not None:
        return basic(config.username, config.password.read(where))
    return ""


def _sendable(token: str, where: str) -> str:
    if not is_token(token):
        raise ConfigError(
            "the bearer token holds a blank or another character that no token has",
            where=where,
            do="write the token alone into its file or variable, without a word before it",
            number=3,
        )
    return token


def is_token(text: str) -> bool:
    """Whether a text can be sent as a token: visible characters of ASCII and nothing else."""
    return _TOKEN.fullmatch(text) is not None


def basic(username: str, password: str) -> str:
    """The header of a user name and password."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
