"""Passwords: what one must be like, and hashing with argon2id, a bounded number at a time."""

from __future__ import annotations

import secrets
import threading
import unicodedata
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION

from io_fhir_adapter.errors import UsageError

__all__ = ["BusyError", "Passwords", "check_password", "one_time_password"]

SHORTEST: Final = 12
_LONGEST: Final = 256
_FEWEST_SIGNS: Final = 5
_MEMORY_KIB: Final = 46 * 1024  # with two passes more than what OWASP asks for at the least
_AT_ONCE: Final = 2  # each takes that memory, and a processor
_WAITING: Final = 16
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is read as another


class BusyError(Exception):
    """Too many people sign in at once."""


def check_password(password: str, name: str) -> None:
    """Refuses a password that is too easy to guess.

    Raises:
        UsageError: It is too short, too long, holds the account's name or too few different characters.
    """
    plain = _normal(password)
    if not SHORTEST <= len(plain) <= _LONGEST:
        raise UsageError(
            f"the password has fewer than {SHORTEST} or more than {_LONGEST} characters", do="choose another", number=33
        )
    if name.casefold() in plain.casefold() or len(set(plain)) < _FEWEST_SIGNS:
        raise UsageError(
            "the password holds the account's name or is made of very few characters", do="choose another", number=34
        )


def one_time_password() -> str:
    """A password to be read out, typed once, and changed: 20 letters and digits in groups of five, 99 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


class Passwords:
    """Hashes and verifies.

    Args:
        hasher: Another hasher, for tests.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=_MEMORY_KIB, parallelism=1)
        self._nobodys = _of_nobody(self._hasher)
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._places = threading.BoundedSemaphore(_AT_ONCE + _WAITING)

    def hash(self, password: str) -> str:
        """The hash, with its parameters and salt in it.

        Raises:
            BusyError: Too many wait already.
        """
        with self._turn():
            return self._hasher.hash(_normal(password))

    def verify(self, hashed: str | None, password: str) -> bool:
        """Whether the password is the one; for an account that does not exist the same work, and False.

        Raises:
            BusyError: Too many wait already.
        """
        with self._turn():
            try:
                right = self._hasher.verify(hashed or self._nobodys, _normal(password)[: _LONGEST + 1])
            except (VerificationError, InvalidHashError):
                return False
        return right and hashed is not None

    def outdated(self, hashed: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            with self._turns:
                yield
        finally:
            self._places.release()


def _of_nobody(hasher: PasswordHasher) -> str:
    """A hash that no password has, and that takes as long to verify as the hasher's own; making one would take it too.

    It is written as argon2 writes it: parameters, salt and digest, the last two by chance.
    """
    sizes = hasher.salt_len, hasher.hash_len
    salt, digest = (b64encode(secrets.token_bytes(size)).decode("ascii").rstrip("=") for size in sizes)
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${costs}${salt}${digest}"


def _normal(password: str) -> str:
    """One form for what keyboards send in several: an umlaut in one sign or in two."""
    return unicodedata.normalize("NFKC", password)
