"""Signing what leaves: the facility's key, and what an approved submission becomes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from io_fhir_adapter.config import SignatureConfig, SubmissionConfig
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.owner_only import read_owner_only
from io_fhir_adapter.trust.approver import with_approver
from io_fhir_adapter.trust.canonical import canonical_json

if TYPE_CHECKING:  # cryptography, eight MiB: for who signs
    from io_fhir_adapter.trust.signature import SignatureKey

__all__ = ["UNSIGNED", "Finish", "read_signing_key", "signature_words", "signing_key"]

UNSIGNED: Final = "submissions are not signed: submission.signing_key names no key"
"""What is said where there is no key."""


def signing_key(config: SubmissionConfig | None) -> SignatureKey | None:
    """The key that submissions are signed with, None where none is configured.

    Raises:
        ConfigError: It cannot be read or does not fit, or others than its owner may read it.
    """
    if config is None or config.signing_key is None:
        return None
    return read_signing_key(config.signing_key, "submission.signing_key")


def read_signing_key(named: SignatureConfig, where: str) -> SignatureKey:
    """The key in a file.

    Args:
        named: The file, and what it needs.
        where: Where it is named, for messages.

    Raises:
        ConfigError: As :func:`signing_key`.
    """
    from io_fhir_adapter.trust.keys import signature_key  # noqa: PLC0415 - as above

    password = named.password.read(where) if named.password is not None else None
    try:
        return signature_key(read_owner_only(named.file, "signing key").decode(), password, named.kid)
    except OSError as exc:
        raise _unusable("the signing key cannot be read", str(named.file)) from exc
    except ValueError as exc:
        raise _unusable(f"the signing key cannot be used: {exc}", str(named.file)) from exc


def signature_words(config: SubmissionConfig | None) -> str:
    """In one sentence whether submissions are signed, and with which key.

    Raises:
        ConfigError: As :func:`signing_key`.
    """
    key = signing_key(config)
    if key is None:
        return UNSIGNED
    from io_fhir_adapter.trust.signature import algorithm_of  # noqa: PLC0415 - as above

    return f"submissions are signed ({algorithm_of(key)}, kid {key.kid})"


@dataclass(frozen=True, slots=True)
class Finish:
    """Makes of a sealed body what leaves: with its approver, if any, and signed, where there is a key.

    What it makes has the identifier of what it was made of, and says the same.

    Attributes:
        key: The facility's key, None to leave it unsigned.
        when: The time of signing, with a time zone.
        approver: The Provenance.agent of who approved.
    """

    key: SignatureKey | None
    when: datetime
    approver: dict[str, Any] | None = None

    def __call__(self, body: bytes) -> bytes:
        """The body as it leaves, canonical JSON."""
        bundle = json.loads(body)
        if self.approver is not None:
            bundle = with_approver(bundle, self.approver)
        if self.key is not None:
            from io_fhir_adapter.trust.signature import sign_bundle  # noqa: PLC0415 - as above

            bundle = sign_bundle(bundle, self.key, when=self.when)
        else:  # another signature is not of these bytes any more
            bundle.pop("signature", None)
        return canonical_json(bundle)


def _unusable(what: str, where: str) -> ConfigError:
    return ConfigError(
        what, where=where, do="give the P-256 or Ed25519 private key that keys new made, its mode 0600", number=50
    )
