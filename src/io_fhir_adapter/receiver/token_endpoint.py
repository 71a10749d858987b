"""The token endpoint of SMART Backend Services: short-lived tokens for facilities that prove who they are by a key.

Source: HL7 SMART App Launch 2, "Backend Services". The audience of an assertion is this endpoint's own address, as it
is configured or as it listens: never the one that a request's Host header gives.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.client_assertion import ASSERTION_TYPE, check_assertion, claimed_client
from io_fhir_adapter.receiver.access import Access
from io_fhir_adapter.receiver.grants import grant, use_once
from io_fhir_adapter.receiver.registry import Facility
from io_fhir_adapter.receiver.responses import PLAIN_HEADERS, json_bytes
from io_fhir_adapter.receiver.scopes import ALL_SCOPES, granted
from io_fhir_adapter.receiver.wire import Issue, Limits, RefusedError, base_of, read_request

__all__ = ["TOKEN_LASTS_S", "TOKEN_PATH", "TokenEndpoint"]

TOKEN_PATH: Final = "/auth/token"  # noqa: S105 - a path
TOKEN_LASTS_S: Final = 300
"""How many seconds an access token is good for."""

_FORM: Final = frozenset({"application/x-www-form-urlencoded"})
_FORM_BYTES: Final = 64 * 1024
_FIELDS: Final = 20
_TOKEN_BYTES: Final = 32
_KEPT_S: Final = 60.0  # beyond its end, since an assertion is taken a little after it
_ADVERTISED: Final = ("RS384", "ES384", "EdDSA")


class _Denied(Exception):  # noqa: N818 - it carries an answer, not a failure
    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


class TokenEndpoint:
    """Grants access tokens.

    Args:
        access: Knows who is registered.
        base_url: Where the receiver is reached from outside; empty for where it listens.
        limits: What a request may cost.
    """

    def __init__(self, access: Access, base_url: str, limits: Limits) -> None:
        self._access = access
        self._base_url = base_url
        self._limits = limits

    async def configuration(self, request: Request) -> Response:
        """``.well-known/smart-configuration``.

        Raises:
            RefusedError: 404, the endpoint is open and grants nothing.
        """
        if self._access.registry is None:
            raise RefusedError(404, Issue("not-found", "this endpoint is open and grants no tokens"))
        return _json(
            {
                "token_endpoint": self._address(request),
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                "token_endpoint_auth_signing_alg_values_supported": list(_ADVERTISED),
                "scopes_supported": [*ALL_SCOPES, "system/*.rs"],
                "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
            }
        )

    async def token(self, request: Request) -> Response:
        """The token endpoint.

        Raises:
            RefusedError: 404 the endpoint is open; 413, 415, 408 what is sent is no form; 429 too many failed.
        """
        if self._access.registry is None:
            raise RefusedError(404, Issue("not-found", "this endpoint is open and grants no tokens"))
        self._access.may_try(request)
        limits = Limits(body_bytes=_FORM_BYTES, body_s=self._limits.body_s)
        body = await read_request(request, limits, _FORM)
        try:
            return _json(await run_in_threadpool(self._grant, _form(body), self._address(request)))
        except _Denied as exc:
            self._access.failed(request)
            return _json({"error": exc.error}, exc.status)

    def _address(self, request: Request) -> str:
        return base_of(request, self._base_url) + TOKEN_PATH

    def _grant(self, form: Mapping[str, str], audience: str) -> dict[str, Any]:
        if form.get("grant_type") != "client_credentials":
            raise _Denied("unsupported_grant_type")
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise _Denied("invalid_request")
        facility = self._proved(form.get("client_assertion", ""), form.get("client_id"), audience)
        scopes = granted(form["scope"].split() if "scope" in form else facility.scopes, facility.scopes)
        if not scopes:
            raise _Denied("invalid_scope")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        with self._access.store.writing() as connection:
            grant(connection, token, facility.code, scopes, self._access.clock() + TOKEN_LASTS_S)
        return {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": TOKEN_LASTS_S,
            "scope": " ".join(scopes),
        }

    def _proved(self, text: str, client_id: str | None, audience: str) -> Facility:
        """The facility that an assertion is from, which from here on counts as used."""
        registry, now = self._access.registry, self._access.clock()
        try:
            client = claimed_client(text)
            facility = registry.client(client) if registry is not None else None
            if facility is None or not facility.active or client_id not in (None, client):
                raise _Denied("invalid_client", 401)
            said = check_assertion(text, facility.jwks["keys"], client=client, audience=audience, now=now)
        except ValueError as exc:
            raise _Denied("invalid_client", 401) from exc
        with self._access.store.writing() as connection:
            new = use_once(connection, said.client, said.jti, said.ends + _KEPT_S, now)
        if not new:
            raise _Denied("invalid_client", 401)
        return facility


def _form(body: bytes) -> dict[str, str]:
    """The fields of a form, each of them once (RFC 6749, 3.2)."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError as exc:
        raise _Denied("invalid_request") from exc
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _Denied("invalid_request")
    return form


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    headers = {**PLAIN_HEADERS, "Pragma": "no-cache"}
    return Response(json_bytes(content), status_code=status, media_type="application/json", headers=headers)
