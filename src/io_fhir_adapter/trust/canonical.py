"""Canonical JSON (RFC 8785) and digests over it: the same value has the same bytes everywhere."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

__all__ = ["canonical_json", "digest", "digest_bytes"]


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 form of a JSON value.

    Raises:
        ValueError: The value holds something JSON cannot carry (NaN, integers beyond 2^53, other types).
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as exc:
        msg = f"not canonical JSON: {exc}"
        raise ValueError(msg) from exc


def digest(value: Any) -> str:
    """SHA-256 of the canonical form, as ``sha256:`` and 64 hexadecimal digits."""
    return digest_bytes(canonical_json(value))


def digest_bytes(data: bytes) -> str:
    """SHA-256 of bytes, as ``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
