"""SMART scopes of systems: what a token lets its bearer do with which resource types.

Source: HL7 SMART App Launch 2, "Scopes for requesting FHIR Resources". The older ``.read``, ``.write`` and ``.*`` are
understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["ALL_SCOPES", "allowed", "granted", "known_scope"]

ALL_SCOPES: Final = ("system/*.cruds",)
"""Everything that is done here: what a facility may be granted where its registration says nothing else."""

_SCOPE: Final = re.compile(r"system/(\*|[A-Z][A-Za-z]{0,63})\.(c?r?u?d?s?|read|write|\*)")
_OLDER: Final = {"read": "rs", "write": "cud", "*": "cruds"}


def known_scope(scope: str) -> bool:
    """Whether the scope is one of a system and lets it do something."""
    return bool(_parts(scope)[1])


def allowed(scopes: Iterable[str], kind: str, deeds: str) -> bool:
    """Whether the scopes allow all the deeds (letters of ``cruds``) with a resource type; ``*`` asks for every type."""
    can = {deed for scope in scopes for deed in _parts(scope)[1] if _parts(scope)[0] in ("*", kind)}
    return set(deeds) <= can


def granted(asked: Iterable[str], registered: Iterable[str]) -> tuple[str, ...]:
    """Those of the scopes asked for that the registered ones cover whole, each once and in order."""
    known = tuple(registered)
    return tuple(scope for scope in dict.fromkeys(asked) if known_scope(scope) and allowed(known, *_parts(scope)))


def _parts(scope: str) -> tuple[str, str]:
    """Resource type and deeds of a scope; no deeds where it is none of a system."""
    found = _SCOPE.fullmatch(scope)
    return (found[1], _OLDER.get(found[2], found[2])) if found else ("", "")
