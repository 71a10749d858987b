"""The sandbox's authorisation server: OAuth client credentials and SMART Backend Services, checked as strictly as real
ones do.

The desk issues tokens, knows them again, and counts what may go wrong only so often; what holds is an ``AuthPlan``.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request

from io_fhir_adapter.client_assertion import ASSERTION_TYPE, check_assertion
from io_fhir_adapter.sandbox.auth_plan import AuthPlan
from io_fhir_adapter.sandbox.faults import Refusal
from io_fhir_adapter.sandbox.replies import Reply, json_reply

__all__ = ["TOKEN_PATH", "WELL_KNOWN", "TokenDesk"]

TOKEN_PATH: Final = "/auth/token"  # noqa: S105 - a path
WELL_KNOWN: Final = [".well-known", "smart-configuration"]

_ALGORITHMS: Final = ("RS384", "ES384")


class _Denied(Exception):  # noqa: N818 - it carries an answer, not a failure
    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


class TokenDesk:
    """Issues tokens and knows them again.

    Args:
        plan: What holds now.
        clock: Seconds since 1970.
    """

    def __init__(self, plan: Callable[[], AuthPlan], clock: Callable[[], float] = time.time) -> None:
        self.asked = 0
        self.issued = 0
        self._plan = plan
        self._seen_plan = plan()
        self._clock = clock
        self._tokens: dict[str, float] = {}
        self._uses: Counter[str] = Counter()
        self._used: set[str] = set()
        self._failed = 0
        self._refused = 0

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens issued so far."""
        return tuple(self._tokens)

    def revoke(self) -> None:
        """Every token issued so far is void."""
        self._tokens = dict.fromkeys(self._tokens, 0.0)

    def _current(self) -> AuthPlan:
        plan = self._plan()
        if plan is not self._seen_plan:
            self._seen_plan = plan
            self._failed = self._refused = 0
        return plan

    def configuration(self, origin: str) -> Reply:
        """``.well-known/smart-configuration``."""
        plan = self._current()
        methods = ["client_secret_basic", "client_secret_post"] if plan.client_secret else []
        content = {
            "token_endpoint": _token_url(plan, origin),
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": [*methods, *(["private_key_jwt"] if plan.keys else [])],
            "token_endpoint_auth_signing_alg_values_supported": list(_ALGORITHMS),
            "scopes_supported": list(plan.scopes),
            "capabilities": ["client-confidential-asymmetric", "permission-v2"],
        }
        return json_reply(200, content)

    def refusal(self, authorization: str) -> Refusal | None:
        """The 401 that a FHIR request with this Authorization header gets, if any."""
        plan = self._current()
        if not plan.required:
            return None
        token = authorization.removeprefix("Bearer ")
        good = self._tokens.get(token, 0.0) > self._clock()
        self._uses[token] += 1
        good = good and not (plan.uses and self._uses[token] > plan.uses)
        if good and plan.refused_times is not None and self._refused >= plan.refused_times:
            return None
        self._refused += good
        return Refusal(401, "login", "an access token is required", (("WWW-Authenticate", "Bearer"),))

    async def token(self, request: Request, origin: str) -> Reply:
        """The token endpoint."""
        self.asked += 1
        plan = self._current()
        if plan.token_status and (plan.token_status_times is None or self._failed < plan.token_status_times):
            self._failed += 1
            return json_reply(plan.token_status, {"error": "temporarily_unavailable"})
        try:
            content = await self._answer(request, plan, origin)
        except _Denied as exc:
            return json_reply(exc.status, {"error": exc.error})
        reply = json_reply(200, content)
        return Reply(200, reply.body, {**reply.headers, "Cache-Control": "no-store"})

    async def _answer(self, request: Request, plan: AuthPlan, origin: str) -> dict[str, Any]:
        if request.method != "POST":
            raise _Denied("invalid_request", 405)
        form = dict(parse_qsl((await request.body()).decode("ascii", "replace"), keep_blank_values=True))
        if form.get("grant_type") != "client_credentials":
            raise _Denied("unsupported_grant_type")
        if "client_assertion" in form:
            self._check_assertion(form, plan, plan.audience or _token_url(plan, origin))
        else:
            _check_secret(form, request.headers.get("authorization", ""), plan)
        return self._grant(form.get("scope", ""), plan)

    def _grant(self, scope: str, plan: AuthPlan) -> dict[str, Any]:
        asked = scope.split() or list(plan.scopes)
        if not set(asked) <= set(plan.scopes):
            raise _Denied("invalid_scope")
        token = secrets.token_urlsafe(24)
        self.issued += 1
        self._tokens[token] = self._clock() + plan.lifetime_s
        told = plan.lifetime_s if plan.told_lifetime_s is None else plan.told_lifetime_s
        content: dict[str, Any] = {"access_token": token, "token_type": "bearer", "scope": " ".join(asked)}
        return {**content, "expires_in": int(told)} if told else content

    def _check_assertion(self, form: Mapping[str, str], plan: AuthPlan, audience: str) -> None:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise _Denied("invalid_request")
        now = self._clock() + plan.clock_ahead_s
        try:
            said = check_assertion(
                form["client_assertion"],
                plan.keys,
                client=plan.client_id,
                audience=audience,
                now=now,
                algorithms=_ALGORITHMS,
                kid_needed=False,
            )
        except ValueError as exc:
            raise _Denied("invalid_client", 401) from exc
        if said.jti in self._used:
            raise _Denied("invalid_client", 401)
        self._used.add(said.jti)


def _token_url(plan: AuthPlan, origin: str) -> str:
    return plan.advertised or origin + TOKEN_PATH


def _check_secret(form: Mapping[str, str], authorization: str, plan: AuthPlan) -> None:
    if authorization.startswith("Basic "):
        try:
            text = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise _Denied("invalid_request") from exc
        client, _, secret = text.partition(":")
        given = (unquote_plus(client), unquote_plus(secret))
    else:
        given = (form.get("client_id", ""), form.get("client_secret", ""))
    if not plan.client_secret or given != (plan.client_id, plan.client_secret):
        raise _Denied("invalid_client", 401)
