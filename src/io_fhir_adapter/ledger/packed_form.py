"""A Procedure in the form in which the ledger keeps it; apart from what writes it, which needs a database."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

__all__ = ["PackedProcedure", "packed"]

_SHORT: Final = 32  # of a text that is ASCII and shorter, MessagePack writes the length in one byte before it
_ENCODE: Final = msgspec.msgpack.Encoder().encode


class PackedProcedure(msgspec.Struct, frozen=True, gc=False):
    """A Procedure as the ledger keeps it: its columns, and the whole fact as ``data``. See :func:`packed`."""

    id: str
    patient: str
    status: str
    day: str
    mapped: bool
    known_system: bool
    digest: str
    data: bytes
    updated: str


def packed(
    resource_id: str, patient: str, status: str, day: str, mapped: bool, known_system: bool, data: bytes, updated: str
) -> PackedProcedure:  # fmt: skip
    """A Procedure ready for the ledger.

    Args:
        resource_id: Its logical id.
        patient: Reference of the subject.
        status: Its status.
        day: Local date of its start.
        mapped: Whether a row of the tables matches.
        known_system: Whether a coding is of a system that has a table.
        data: The fact, MessagePack.
        updated: The fact's last field: a later one alone is no change.
    """
    short = len(updated) < _SHORT and updated.isascii()
    said = data[: -1 - len(updated) if short else -len(_ENCODE(updated))]
    digest = hashlib.sha256(said).hexdigest()
    return PackedProcedure(resource_id, patient, status, day, mapped, known_system, digest, data, updated)
