"""How a server wants to be asked."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Manner"]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a server wants to be asked.

    Attributes:
        handling: The ``Prefer`` handling of unknown parameters: strict, so that one that is not used is said.
        total: Whether ``_total=accurate`` is sent.
        posts: Whether long searches are posted.
        count: Whether ``_count`` is sent.
    """

    handling: str = "strict"
    total: bool = True
    posts: bool = True
    count: bool = True
