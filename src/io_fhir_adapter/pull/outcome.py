"""What a pull did: counts per resource type and the proof that it was complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Progress", "SourceOutcome", "TypeOutcome"]

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being read, how many so far, how many in all if known)."""


@dataclass(slots=True)
class TypeOutcome:
    """One resource type of one source.

    Attributes:
        pages: Pages or files read.
        read: Resources read.
        total: What the server said there would be, None where it did not say.
        new: Written for the first time.
        changed: Replaced an earlier version.
        unchanged: Read again, the same.
        quarantined: Set aside.
        complete: Whether everything reconciles: the last page was reached and the numbers agree.
    """

    pages: int = 0
    read: int = 0
    total: int | None = None
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    quarantined: int = 0
    complete: bool = False


@dataclass(slots=True)
class SourceOutcome:
    """One source in one run; ``since`` is the cursor that it started from, empty for a full pull."""

    name: str
    since: str = ""
    seconds: float = 0.0
    requests: int = 0
    retried: int = 0
    types: dict[str, TypeOutcome] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    error: str = ""

    def of(self, resource_type: str) -> TypeOutcome:
        """The outcome of a type, made at first use."""
        return self.types.setdefault(resource_type, TypeOutcome())

    @property
    def complete(self) -> bool:
        """Whether every type is complete and nothing failed."""
        return not self.error and all(outcome.complete for outcome in self.types.values())

    def to_json(self) -> dict[str, Any]:
        """The outcome without references to patients."""
        return {
            "source": self.name,
            "since": self.since,
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "retried": self.retried,
            "complete": self.complete,
            "error": self.error,
            "types": {name: asdict(outcome) for name, outcome in sorted(self.types.items())},
        }
