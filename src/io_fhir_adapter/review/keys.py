"""The facility's secret key: made once, readable by its owner alone, and looked at before each use.

Tokens of patients and ids of resources are made with it. It never leaves the facility; docs/privacy.md says how it is
kept, given to escrow and changed.
"""

from __future__ import annotations

import contextlib
import glob
import hmac
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from io_fhir_adapter.errors import ConfigError, ReviewError
from io_fhir_adapter.ledger.draws import StoredCase
from io_fhir_adapter.owner_only import put_owner_only, read_owner_only
from io_fhir_adapter.trust.frame import patient_token

__all__ = ["check_key", "key_of", "pseudonym_key", "rotate_key"]

_KEY_BYTES = 32
_FORMER = ".until-"


def pseudonym_key(path: Path) -> bytes:
    """The facility's secret key; made at first use, readable by its owner alone, never leaving the facility.

    Raises:
        ConfigError: It cannot be read or made, is too short, or others than its owner may read or write it.
    """
    try:
        if not path.exists():
            with contextlib.suppress(FileExistsError):  # a key that another process put there first stays
                put_owner_only(path, secrets.token_hex(_KEY_BYTES).encode())
        key = bytes.fromhex(read_owner_only(path, "pseudonym key").decode("ascii").strip())
    except (OSError, ValueError) as exc:
        raise ConfigError(
            "the pseudonym key cannot be read",
            where=str(path),
            do="check review.key_file and its permissions",
            number=7,
        ) from exc
    if len(key) < _KEY_BYTES:
        raise ConfigError("the pseudonym key is too short", where=str(path), do="restore the original key", number=7)
    return key


def rotate_key(path: Path, stamp: str) -> Path:
    """Makes another key for the draws to come; gives where the one so far lies now, for those that were drawn with it.

    Args:
        path: Where the key lies.
        stamp: Tells the keys so far apart, such as a time; part of the file's name.

    Raises:
        ConfigError: It cannot be read, moved or made.
    """
    pseudonym_key(path)
    former = path.with_name(f"{path.name}{_FORMER}{stamp}")
    try:
        os.link(path, former)  # never in the place of another; a moment with both names is better than one with none
        path.unlink()
    except OSError as exc:
        raise ConfigError(
            "the pseudonym key cannot be moved", where=str(path), do="check the folder and its permissions", number=14
        ) from exc
    pseudonym_key(path)
    return former


def key_of(path: Path, facility_code: str, cases: Sequence[StoredCase]) -> bytes:
    """The key that cases were drawn with: the present one, or one of those before it that lie beside it.

    Raises:
        ConfigError: As :func:`pseudonym_key`.
        ReviewError: They were drawn with none of these.
    """
    present = pseudonym_key(path)
    for former in (path, *sorted(path.parent.glob(f"{glob.escape(path.name)}{_FORMER}*"), reverse=True)):
        key = pseudonym_key(former)
        with contextlib.suppress(ReviewError):  # the next one, then
            check_key(key, facility_code, cases)
            return key
    check_key(present, facility_code, cases)
    return present


def check_key(key: bytes, facility_code: str, cases: Iterable[StoredCase]) -> None:
    """Makes sure that cases were drawn with this key, before anything of them is named by it.

    Raises:
        ReviewError: They were drawn with another one.
    """
    for case in cases:
        if not hmac.compare_digest(patient_token(key, facility_code, case.patient), case.token):
            raise ReviewError(
                "the pseudonym key is not the one that the cases were drawn with",
                do="restore the key that review.key_file had, or draw again with --supersede key-lost",
                number=12,
            )
