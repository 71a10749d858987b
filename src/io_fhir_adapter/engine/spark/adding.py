"""Adding up what splits tell of themselves, in the order in which one process would have read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from io_fhir_adapter.engine.partial import FileReport, Gathered, Partial
from io_fhir_adapter.engine.spark.inputs import Found
from io_fhir_adapter.engine.spark.reading import Told
from io_fhir_adapter.errors import InputError

__all__ = ["AddedUp", "added_up"]

_NOTHING_GZIPPED = 300  # bytes: a header with the longest name, and the end


@dataclass(slots=True)
class AddedUp:
    """What came of all splits.

    Attributes:
        gathered: What was found.
        lost: File and start of splits that lie behind damage of their file, of which nothing counts.
        before: File, start of a split, and how many lines stand in the splits of the file before it.
        links: Patients whose record was merged, each with the one that it was merged into.
        facts: How many facts there are.
    """

    gathered: Gathered = field(default_factory=Gathered)
    lost: list[tuple[int, int]] = field(default_factory=list)
    before: list[tuple[int, int, int]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    facts: int = 0


def added_up(splits: Iterable[tuple[int, int, Told]], found: Sequence[Found]) -> AddedUp:
    """The sum over all splits.

    Args:
        splits: Number of the file, start and what it tells of itself, in this order.
        found: The files.

    Raises:
        InputError: A file was passed over.
    """
    total = AddedUp()
    here, lines, line_ends, next_file = (-1, -1), 0, 0, 0
    for file, start, told in splits:
        for number in range(next_file, file):
            total.gathered.add(_empty(found[number]))
        if (file, start) != here:
            lines = lines + line_ends if file == here[0] else 0
            total.before.append((file, start, lines))
        here, line_ends, next_file = (file, start), told.part.line_ends, file + 1
        if not total.gathered.add(told.part):
            total.lost.append(here)
            continue
        total.links += told.links
        total.facts += told.facts
    for number in range(next_file, len(found)):
        total.gathered.add(_empty(found[number]))
    return total


def _empty(one: Found) -> Partial:
    """What is found in a file of which nothing was handed over: right of one that holds nothing."""
    if one.size > (_NOTHING_GZIPPED if one.path.endswith(".gz") else 0):
        raise InputError("nothing of the file was handed over", where=one.name, do="call the command again", number=35)
    return Partial([FileReport(one.name)], [], 0, [], 0)
