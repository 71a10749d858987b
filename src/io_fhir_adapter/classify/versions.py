"""Versions of one resource: files may hold older ones beside newer ones, in any order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

__all__ = ["moment_of", "newest"]

_NEVER = datetime.min.replace(tzinfo=UTC)


class _Versioned(Protocol):
    @property
    def updated(self) -> str: ...


_FactT = TypeVar("_FactT", bound=_Versioned)
_KeyT = TypeVar("_KeyT", bound=Hashable)


def moment_of(updated: str) -> datetime:
    """The moment of a ``meta.lastUpdated``; one that is missing or no instant lies before all others.

    Instants of different offsets are compared as moments, never as texts. One without an offset is taken as UTC.
    """
    try:
        moment = datetime.fromisoformat(updated)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return _NEVER


def newest(facts: Iterable[_FactT], key: Callable[[_FactT], _KeyT]) -> dict[_KeyT, _FactT]:
    """Of several versions the one updated last, whatever the order they came in.

    Versions of the same moment are told apart by what they say, so that the order still changes nothing.
    """
    found: dict[_KeyT, _FactT] = {}
    for fact in facts:
        place = key(fact)
        known = found.get(place)
        if known is None or _order(fact) > _order(known):
            found[place] = fact
    return found


def _order(fact: _Versioned) -> tuple[datetime, str]:
    return moment_of(fact.updated), repr(fact)
