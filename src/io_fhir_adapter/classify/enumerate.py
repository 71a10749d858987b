"""What a server may be asked for by code: the code systems of the tables, and their codes where they can be listed.

A server compares codes letter by letter, the tables do not: they know patterns, and codes that are written with or
without dots. Only what can be listed without leaving anything out is listed; of the other systems all codes are asked
for. Nothing that a row would match is lost that way, as long as its system is written with one of the listed URIs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final

from io_fhir_adapter.classify.globs import Glob
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.systems import is_written_one_way
from io_fhir_adapter.trust.canonical import digest

__all__ = ["AskedSystem", "asked_systems", "digest_of", "enumerated"]

_MOST_CODES: Final = 5_000
_ANY: Final = "?"


@dataclass(frozen=True, slots=True)
class AskedSystem:
    """One code system, as a server may be asked for it.

    Attributes:
        name: Its short name.
        uris: The URIs that it is written with.
        codes: The codes that have a row; empty where all codes of the system are to be asked for.
        why: Why all of them, in a few words; empty where ``codes`` lists them.
    """

    name: str
    uris: tuple[str, ...]
    codes: tuple[str, ...] = ()
    why: str = ""


def asked_systems(ruleset: Ruleset) -> tuple[AskedSystem, ...]:
    """All code systems that have a table or a map, in a stable order."""
    return tuple(
        _asked(name, uris, ruleset.patterns(name))
        for name in sorted(ruleset.table_systems)
        if (uris := ruleset.systems.uris.get(name, ()))
    )


def digest_of(asked: Iterable[AskedSystem]) -> str:
    """Of all that is asked for: when it changes, what was not asked for before has to be read."""
    return digest([[one.name, list(one.uris), list(one.codes)] for one in asked])


def _asked(name: str, uris: tuple[str, ...], patterns: tuple[Glob, ...] | None) -> AskedSystem:
    if patterns is None:
        return AskedSystem(name, uris, why="a ConceptMap speaks of all its codes")
    if not is_written_one_way(name):
        return AskedSystem(name, uris, why="its codes are written in several ways")
    codes = enumerated(patterns)
    if codes is None:
        return AskedSystem(name, uris, why="its rows have open ends")
    return AskedSystem(name, uris, codes) if codes else AskedSystem(name, uris, why="its table is empty")


def enumerated(patterns: Iterable[Glob]) -> tuple[str, ...] | None:
    """All codes that one of the patterns matches, sorted; None where they are not finite or too many to ask for."""
    found: set[str] = set()
    for glob in patterns:
        if glob.open_tail or any(_ANY in place for place in glob.places):
            return None
        if len(found) + prod(map(len, glob.places)) > _MOST_CODES:
            return None
        found.update("".join(characters) for characters in product(*map(sorted, glob.places)))
    return tuple(sorted(found))
