"""What a server deleted without a word: found by reading everything again and seeing what is not there any more.

Only a reading that is proved complete may take anything out of the ledger. Where suddenly much is missing, of one type
or of all together, it may be the sign-in that sees less than before; that has to be seen by two complete readings, one
after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.facts import procedures_of
from io_fhir_adapter.ledger.intake import drop_facts, known_ids
from io_fhir_adapter.ledger.runs import cursor, move_cursor
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.seen import Seen

__all__ = ["Gone", "is_due", "note_reconciled", "read_whole", "remove_gone"]

_WHEN: Final = "reconciled"
_MANY: Final = "missing"
_ASKED: Final = "asked"
_ALL: Final = "all"  # types together: of each there may be few
_FEW: Final = 20
_SHARE: Final = 0.2
_EARLY: Final = timedelta(hours=6)  # a night that begins somewhat earlier than the one a week ago
_TYPES: Final = ("Procedure", "Condition", "Encounter", "Patient")


@dataclass(frozen=True, slots=True)
class Gone:
    """What a complete reading of a source saw.

    Attributes:
        source: Name of the source.
        seen: By resource type, the ids that were read.
        since: The first day that was asked for; what is dated earlier was not looked for. None for all.
        patients: References of those whose Procedures were asked for; None for everyone's.
        looked_for: Says of a Procedure whether its codes were asked for; None for all codes.
        is_first: Whether there was nothing on record before it: then nothing of that can be gone.
    """

    source: str
    seen: Mapping[str, Seen]
    since: str | None = None
    patients: frozenset[str] | None = None
    looked_for: Callable[[ProcedureFact], bool] | None = None
    is_first: bool = False


def is_due(connection: Connection, source: str, days: int, now: datetime) -> bool:
    """Whether everything is to be read again: so many days after the last time; with 0, never.

    It is also due after a reading that missed so much that nothing was removed.
    """
    if cursor(connection, source, _MANY):
        return True
    last = cursor(connection, source, _WHEN)
    is_ahead = last > timestamp(now + _EARLY)  # our clock was wrong when it was written down
    return bool(days) and (is_ahead or last <= timestamp(now - timedelta(days=days) + _EARLY))


def read_whole(connection: Connection, source: str, run: int) -> None:
    """Has the next pull of a source read everything, whatever the schedule."""
    if cursor(connection, source, _WHEN):
        move_cursor(connection, source, _MANY, _ASKED, run)


def note_reconciled(connection: Connection, source: str, run: int, now: datetime) -> None:
    """Writes down that everything was read."""
    move_cursor(connection, source, _WHEN, timestamp(now), run)


def remove_gone(connection: Connection, gone: Gone, outcome: SourceOutcome, run: int) -> None:
    """Takes out of the ledger what a complete reading of everything did not find any more.

    Args:
        connection: The transaction that ends the pull.
        gone: What was read.
        outcome: Takes numbers and notes.
        run: Number of the run.
    """
    missing: dict[str, list[str]] = {}
    known: dict[str, int] = {}
    for resource_type in () if gone.is_first else _TYPES:
        since = gone.since if resource_type == "Procedure" else None
        patients = gone.patients if resource_type == "Procedure" else None
        looked_for = gone.looked_for if resource_type == "Procedure" else None
        rows = known_ids(
            connection, gone.source, resource_type, run, since or "", mapped_only=looked_for is not None
        )  # fmt: skip
        scope = f"@{gone.source}"
        counted = _Counted(
            name for name, patient in rows if patients is None or patient.removesuffix(scope) in patients
        )
        lacking = gone.seen.get(resource_type, Seen()).lacks(counted)
        known[resource_type] = counted.number
        if looked_for is not None:
            on_record = procedures_of(connection, gone.source, lacking)
            lacking = [fact.id for fact in on_record if looked_for(fact)]
        missing[resource_type] = lacking
    lost = {kind: len(ids) for kind, ids in missing.items()}
    lost[_ALL], known[_ALL] = sum(lost.values()), sum(known.values())
    much = [kind for kind in (_ALL, *missing) if lost[kind] > _FEW and lost[kind] > _SHARE * known[kind]]
    if not set(much) <= set(cursor(connection, gone.source, _MANY).split(",")):
        move_cursor(connection, gone.source, _MANY, ",".join(much), run)
        for kind in much[:1] if _ALL in much else much:
            of_kind = "" if kind == _ALL else f"{kind} "
            outcome.note(
                f"{lost[kind]:,} of {known[kind]:,} {of_kind}resources on record were not found any more; "
                "they are kept until the next complete reading misses them too: check what the sign-in may see"
            )
        return
    if cursor(connection, gone.source, _MANY):
        move_cursor(connection, gone.source, _MANY, "", run)
    for resource_type, ids in missing.items():
        if ids:
            drop_facts(connection, gone.source, resource_type, ids)
            outcome.of(resource_type).removed = len(ids)


class _Counted:
    """Goes through items, of which there may be a million, and counts them."""

    def __init__(self, items: Iterable[str]) -> None:
        self._items = items
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for item in self._items:
            self.number += 1
            yield item
