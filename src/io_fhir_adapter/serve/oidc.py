"""Signing in at an OpenID provider: authorisation code with PKCE, state and nonce; the ID token checked in full.

What a person brings back is only believed where it fits what this browser set out with: the state says that it is the
same browser, the verifier that it is the same client, the nonce that the token was made for this very sign-in. Tokens
are used once, for who the person is and which roles the provider gives; none is kept.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from io_fhir_adapter.config import OidcConfig, Role
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.transport.auth import basic
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["CALLBACK", "DistrustError", "Identity", "Journey", "Provider"]

CALLBACK: Final = "/sign-in/provider"
"""The path that the provider sends people back to; registered there."""

JOURNEY: Final = timedelta(minutes=10)
_WHERE: Final = "sign_in.oidc"
_KEPT: Final = timedelta(hours=1)
_KEYS_AGAIN: Final = timedelta(minutes=1)  # an unknown key is looked for at most so often
_SKEW_S: Final = 60
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LONGEST_SUBJECT: Final = 255
_BYTES: Final = 32


class DistrustError(Exception):
    """What came back from the provider is not believed.

    Attributes:
        reason: ``denied`` (the provider says no), ``state``, ``issuer``, ``token`` or ``code``; never what was sent.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Journey:
    """What a browser sets out to the provider with; kept in its cookie until it comes back.

    Attributes:
        state: Comes back in the address.
        nonce: Comes back in the token.
        verifier: PKCE: shown when the code is redeemed.
        path: Where to go on to afterwards.
        until: When the journey is over, seconds since 1970.
    """

    state: str
    nonce: str
    verifier: str
    path: str
    until: int

    @classmethod
    def new(cls, path: str, now: datetime) -> Journey:
        """A fresh one."""
        state, nonce, verifier = (secrets.token_urlsafe(_BYTES) for _ in range(3))
        return cls(state, nonce, verifier, path, int((now + JOURNEY).timestamp()))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says it is.

    Attributes:
        account: ``oidc:`` and the subject.
        name: The name for people.
        roles: What its roles claim gives; may be empty.
    """

    account: str
    name: str
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class _Metadata:
    authorisation: str
    token: str
    keys: str
    secret_in_form: bool
    says_issuer: bool
    read: datetime


class Provider:
    """One provider.

    Args:
        config: Its part of the configuration.
        origin: The origin that people reach the service at.
        clock: What time it is.

    Raises:
        ConfigError: The secret cannot be read.
    """

    def __init__(self, config: OidcConfig, origin: str, clock: Callable[[], datetime]) -> None:
        self._config = config
        self._back = origin + CALLBACK
        self._now = clock
        self._secret = config.client_secret.read(f"{_WHERE}.client_secret")
        self._metadata: _Metadata | None = None
        self._keys: tuple[datetime, KeySet] | None = None

    async def departure(self, journey: Journey) -> str:
        """The address at the provider that the browser is sent to.

        Raises:
            TransportError: The provider cannot be reached, or describes itself in a way that cannot be used.
        """
        metadata = await self._described()
        return str(
            prepare_grant_uri(
                metadata.authorisation,
                self._config.client_id,
                "code",
                redirect_uri=self._back,
                scope=" ".join(self._config.scopes),
                state=journey.state,
                nonce=journey.nonce,
                code_challenge=create_s256_code_challenge(journey.verifier),
                code_challenge_method="S256",
            )
        )

    async def arrival(self, journey: Journey | None, query: Mapping[str, str]) -> Identity:
        """Who came back.

        Args:
            journey: What the browser set out with; None where it has none.
            query: What stands in the address that it came back to.

        Raises:
            DistrustError: It does not fit, or the provider says no.
            TransportError: The provider cannot be reached or refuses this client.
        """
        state = query.get("state", "")
        if journey is None or self._now().timestamp() > journey.until:
            raise DistrustError("state")
        if not hmac.compare_digest(journey.state.encode(), state.encode()):
            raise DistrustError("state")
        metadata = await self._described()
        said = query.get("iss")
        if (said is None and metadata.says_issuer) or (said is not None and said != self._config.issuer):
            raise DistrustError("issuer")  # RFC 9207: the answer of another provider
        if "error" in query:
            raise DistrustError("denied")
        if not query.get("code"):
            raise DistrustError("code")
        answer = await self._redeemed(metadata, query["code"], journey)
        return self._identity(await self._checked(answer, journey))

    async def _redeemed(self, metadata: _Metadata, code: str, journey: Journey) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._back,
            "code_verifier": journey.verifier,
        }
        headers = {"Accept": "application/json"}
        client_id = self._config.client_id
        if metadata.secret_in_form:
            form |= {"client_id": client_id, "client_secret": self._secret}
        else:
            headers["Authorization"] = basic(quote_plus(client_id), quote_plus(self._secret))
        return await self._json("POST", metadata.token, headers, urlencode(form).encode())

    async def _checked(self, answer: Mapping[str, Any], journey: Journey) -> Mapping[str, Any]:
        """The claims of the ID token, after every check of OpenID Connect Core, section 3.1.3.7.

        Raises:
            DistrustError: One fails.
        """
        text = answer.get("id_token")
        if not isinstance(text, str):
            raise DistrustError("token")
        try:
            token = jwt.decode(text, await self._signers(), algorithms=list(_ALGORITHMS))
        except (JoseError, ValueError):
            try:  # the provider may sign with a new key
                token = jwt.decode(text, await self._signers(again=True), algorithms=list(_ALGORITHMS))
            except (JoseError, ValueError) as exc:
                raise DistrustError("token") from exc
        claims = CodeIDToken(
            token.claims,
            token.header,
            options={
                "iss": {"essential": True, "value": self._config.issuer},
                "aud": {"essential": True, "value": self._config.client_id},
                "sub": {"essential": True},
            },
            params={
                "nonce": journey.nonce,
                "client_id": self._config.client_id,
                "access_token": answer.get("access_token"),
            },
        )
        try:
            claims.validate(now=int(self._now().timestamp()), leeway=_SKEW_S)
        except (JoseError, ValueError, TypeError) as exc:
            raise DistrustError("token") from exc
        return dict(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT:
            raise DistrustError("token")
        named = (claims.get(key) for key in ("name", "preferred_username"))
        name = next((value for value in named if isinstance(value, str) and value.strip()), subject)
        values = _values(claims, self._config.roles_claim)
        return Identity(f"oidc:{subject}", " ".join(name.split()), self._config.roles.given(values))

    async def _described(self) -> _Metadata:
        """The provider's discovery document, read again every hour."""
        now = self._now()
        if self._metadata is not None and now - self._metadata.read < _KEPT:
            return self._metadata
        address = self._config.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = await self._json("GET", address, {"Accept": "application/json"})
        if found.get("issuer") != self._config.issuer:
            raise _unusable("the provider names another issuer than the configuration", "correct sign_in.oidc.issuer")
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        authorisation, token, keys = (str(found.get(name) or "") for name in names)
        if not all("://" in endpoint for endpoint in (authorisation, token, keys)):
            raise _unusable("the provider's description lacks an endpoint", "check that it serves OpenID Connect")
        ways = found.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        self._metadata = _Metadata(
            authorisation,
            token,
            keys,
            secret_in_form="client_secret_basic" not in ways,
            says_issuer=found.get("authorization_response_iss_parameter_supported") is True,
            read=now,
        )
        return self._metadata

    async def _signers(self, *, again: bool = False) -> KeySet:
        """The keys that the provider signs with.

        Args:
            again: Whether the ones known do not do; they are read anew, though not at once again.
        """
        now = self._now()
        if self._keys is not None and now - self._keys[0] < (_KEYS_AGAIN if again else _KEPT):
            return self._keys[1]
        metadata = await self._described()
        found = await self._json("GET", metadata.keys, {"Accept": "application/json"})
        try:
            keys = KeySet.import_key_set({"keys": [key for key in found.get("keys", []) if _signs(key)]})
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            raise _unusable("the provider's keys cannot be read", "check its jwks_uri") from exc
        self._keys = (now, keys)
        return keys

    async def _json(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> dict[str, Any]:
        form = "application/x-www-form-urlencoded"
        async with FhirClient(self._config.http, _WHERE) as client:
            answer = await client.request(
                method, url, body=body, headers=headers, content_type=form, retry=body is None, accept_errors=True
            )
        if body is not None and answer.status in {httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN}:
            raise DistrustError("code")  # an old or foreign code
        if answer.status != httpx.codes.OK:
            raise _unusable(
                f"the provider refuses (HTTP {answer.status})", "check issuer, client_id, client_secret and public_url"
            )
        try:
            found = json.loads(answer.body)
        except ValueError as exc:
            raise _unusable("the provider's answer is no JSON", "check sign_in.oidc.issuer") from exc
        return found if isinstance(found, dict) else {}


def _signs(key: Any) -> bool:
    """Whether a published key is one for signatures; one of symmetric kind would let anybody sign who knows it."""
    return isinstance(key, dict) and key.get("kty") in {"RSA", "EC", "OKP"} and key.get("use", "sig") == "sig"


def _values(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """The values of a claim: one word, or a list; by its whole name, else by a path with dots."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return frozenset({value})
    return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list) else frozenset()


def _unusable(what: str, do: str) -> TransportError:
    return TransportError(what, where=_WHERE, do=do, number=40, transient=False)
