"""Texts that a database does not take: what a source sends may hold any character."""

from __future__ import annotations

from typing import Any

__all__ = ["postgresql_texts"]


def postgresql_texts(connection: Any, _record: object) -> None:
    """Leaves NUL out of all texts of a connection, as PostgreSQL keeps none.

    One record with it would else keep every night from being written. FHIR allows it nowhere.

    Args:
        connection: A new connection of psycopg.
    """
    from psycopg.types import string  # noqa: PLC0415 - an extra, there where a PostgreSQL is

    for base in (string.StrBinaryDumper, string.StrDumperUnknown):  # the one that is registered last is the usual one
        name = f"{base.__name__}WithoutNul"
        connection.adapters.register_dumper(str, type(name, (base,), {"dump": _dump(base)}))


def _dump(base: Any) -> Any:
    def dump(self: Any, text: str) -> Any:
        return base.dump(self, text.replace("\0", "") if "\0" in text else text)

    return dump
