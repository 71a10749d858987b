"""What will go wrong soon, or is already odd: certificates about to end, clocks that differ, scopes not granted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from io_fhir_adapter.config.http import AuthConfig, HttpConfig
from io_fhir_adapter.errors import AdapterError, ConfigError
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.transport.smart import DEFAULT_SCOPES
from io_fhir_adapter.transport.tls import client_certificate_end

__all__ = ["Hint", "connection_hints", "failure_hints"]

_SOON_DAYS: Final = 30
_SKEW_S: Final = 30.0
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_UNREACHED: Final = frozenset({"IOA-NET-001", "IOA-NET-002"})


@dataclass(frozen=True, slots=True)
class Hint:
    """One thing to know about a connection; ``do`` says what to fix where something is wrong."""

    about: str
    state: Literal["ok", "warn", "fail"]
    text: str
    do: str = ""


def connection_hints(client: FhirClient, config: HttpConfig, now: datetime) -> Iterator[Hint]:
    """What a client has seen, after its first answers.

    Raises:
        ConfigError: The client certificate cannot be read.
    """
    yield from _clock(client.clock_skew_s)
    yield from _scopes(client.granted_scopes, config.auth)
    yield from _certificate(
        "server certificate", client.certificate_end, now, "have the server's administrator renew it"
    )
    yield from _client_certificate(config, now)


def failure_hints(error: AdapterError, config: HttpConfig, now: datetime) -> Iterator[Hint]:
    """What may be behind a failure: a proxy of the environment that is not used, a client certificate that ended.

    Raises:
        ConfigError: The client certificate cannot be read.
    """
    named = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if error.code in _UNREACHED and config.proxy is None and named is not None:
        yield Hint("proxy", "warn", f"the environment's {named} is not used", "name the proxy in the configuration")
    if not isinstance(error, ConfigError):
        yield from _client_certificate(config, now)


def _clock(ahead: float | None) -> Iterator[Hint]:
    if ahead is None:
        return
    if abs(ahead) < _SKEW_S:
        yield Hint("clock", "ok", "agrees with the server's")
        return
    text = f"this machine's clock is {abs(ahead):,.0f} s {'behind' if ahead > 0 else 'ahead of'} the server's"
    yield Hint("clock", "warn", text, "synchronise it (NTP); sign-in uses the server's time meanwhile")


def _scopes(granted: tuple[str, ...], auth: AuthConfig) -> Iterator[Hint]:
    asked = auth.scopes or (DEFAULT_SCOPES if auth.kind == "smart-backend" else ())
    missing = sorted(set(asked) - set(granted)) if granted else []
    if missing:
        do = "have the server's administrator register the client for them, or correct auth.scopes"
        yield Hint("scopes", "warn", f"asked for, but not granted: {', '.join(missing)}", do)
    elif granted:
        yield Hint("scopes", "ok", " ".join(granted))


def _client_certificate(config: HttpConfig, now: datetime) -> Iterator[Hint]:
    do = "have the hospital's authority issue a new one, and name it under client_cert_file"
    yield from _certificate("client certificate", client_certificate_end(config), now, do)


def _certificate(about: str, end: datetime | None, now: datetime, do: str) -> Iterator[Hint]:
    if end is None:
        return
    days = (end - now).days
    state: Literal["ok", "warn", "fail"] = "fail" if end <= now else "warn" if days < _SOON_DAYS else "ok"
    text = f"{'ended' if end <= now else 'ends'} on {end.astimezone(UTC):%Y-%m-%d}"
    yield Hint(about, state, text, "" if state == "ok" else do)
