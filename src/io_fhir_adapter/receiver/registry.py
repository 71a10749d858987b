"""Who is registered with the body: the facilities with their keys and tokens, and the body's own operators.

The registry is a YAML file that the body keeps::

    facilities:
      - code: F-001
        name: Sandbox Hospital (synthetic)
        jwks_file: F-001.jwks.json
    operators:
      - name: vogt
        password_hash: $argon2id$...

It holds public keys and digests: no private key, and no password.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from joserfc.jwk import RSAKey

from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.receiver.scopes import ALL_SCOPES, known_scope
from io_fhir_adapter.receiver.wire import CODE
from io_fhir_adapter.strict_yaml import fault_of, load_yaml
from io_fhir_adapter.trust.keys import KeyPair, key_pairs

__all__ = ["Facility", "Operator", "Registry", "load_registry", "registry_of_tokens"]

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SHORTEST_TOKEN: Final = 16
_SHORTEST_RSA: Final = 2048
_HASHED: Final = re.compile(r"sha256:[0-9a-f]{64}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Facility:
    """A facility as the body registered it.

    Attributes:
        code: The code that its submissions name.
        name: What people call it.
        jwks: Its public keys, a JWK Set: those it signs submissions with, and those it signs in with.
        scopes: What it may be granted.
        client_id: The name that it signs in by; the code unless another is registered.
        active: Whether it may sign in; what it signed before stays checkable.
    """

    code: str
    name: str = ""
    jwks: Mapping[str, Any] = field(default_factory=lambda: {"keys": []})
    scopes: tuple[str, ...] = ALL_SCOPES
    client_id: str = ""
    active: bool = True


@dataclass(frozen=True, slots=True)
class Operator:
    """A person of the body who may see its pages, with the argon2 hash of the password."""

    name: str
    password_hash: str


@dataclass(frozen=True)
class Registry:
    """Everybody who is registered.

    Attributes:
        facilities: The facilities.
        operators: The body's people.
        tokens: SHA-256 of each lasting token, in hexadecimal, to the code of its facility.
    """

    facilities: tuple[Facility, ...]
    operators: tuple[Operator, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def facility(self, code: str) -> Facility | None:
        """The facility of that code."""
        return next((facility for facility in self.facilities if facility.code == code), None)

    def client(self, client_id: str) -> Facility | None:
        """The facility that signs in by that name."""
        return next((facility for facility in self.facilities if facility.client_id == client_id), None)

    def bearer(self, token: str) -> Facility | None:
        """The facility that a lasting token is given to. Its digest is compared, so that time tells nothing."""
        return self.facility(self.tokens.get(hashlib.sha256(token.encode("utf-8", "replace")).hexdigest(), ""))

    def signing_keys(self, code: str) -> dict[str, Any]:
        """The public keys of a facility as a JWK Set, without any where it is not known."""
        known = self.facility(code)
        return {"keys": [dict(key) for key in known.jwks["keys"]] if known is not None else []}


def registry_of_tokens(tokens: Mapping[str, str]) -> Registry:
    """Facilities that have nothing but lasting tokens: token to facility code."""
    return Registry(
        tuple(Facility(code, client_id=code) for code in sorted(set(tokens.values()))),
        tokens={_sha256(token): code for token, code in tokens.items()},
    )


class _FacilityRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    name: str = ""
    client_id: str = ""
    jwks: dict[str, Any] | None = None
    jwks_file: str = ""
    tokens: tuple[str, ...] = ()
    token_file: str = ""
    scopes: tuple[str, ...] = ALL_SCOPES
    active: bool = True


class _OperatorRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    password_hash: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    facilities: tuple[_FacilityRow, ...]
    operators: tuple[_OperatorRow, ...] = ()


def load_registry(path: Path) -> Registry:
    """The registry in a YAML file; files that it names lie beside it unless they are named whole.

    Raises:
        ConfigError: It cannot be read, or what it says does not hold.
    """
    try:
        rows = msgspec.convert(load_yaml(path.read_text(encoding="utf-8")), _File)
    except (OSError, UnicodeDecodeError) as exc:
        raise _wrong("the facilities file cannot be read", str(path), "check the path and its permissions") from exc
    except (yaml.YAMLError, ValueError) as exc:
        if isinstance(exc, msgspec.ValidationError):
            raise _wrong(f"the facilities file does not fit: {exc}", str(path)) from exc
        fault, where = fault_of(exc, str(path))
        raise _wrong(fault or "the facilities file is no YAML", where) from exc
    registry = Registry(
        tuple(_facility(row, path) for row in rows.facilities),
        tuple(_operator(row, path) for row in rows.operators),
        _tokens(rows.facilities, path),
    )
    _each_once((facility.code for facility in registry.facilities), "facility code", path)
    _each_once((facility.client_id for facility in registry.facilities), "client_id", path)
    _each_once((operator.name for operator in registry.operators), "operator", path)
    return registry


def _facility(row: _FacilityRow, path: Path) -> Facility:
    where = f"{path}: facility {row.code}" if CODE.fullmatch(row.code) else str(path)
    if where == str(path):
        raise _wrong("a facility code is letters, digits, dots, hyphens and underlines", where)
    if not all(known_scope(scope) for scope in row.scopes):
        raise _wrong("a scope is not one of a system", where, "write for instance system/*.rs or system/*.cruds")
    jwks = row.jwks or {"keys": []}
    if row.jwks_file:
        try:
            jwks = json.loads(_beside(path, row.jwks_file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise _wrong("the jwks_file cannot be read as JSON", where) from exc
    return Facility(row.code, row.name, _public(jwks, where), row.scopes, row.client_id or row.code, row.active)


def _public(jwks: Any, where: str) -> dict[str, Any]:
    """The key set, once every key is public, of a kind that is taken, and has a name of its own."""
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise _wrong("the keys are no JWK Set", where, 'give {"keys": [...]}')
    for key in keys:
        if key.keys() & _PRIVATE:
            raise _wrong("a key is private or shared", where, "register the public half, and replace the key")
        read = _read(key, where)
        if isinstance(read, RSAKey) and read.raw_value.key_size < _SHORTEST_RSA:
            raise _wrong(f"an RSA key is shorter than {_SHORTEST_RSA} bits", where)
        if not isinstance(key.get("kid"), str) or not key["kid"]:
            raise _wrong("a key has no kid", where)
    _each_once((key["kid"] for key in keys), "kid", where)
    return {"keys": keys}


def _read(key: Mapping[str, Any], where: str) -> KeyPair:
    try:
        return key_pairs(json.dumps(key))[0]
    except (ValueError, IndexError) as exc:
        raise _wrong("a key is none of RSA, EC or OKP", where) from exc


def _tokens(rows: Iterable[_FacilityRow], path: Path) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for row in rows:
        given = list(row.tokens)
        if row.token_file:
            try:
                given += _beside(path, row.token_file).read_text(encoding="utf-8").split()
            except (OSError, UnicodeDecodeError) as exc:
                raise _wrong("the token_file cannot be read", f"{path}: facility {row.code}") from exc
        for token in given:
            hashed = _HASHED.fullmatch(token)
            if not hashed and (len(token) < _SHORTEST_TOKEN or not _TOKEN.fullmatch(token)):
                raise _wrong(
                    f"a token is shorter than {_SHORTEST_TOKEN} signs or has a space", f"{path}: facility {row.code}"
                )
            said = token.removeprefix("sha256:") if hashed else _sha256(token)
            if tokens.setdefault(said, row.code) != row.code:
                raise _wrong("two facilities have the same token", str(path))
    return tokens


def _operator(row: _OperatorRow, path: Path) -> Operator:
    if not row.name or ":" in row.name or not row.name.isprintable():
        raise _wrong("an operator's name is empty or has a colon", str(path))
    if not row.password_hash.startswith("$argon2id$"):
        raise _wrong(
            "a password_hash is no argon2id hash", str(path), "make one with io-fhir-adapter receiver --hash-password"
        )
    return Operator(row.name, row.password_hash)


def _each_once(names: Iterable[str], what: str, where: Path | str) -> None:
    if any(number > 1 for number in Counter(names).values()):
        raise _wrong(f"a {what} is written twice", str(where))


def _beside(path: Path, name: str) -> Path:
    return path.parent / name


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _wrong(what: str, where: str, do: str = "correct it") -> ConfigError:
    return ConfigError(what, where=where, do=do, number=45)
