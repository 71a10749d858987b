"""Reading and making key pairs: PEM, JSON Web Key or a set of them."""

from __future__ import annotations

import json
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from io_fhir_adapter.trust.signature import ALGORITHMS, SignatureKey, algorithm_of

__all__ = ["KeyPair", "key_pairs", "new_signature_key", "public_set", "signature_key"]

Json = dict[str, Any]
KeyPair = RSAKey | ECKey | OKPKey
_KINDS: Final[dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


def key_pairs(text: str, password: str | None = None) -> list[KeyPair]:
    """The keys in a text, those of unknown types left out.

    Args:
        text: One PEM, one JSON Web Key, or a JSON Web Key Set.
        password: Of an encrypted PEM.

    Raises:
        ValueError: It is none of the three, or its password is wrong.
    """
    try:
        if text.lstrip().startswith("{"):
            content = json.loads(text)
            found = content.get("keys", [content])
            return [_KINDS[key["kty"]].import_key(key) for key in found if key["kty"] in _KINDS]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError("it is no PEM, JWK or JWKS, or its password is wrong") from exc
    for kind in _KINDS.values():
        try:
            return [kind.import_key(text, password=password)]
        except (JoseError, ValueError, TypeError):  # of another type; the last of them says so below
            continue
    raise ValueError("it is no PEM, JWK or JWKS, or its password is wrong")


def new_signature_key(algorithm: str) -> SignatureKey:
    """A new private key to sign submissions with, named by its thumbprint (RFC 7638).

    Raises:
        ValueError: The algorithm is none of :data:`~io_fhir_adapter.trust.signature.ALGORITHMS`.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"submissions are signed with {' or '.join(ALGORITHMS)}")
    kind, curve = ALGORITHMS[algorithm]
    made = ECKey.generate_key("P-256") if kind == "EC" else OKPKey.generate_key("Ed25519")
    return _named(made, made.thumbprint(), {"alg": algorithm, "use": "sig", "crv": curve})


def signature_key(text: str, password: str | None = None, kid: str | None = None) -> SignatureKey:
    """The one private key in a text that submissions can be signed with.

    Args:
        text: As for :func:`key_pairs`.
        password: Of an encrypted PEM.
        kid: What the body knows it by; the key's own, else its thumbprint, where omitted.

    Raises:
        ValueError: There is none, or there are several.
    """
    fitting = [key for key in key_pairs(text, password) if isinstance(key, ECKey | OKPKey) and _fits(key)]
    if len(fitting) > 1 and kid is not None:
        fitting = [key for key in fitting if key.kid == kid]
    if len(fitting) != 1:
        raise ValueError(
            "several keys in it fit, so name one by its kid" if fitting else "no private P-256 or Ed25519 key is in it"
        )
    key = fitting[0]
    return _named(key, kid or key.kid or key.thumbprint(), {})


def public_set(key: SignatureKey) -> Json:
    """The JSON Web Key Set that the other side is given: the public half, its kid, use and algorithm."""
    public = key.as_dict(private=False)
    return {"keys": [{**public, "kid": key.kid, "use": "sig", "alg": algorithm_of(key)}]}


def _fits(key: ECKey | OKPKey) -> bool:
    return key.is_private and (key.key_type, key.curve_name) in ALGORITHMS.values() and key.get("use", "sig") == "sig"


def _named(key: SignatureKey, kid: str, more: Json) -> SignatureKey:
    return type(key).import_key({**key.as_dict(private=True), **more, "kid": kid})
