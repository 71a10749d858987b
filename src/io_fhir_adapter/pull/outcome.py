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
        read: Different resources read.
        total: What the server said there would be, None where it did not say or more than needed was asked for.
        new: Written for the first time.
        changed: Replaced an earlier version.
        quarantined: Set aside.
        complete: Whether everything reconciles: the last page was reached and the numbers agree.
        slices: Searches that it was read by, where one search was cut into several.
        removed: Taken out of the ledger because a complete reading did not find them any more.
        ids: Digest of the set of ids that were read; two readings of the same resources have the same.
    """

    pages: int = 0
    read: int = 0
    total: int | None = None
    new: int = 0
    changed: int = 0
    quarantined: int = 0
    complete: bool = False
    slices: int = 0
    removed: int = 0
    ids: str = ""

    @property
    def unchanged(self) -> int:
        """Resources that are on record just as they were read."""
        return max(0, self.read - self.new - self.changed - self.quarantined)

    def add(self, part: TypeOutcome) -> None:
        """Adds what one page or batch did."""
        self.pages += part.pages
        self.read += part.read
        self.new += part.new
        self.changed += part.changed
        self.quarantined += part.quarantined


@dataclass(slots=True)
class SourceOutcome:
    """One source in one run.

    Attributes:
        name: The source's name.
        since: The cursor that it started from, empty for a full pull.
        seconds: How long it took.
        requests: HTTP requests made.
        retried: How many of them were made again.
        types: What became of each resource type.
        touched: Patients to decide on again, whichever source and run changed their facts.
        error: What ended it early, empty where nothing did.
        strategy: How it was read: search, patient, bulk or files.
        notes: What the server could not do and what was done instead, in plain sentences without patient data.
    """

    name: str
    since: str = ""
    seconds: float = 0.0
    requests: int = 0
    retried: int = 0
    types: dict[str, TypeOutcome] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    error: str = ""
    strategy: str = ""
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Writes down what was done in another way than usual; each sentence once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

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
            "strategy": self.strategy,
            "notes": list(self.notes),
            "types": {
                name: {**asdict(outcome), "unchanged": outcome.unchanged}
                for name, outcome in sorted(self.types.items())
            },
        }
