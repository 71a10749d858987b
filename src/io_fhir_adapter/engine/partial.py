"""What one part of the input yields, and how parts add up: to exactly what one pass over all of it finds.

A part is some whole inputs, or a range of one large NDJSON file. Its small findings are a :class:`Partial`; facts and
the flags of its Procedures are many, and go where whoever reads the part lets them go (:mod:`.scan`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from io_fhir_adapter.engine.tally import UnmappedCode, seen_of
from io_fhir_adapter.model import Quarantined
from io_fhir_adapter.pull.files import further_on
from io_fhir_adapter.volume.count import Seen

__all__ = ["QUARANTINED_KEPT", "FileReport", "Gathered", "Partial", "Scan"]

QUARANTINED_KEPT = 1_000
"""So many resources that could not be used are named, the first ones."""


@dataclass(slots=True)
class FileReport:
    """What one input held; ``damaged`` counts what is no JSON at all, the first of it at ``damage``."""

    name: str
    procedures: int = 0
    other: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    damaged: int = 0
    damage: str = ""
    refused: str = ""


@dataclass(slots=True)
class Scan:
    """The outcome of one pass; ``seen`` is over distinct Procedures, ``files`` over everything read.

    ``quarantined`` holds the first thousand resources that could not be used; ``quarantined_total`` is their number.
    """

    files: list[FileReport]
    quarantined: list[Quarantined]
    seen: Seen
    unmapped: list[UnmappedCode]
    without_code: int

    @property
    def procedures_read(self) -> int:
        """All Procedures decoded, repeated ones included."""
        return sum(report.procedures for report in self.files)

    @property
    def quarantined_total(self) -> int:
        """All resources that could not be used."""
        return sum(report.quarantined for report in self.files)


@dataclass(slots=True)
class Partial:
    """What one part yields, but for facts and flags.

    Attributes:
        files: A report for each of its inputs, in order.
        quarantined: The first thousand resources that could not be used; lines are counted from the part's first one.
        quarantined_procedures: How many Procedures, or what may be one, could not be used; not just the first ones.
        unmapped: Codes that no row matches, in no order.
        without_code: Procedures without any code.
        line_ends: How many lines end in it; needed where another part of the same file follows.
        continues: Whether it goes on with the file that the part before it ended in.
    """

    files: list[FileReport]
    quarantined: list[Quarantined]
    quarantined_procedures: int
    unmapped: list[UnmappedCode]
    without_code: int
    line_ends: int = 0
    continues: bool = False


class Gathered:
    """Adds parts up, in their order."""

    def __init__(self) -> None:
        self.files: list[FileReport] = []
        self._quarantined: list[Quarantined] = []
        self._quarantined_procedures = 0
        self._codings: Counter[tuple[str, str, bool]] = Counter()
        self._without_code = 0
        self._lines = 0  # that ended in earlier parts of the file that was added last

    def add(self, part: Partial) -> bool:
        """Adds the next part; False, and nothing is added, where its file could not be read even up to there."""
        if part.continues and self.files[-1].refused:
            return False
        before = self._lines if part.continues else 0
        if part.continues:
            _go_on(self.files[-1], part.files[0], before)
        self.files += part.files[1:] if part.continues else part.files
        room = QUARANTINED_KEPT - len(self._quarantined)
        for entry in part.quarantined[:room]:
            position = further_on(entry.position, part.files[0].name, before)
            self._quarantined.append(msgspec.structs.replace(entry, position=position))
        self._quarantined_procedures += part.quarantined_procedures
        for code in part.unmapped:
            self._codings[code.system, code.code, code.known_system] += code.codings
        self._without_code += part.without_code
        self._lines = before + part.line_ends
        return True

    def scan(self, flags: Counter[int]) -> Scan:
        """The outcome, with the number of distinct Procedures by flags."""
        unmapped = [UnmappedCode(*code, number) for code, number in self._codings.items()]
        unmapped.sort(key=lambda entry: (-entry.codings, entry.system, entry.code))
        seen = seen_of(flags, self._quarantined_procedures)
        return Scan(self.files, self._quarantined, seen, unmapped, self._without_code)


def _go_on(report: FileReport, more: FileReport, lines: int) -> None:
    """Adds what a later part of the same file held."""
    report.procedures += more.procedures
    report.other.update(more.other)
    report.quarantined += more.quarantined
    report.damaged += more.damaged
    report.damage = report.damage or further_on(more.damage, more.name, lines)
    report.refused = more.refused
