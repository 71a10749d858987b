"""Proving with a private key who asks: the signed assertion of SMART Backend Services.

Source: HL7 SMART App Launch 2, "Client Authentication: Asymmetric".
"""

from __future__ import annotations

import secrets
from typing import Final

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from io_fhir_adapter.client_assertion import ASSERTION_TYPE
from io_fhir_adapter.config.http import AuthConfig
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.trust.keys import key_pairs

__all__ = ["SigningKey"]

_LASTS_S: Final = 240  # of the five minutes allowed, so that a clock a little ahead of the server's does no harm
_ALGORITHMS: Final = {"RSA": "RS384", "EC": "ES384"}
_CURVE: Final = "P-384"  # of ES384


class SigningKey:
    """The private key that this client is registered with.

    Args:
        config: Names the key, its password, its ``kid`` and algorithm.
        where: The configuration key, for messages.

    Raises:
        ConfigError: The key cannot be read or does not fit.
    """

    def __init__(self, config: AuthConfig, where: str) -> None:
        if config.key is None:  # the configuration's own check comes first
            raise _unusable(where, "there is none")
        password = config.key_password.read(where) if config.key_password is not None else None
        self._key = _private_key(config.key.read(where), password, config, where)
        self.algorithm = _ALGORITHMS[self._key.key_type]
        self.key_id = config.key_id or self._key.kid

    def proof(self, client_id: str, audience: str, now: float) -> dict[str, str]:
        """The fields of a request for one token that prove who asks, by a signed statement.

        Args:
            client_id: Who asks.
            audience: The token endpoint, exactly as the server names it.
            now: The time at the server, in seconds since 1970.
        """
        header = {"alg": self.algorithm, "typ": "JWT", **({"kid": self.key_id} if self.key_id else {})}
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": int(now),
            "exp": int(now) + _LASTS_S,
            "jti": secrets.token_urlsafe(24),
        }
        assertion = jwt.encode(header, claims, self._key, algorithms=[self.algorithm])
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}


def _private_key(text: str, password: str | None, config: AuthConfig, where: str) -> RSAKey | ECKey:
    try:
        found = [key for key in key_pairs(text, password) if isinstance(key, RSAKey | ECKey)]
    except ValueError as exc:
        raise _unusable(where, str(exc)) from exc
    wanted = config.algorithm
    fitting = [key for key in found if key.is_private and key.get("use", "sig") == "sig"]
    fitting = [key for key in fitting if wanted is None or _ALGORITHMS[key.key_type] == wanted]
    fitting = [key for key in fitting if not isinstance(key, ECKey) or key.curve_name == _CURVE]
    if len(found) > 1 and config.key_id is not None:
        fitting = [key for key in fitting if key.kid == config.key_id]
    if len(fitting) != 1:
        what = "no private RSA or P-384 key in it fits" if not fitting else "several fit, so name one under key_id"
        raise _unusable(where, what)
    return fitting[0]


def _unusable(where: str, what: str) -> ConfigError:
    return ConfigError(
        f"the signing key cannot be used: {what}",
        where=f"{where}.auth.key",
        do="give the private key that the server knows the public half of: RSA for RS384, P-384 for ES384",
        number=12,
    )
