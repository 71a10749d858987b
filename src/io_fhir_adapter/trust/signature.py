"""The signature of a submission: a detached JWS over the canonical form of the Bundle, in ``Bundle.signature``.

What is signed is the RFC 8785 form of the whole Bundle without its ``signature``, so that any change to any element is
seen, and so that a Bundle that a FHIR server parsed and wrote again can still be checked. The JWS is in the compact
form with its payload left out (RFC 7515, appendix F). The protected header has ``alg``, ``kid`` and ``iat``; the last
makes ``Bundle.signature.when`` part of what is signed. That a body takes such signatures is this project's proposal;
the elements are those of the FHIR R4 datatype Signature.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey
from joserfc.jws import JWSRegistry
from joserfc.registry import HeaderParameter

from io_fhir_adapter.canonical_urls import FACILITY_SYSTEM
from io_fhir_adapter.trust.canonical import canonical_json

__all__ = [
    "ALGORITHMS",
    "SIGNATURE_FORMAT",
    "SIGNATURE_TYPE",
    "SignatureKey",
    "algorithm_of",
    "check_signature",
    "named_key",
    "sign_bundle",
]

Json = dict[str, Any]
SignatureKey = ECKey | OKPKey

ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = {"ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""The algorithms that a submission may be signed with, each with the type and curve of its keys."""
SIGNATURE_TYPE: Final = {"system": "urn:iso-astm:E1762-95:2013", "code": "1.2.840.10065.1.12.1.1"}
"""Signature.type: the author's signature."""
SIGNATURE_FORMAT: Final = "application/jose"
"""Signature.sigFormat."""
TARGET_FORMAT: Final = "application/fhir+json;canonicalization=https://www.rfc-editor.org/rfc/rfc8785"
"""Signature.targetFormat: how the bytes that are signed are made from the Bundle."""

_HEADERS: Final = frozenset({"alg", "kid", "iat"})
_ELEMENTS: Final = frozenset({"type", "when", "who", "targetFormat", "sigFormat", "data"})
_LONGEST: Final = 2_000


class _Registry(JWSRegistry):
    """The algorithms of :data:`ALGORITHMS` under the names they have in a header, and none besides."""

    def get_alg(self, name: str) -> Any:
        """The algorithm.

        The library warns of the name EdDSA, since RFC 9864 has one for each curve; the curve is checked here, and
        the older name is the one that receivers know.
        """
        if name not in ALGORITHMS:
            raise ValueError("the signature's algorithm is not allowed")
        return self.algorithms[name]


_REGISTRY: Final = _Registry(header_registry={"iat": HeaderParameter("Issued At", "int")})


def algorithm_of(key: SignatureKey) -> str:
    """The algorithm that a key signs with.

    Raises:
        ValueError: Its type or curve is none of :data:`ALGORITHMS`.
    """
    for name, (kind, curve) in ALGORITHMS.items():
        if (key.key_type, key.curve_name) == (kind, curve):
            return name
    raise ValueError("a submission is signed with a P-256 or an Ed25519 key")


def sign_bundle(bundle: Mapping[str, Any], key: SignatureKey, *, when: datetime) -> Json:
    """A copy of a Bundle with a signature in place of the one it may have.

    Args:
        bundle: A submission; its Provenance says for which facility.
        key: The facility's private key, which has a ``kid``.
        when: The time of signing, with a time zone.

    Raises:
        ValueError: The key has no ``kid`` or does not fit, the time has no zone, the Bundle names no facility or is
            not canonical JSON.
    """
    if not key.kid or not key.is_private:
        raise ValueError("the signing key is not private, or has no kid")
    if when.tzinfo is None:
        raise ValueError("the time of signing has no time zone")
    unsigned = {name: value for name, value in bundle.items() if name != "signature"}
    header = {"alg": algorithm_of(key), "kid": key.kid, "iat": int(when.timestamp())}
    compact = jws.detach_content(jws.serialize_compact(header, canonical_json(unsigned), key, registry=_REGISTRY))
    signature = {
        "type": [dict(SIGNATURE_TYPE)],
        "when": when.isoformat(timespec="seconds"),
        "who": {"type": "Organization", "identifier": _facility(bundle)},
        "targetFormat": TARGET_FORMAT,
        "sigFormat": SIGNATURE_FORMAT,
        "data": base64.b64encode(compact.encode()).decode(),
    }
    return {**unsigned, "signature": signature}


def check_signature(bundle: Mapping[str, Any], jwks: Mapping[str, Any]) -> str:
    """Whether a Bundle is signed by one of a facility's keys as it is now; the ``kid`` of that key.

    Args:
        bundle: The parsed Bundle.
        jwks: The facility's public keys, a JSON Web Key Set.

    Raises:
        ValueError: It is not signed, or the signature does not hold; says in words why, and no value of the Bundle.
    """
    signature = bundle.get("signature")
    if not isinstance(signature, Mapping):
        raise ValueError("the Bundle is not signed")  # noqa: TRY004 - the input's fault, not the caller's
    header, compact = _detached(signature)
    key = _known_key(header, jwks)
    unsigned = {name: value for name, value in bundle.items() if name != "signature"}
    try:
        opened = jws.extract_compact(compact, canonical_json(unsigned), registry=_REGISTRY)
        holds = jws.validate_compact(opened, key, registry=_REGISTRY)
    except JoseError as exc:
        raise ValueError("the signature cannot be read") from exc
    if not holds:
        raise ValueError("the signature is not of this Bundle and this key: one of them was changed")
    if signature["who"] != {"type": "Organization", "identifier": _facility(bundle)}:
        raise ValueError("the signature is another facility's than the submission")
    return str(header["kid"])


def named_key(bundle: Mapping[str, Any]) -> str:
    """The ``kid`` that a signature names, unchecked; empty where there is none that could be checked."""
    signature = bundle.get("signature")
    try:
        return str(_detached(signature)[0]["kid"]) if isinstance(signature, Mapping) else ""
    except ValueError:
        return ""


def _facility(bundle: Mapping[str, Any]) -> Json:
    """The identifier of the facility that the Bundle's one Provenance speaks for."""
    statements = [
        resource
        for entry in _list(bundle.get("entry"))
        if isinstance(entry, Mapping)
        and isinstance(resource := entry.get("resource"), Mapping)
        and resource.get("resourceType") == "Provenance"
    ]
    named = [
        owner["identifier"]
        for statement in statements
        for agent in _list(statement.get("agent"))
        if isinstance(agent, Mapping)
        and isinstance(owner := agent.get("onBehalfOf"), Mapping)
        and isinstance(owner.get("identifier"), Mapping)
    ]
    codes = {one.get("value") for one in named if one.get("system") == FACILITY_SYSTEM}
    code = codes.pop() if len(statements) == 1 and len(codes) == 1 else None
    if not isinstance(code, str):
        raise ValueError("the Bundle does not say for which one facility it speaks")  # noqa: TRY004 - as above
    return {"system": FACILITY_SYSTEM, "value": code}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _detached(signature: Mapping[str, Any]) -> tuple[Json, bytes]:
    """Header and compact form of a Signature whose other elements are as they have to be."""
    if set(signature) != _ELEMENTS:
        raise ValueError("the signature does not have just the elements that it needs")
    said = (signature["type"], signature["targetFormat"], signature["sigFormat"])
    if said != ([SIGNATURE_TYPE], TARGET_FORMAT, SIGNATURE_FORMAT):
        raise ValueError("the signature is of another type or format")
    data = signature["data"]
    if not isinstance(data, str) or len(data) > _LONGEST:
        raise ValueError("the signature's data cannot be read")
    try:
        compact = base64.b64decode(data, validate=True)
        protected, payload, value = compact.split(b".")
        header = json.loads(_plain(protected), object_pairs_hook=_once)
        _plain(value)
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise ValueError("the signature's data are no detached JWS") from exc
    if payload:
        raise ValueError("the signature's data are no detached JWS")
    if not isinstance(header, dict) or set(header) != _HEADERS:
        raise ValueError("the signature's header has more or less than alg, kid and iat")
    if not isinstance(header["kid"], str) or not isinstance(header["alg"], str) or header["alg"] not in ALGORITHMS:
        raise ValueError("the signature's algorithm is not allowed")
    if _seconds(signature["when"]) != header["iat"] or isinstance(header["iat"], bool):
        raise ValueError("the signature's time is not the one that was signed")
    return header, compact


def _plain(segment: bytes) -> bytes:
    """A base64url segment decoded; just one spelling of the same bytes is taken."""
    decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise ValueError("not the one base64url form")
    return decoded


def _once(pairs: list[tuple[str, Any]]) -> Json:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member is there twice")
    return dict(pairs)


def _seconds(when: Any) -> int | None:
    try:
        moment = datetime.fromisoformat(when) if isinstance(when, str) else None
    except ValueError:
        return None
    return int(moment.timestamp()) if moment is not None and moment.tzinfo is not None else None


def _known_key(header: Mapping[str, Any], jwks: Mapping[str, Any]) -> SignatureKey:
    """The one key of the set with the header's kid, fit for its algorithm."""
    named = [one for one in _list(jwks.get("keys")) if isinstance(one, Mapping) and one.get("kid") == header["kid"]]
    if len(named) != 1:
        raise ValueError("the signature's kid is not that of one of the facility's keys")
    found, algorithm = dict(named[0]), header["alg"]
    if (found.get("kty"), found.get("crv")) != ALGORITHMS[algorithm]:
        raise ValueError("the facility's key of that kid is for another algorithm")
    if found.get("alg", algorithm) != algorithm or found.get("use", "sig") != "sig":
        raise ValueError("the facility's key of that kid is for another use")
    try:
        key = JWKRegistry.import_key(found)
    except (JoseError, ValueError, TypeError) as exc:
        raise ValueError("the facility's key of that kid cannot be read") from exc
    if not isinstance(key, ECKey | OKPKey):
        raise ValueError("the facility's key of that kid is for another algorithm")  # noqa: TRY004 - as above
    return key
