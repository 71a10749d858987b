"""One pass over input files: every Procedure tallied, what decisions need set aside, the broken quarantined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import BinaryIO

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.engine.tally import ProcedureTally, UnmappedCode
from io_fhir_adapter.errors import InputError, ResourceError
from io_fhir_adapter.fhir.dates import tomorrow
from io_fhir_adapter.fhir.facts import condition_fact, encounter_fact, patient_fact, procedure_fact
from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure
from io_fhir_adapter.model import Quarantined
from io_fhir_adapter.pull.decode import DAMAGED, Item, Resource
from io_fhir_adapter.pull.files import Block, InputFile, read_input
from io_fhir_adapter.volume.count import Period, Seen

__all__ = ["SOURCE", "FileReport", "Scan", "UnmappedCode", "scan_files"]

SOURCE = "files"
_QUARANTINED_KEPT = 1_000


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


class _Scanner:
    """The state of one pass. ``keep_all`` spools every Procedure, not just those a row matches."""

    def __init__(self, tally: ProcedureTally, tz: tzinfo | None, spool: Spool, keep_all: bool, not_after: str) -> None:
        self.tally = tally
        self.tz = tz
        self.spool = spool
        self.keep_all = keep_all
        self.not_after = not_after
        self.quarantined: list[Quarantined] = []
        self.quarantined_procedures = 0

    def block(self, block: Block, report: FileReport) -> None:
        if block.glances:
            report.procedures += len(block.glances)
            for line, procedure, problem in block.whole(self.tally.glance(block.glances)):
                report.procedures -= procedure is None  # its code says what no code can say
                reason = self._procedure(procedure, problem)
                if reason:
                    self._set_aside(block.position(line), "Procedure", reason, report)
            return
        for line, resource in enumerate(block.resources, start=block.first_line):
            self.item(Item(f"{block.name}:{line}", block.resource_type, resource), report)

    def item(self, item: Item, report: FileReport) -> None:
        if item.problem:
            reason = item.problem
        elif item.resource_type == "Procedure":
            report.procedures += 1
            reason = self._procedure(item.resource, "", item.fallback_id)
        else:
            report.other[item.resource_type] += 1
            reason = self._background(item.resource, item.fallback_id)
        if reason:
            self._set_aside(item.position, item.resource_type, reason, report)

    def _procedure(self, procedure: Resource | None, problem: str, fallback_id: str = "") -> str:
        """The closer look at a Procedure: tallied, and spooled where it matters; or why it cannot be used."""
        if not isinstance(procedure, Procedure):
            return problem
        try:
            fact = procedure_fact(procedure, SOURCE, self.tz, fallback_id, not_after=self.not_after)
        except ResourceError as exc:
            return exc.what
        if self.tally.closer(fact) or self.keep_all:
            self.spool.add(fact)
        return ""

    def _background(self, resource: Resource | None, fallback_id: str) -> str:
        """Spools what decisions rest on; or says why it cannot be used."""
        try:
            if isinstance(resource, Condition):
                self.spool.add(condition_fact(resource, SOURCE, self.tz, fallback_id))
            elif isinstance(resource, Encounter):
                self.spool.add(encounter_fact(resource, SOURCE, self.tz, fallback_id))
            elif isinstance(resource, Patient):
                self.spool.add(patient_fact(resource, SOURCE, self.tz, fallback_id))
        except ResourceError as exc:
            return exc.what
        return ""

    def _set_aside(self, position: str, kind: str, reason: str, report: FileReport) -> None:
        report.quarantined += 1
        if reason in DAMAGED:
            report.damaged += 1
            report.damage = report.damage or position
        self.quarantined_procedures += kind == "Procedure"
        if len(self.quarantined) < _QUARANTINED_KEPT:
            self.quarantined.append(Quarantined(SOURCE, position, kind, reason))

    def result(self, files: list[FileReport]) -> Scan:
        unmapped = self.tally.unmapped()
        seen = self.tally.seen(self.quarantined_procedures)
        return Scan(files, self.quarantined, seen, unmapped, self.tally.without_code)


def scan_files(
    inputs: Iterable[InputFile],
    ruleset: Ruleset,
    spool: Spool,
    *,
    tz: tzinfo | None,
    period: Period,
    keep_all: bool,
    stdin: BinaryIO | None = None,
    progress: Callable[[FileReport], None] | None = None,
) -> Scan:
    """Reads everything once.

    Args:
        inputs: What to read.
        ruleset: The tables.
        spool: Takes the facts that decisions need: Procedures that a row matches, Conditions, Encounters.
        tz: The facility's time zone, None for dates as written.
        period: What is tallied in ``seen``.
        keep_all: Spool every Procedure, for decisions on all sessions.
        stdin: Where ``-`` reads from.
        progress: Called after each file.
    """
    reports: list[FileReport] = []
    not_after = tomorrow()
    tally = ProcedureTally(ruleset, period, tz, not_after)
    with tally.distinct:
        scanner = _Scanner(tally, tz, spool, keep_all, not_after)
        for source in inputs:
            report = FileReport(source.name)
            reports.append(report)
            try:
                for part in read_input(source, stdin, glance=not keep_all):
                    if isinstance(part, Block):
                        scanner.block(part, report)
                    else:
                        scanner.item(part, report)
            except InputError as exc:
                report.refused = exc.sentence
            if progress is not None:
                progress(report)
        return scanner.result(reports)
