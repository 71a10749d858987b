"""The signed statement by which a client of SMART Backend Services asks for a token, as a token endpoint checks it.

Source: HL7 SMART App Launch 2, "Client Authentication: Asymmetric"; RFC 7523.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, OKPKey
from joserfc.jws import JWSRegistry

__all__ = ["ALGORITHMS", "ASSERTION_TYPE", "Assertion", "check_assertion", "claimed_client"]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS: Final = {"RS384": "RSA", "ES384": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
"""The algorithms that can be checked, with the type of their keys; the last two are names of one."""

_LASTS_AT_MOST_S: Final = 300
_LEEWAY_S: Final = 5  # a client's clock is that much ahead or behind
_LATEST: Final = 1e11  # far beyond any date, and within what fits a float
_LONGEST: Final = 8_000
_LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class Assertion:
    """What holds of a checked assertion: who it is from, its ``jti``, and when it ends, in seconds since 1970."""

    client: str
    jti: str
    ends: float


class _Registry(JWSRegistry):
    """The allowed algorithms, without the library's warning of the name EdDSA: the curve is checked here."""

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise ValueError("the algorithm is not allowed")
        return self.algorithms[name]


def claimed_client(text: str) -> str:
    """The client that an assertion says it is from, before anything of it is checked: whose keys to check it with.

    Raises:
        ValueError: It is no assertion.
    """
    issuer = _parts(text)[1].get("iss")
    if not isinstance(issuer, str):
        raise ValueError("the assertion names no client")  # noqa: TRY004 - the input's fault, not the caller's
    return issuer


def check_assertion(
    text: str,
    keys: Iterable[Mapping[str, Any]],
    *,
    client: str,
    audience: str,
    now: float,
    algorithms: Collection[str] = tuple(ALGORITHMS),
    kid_needed: bool = True,
) -> Assertion:
    """What an assertion says, once everything about it holds but that its ``jti`` is new.

    Whatever the header says of where a key is (``jku``, ``x5u``, ``jwk``, ``x5c``) is not looked at.

    Args:
        text: The JWT.
        keys: The client's public keys (JWKs).
        client: Whom it has to be from.
        audience: The token endpoint, to the letter.
        now: Seconds since 1970.
        algorithms: The allowed ones of :data:`ALGORITHMS`.
        kid_needed: Whether a client with one key must name it too.

    Raises:
        ValueError: It does not hold.
    """
    header, _ = _parts(text)
    key = _key(header, list(keys), algorithms, kid_needed)
    try:
        claims = jwt.decode(text, key, registry=_Registry(algorithms=algorithms)).claims
    except JoseError as exc:
        raise ValueError("the assertion is not signed by the client's key") from exc
    if not (claims.get("iss") == claims.get("sub") == client):
        raise ValueError("the assertion is not from the client")
    if claims.get("aud") != audience:
        raise ValueError("the assertion is for another endpoint")
    ends = _moment(claims.get("exp"))
    begins = (_moment(claims.get("iat", now)), _moment(claims.get("nbf", now)))
    if not now - _LEEWAY_S < ends <= now + _LASTS_AT_MOST_S or max(begins) > now + _LEEWAY_S:
        raise ValueError("the assertion is from another time, or lasts too long")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_NAME:
        raise ValueError("the assertion has no name of its own")
    return Assertion(client, jti, ends)


def _parts(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, unchecked."""
    if len(text) > _LONGEST:
        raise ValueError("the assertion is too long")
    try:
        header, claims, _ = (urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split("."))
        read = json.loads(header), json.loads(claims)
    except (ValueError, RecursionError) as exc:  # binascii.Error is a ValueError
        raise ValueError("the assertion is no JWT") from exc
    if not all(isinstance(part, dict) for part in read):
        raise ValueError("the assertion is no JWT")
    return read


def _key(
    header: Mapping[str, Any], keys: list[Mapping[str, Any]], algorithms: Collection[str], kid_needed: bool
) -> Any:
    """The client's one key that the header names, fit for the algorithm that it names."""
    if header.keys() & {"crit", "b64"}:
        raise ValueError("the assertion's header asks for what is not done here")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise ValueError("the assertion's algorithm is not allowed")
    if "kid" in header or kid_needed:
        keys = [key for key in keys if isinstance(key.get("kid"), str) and key["kid"] == header.get("kid")]
    if len(keys) != 1:
        raise ValueError("the assertion's kid is not that of one of the client's keys")
    found = dict(keys[0])
    if found.get("kty") != ALGORITHMS[algorithm] or found.get("use", "sig") != "sig":
        raise ValueError("the client's key of that kid is for another algorithm or use")
    try:
        key = JWKRegistry.import_key(found)
    except (JoseError, ValueError, TypeError) as exc:
        raise ValueError("the client's key of that kid cannot be read") from exc
    if isinstance(key, OKPKey) and key.curve_name != "Ed25519":
        raise ValueError("the client's key of that kid is for another algorithm or use")
    return key


def _moment(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _LATEST:
        raise ValueError("the assertion does not say its times")
    return float(value)
