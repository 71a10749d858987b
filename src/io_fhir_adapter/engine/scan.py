"""One pass over input files: every Procedure tallied, what decisions need set aside, the broken quarantined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from io_fhir_adapter.engine.distinct import DistinctTally
from io_fhir_adapter.engine.partial import QUARANTINED_KEPT, FileReport, Gathered, Partial, Scan
from io_fhir_adapter.engine.parts import size_of
from io_fhir_adapter.engine.spool import Fact, Spool
from io_fhir_adapter.engine.tally import ProcedureTally, UnmappedCode
from io_fhir_adapter.engine.terms import Terms
from io_fhir_adapter.errors import InputError, ResourceError
from io_fhir_adapter.fhir.facts import condition_fact, encounter_fact, patient_fact, procedure_fact
from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure
from io_fhir_adapter.model import Quarantined
from io_fhir_adapter.pull.decode import DAMAGED, Item, Resource
from io_fhir_adapter.pull.files import Block, InputFile, LineIndex, Span, read_input

__all__ = ["READING", "SOURCE", "Advance", "FileReport", "Scan", "Scanner", "UnmappedCode", "scan_files"]

SOURCE = "files"
READING = "reading (MB)"
"""What is being done while files are read, and in what that is counted."""
Advance = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is, and of how much."""


class Scanner:
    """Reads parts of the input; remembers from one to the next what it found out about what hospitals write.

    Args:
        terms: By what; where everything is wanted, every Procedure is handed on, not just those that a row matches.
        tallied: Takes keys and flags of Procedures, as in :class:`ProcedureTally`.
        add: Takes the facts that decisions need.
        named: How many resources that could not be used are named in one :meth:`take`.
    """

    def __init__(
        self,
        terms: Terms,
        tallied: Callable[[Iterable[int], Iterable[int]], None],
        add: Callable[[Fact], None],
        named: int = QUARANTINED_KEPT,
    ) -> None:
        self._tally = ProcedureTally(terms.ruleset, terms.period, terms.tz, terms.not_after, tallied)
        self._tz = terms.tz
        self._not_after = terms.not_after
        self._keep_all = terms.everything
        self._add = add
        self._named = named
        self._files: list[FileReport] = []
        self._quarantined: list[Quarantined] = []
        self._quarantined_procedures = 0

    def read(
        self,
        source: InputFile,
        stdin: BinaryIO | None = None,
        *,
        span: Span | None = None,
        index: LineIndex | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> FileReport:
        """Reads one input, or a span of it, as :func:`read_input` does.

        Args:
            source: What to read.
            stdin: Where stdin is read from.
            span: What part of it.
            index: Takes the lines of the span.
            advance: Called now and then with the number of bytes that were read.
        """
        report = FileReport(source.name)
        self._files.append(report)
        try:
            for part in read_input(source, stdin, glance=not self._keep_all, span=span, index=index):
                if isinstance(part, Block):
                    self.block(part, report)
                    if advance is not None:
                        advance(part.start)
                else:
                    self.item(part, report)
        except InputError as exc:
            report.refused = exc.sentence
        return report

    def block(self, block: Block, report: FileReport) -> None:
        """Takes a block of an input."""
        if block.glances:
            report.procedures += len(block.glances)
            for line, procedure, problem in block.whole(self._tally.glance(block.glances)):
                report.procedures -= procedure is None  # its code says what no code can say
                reason = self._procedure(procedure, problem)
                if reason:
                    self._set_aside(block.position(line), "Procedure", reason, report)
            return
        for line, resource in enumerate(block.resources, start=block.first_line):
            self.item(Item(f"{block.name}:{line}", block.resource_type, resource), report)

    def item(self, item: Item, report: FileReport) -> None:
        """Takes a single resource of an input."""
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
            fact = procedure_fact(procedure, SOURCE, self._tz, fallback_id, not_after=self._not_after)
        except ResourceError as exc:
            return exc.what
        if self._tally.closer(fact) or self._keep_all:
            self._add(fact)
        return ""

    def _background(self, resource: Resource | None, fallback_id: str) -> str:
        """Spools what decisions rest on; or says why it cannot be used."""
        try:
            if isinstance(resource, Condition):
                self._add(condition_fact(resource, SOURCE, self._tz, fallback_id))
            elif isinstance(resource, Encounter):
                self._add(encounter_fact(resource, SOURCE, self._tz, fallback_id))
            elif isinstance(resource, Patient):
                self._add(patient_fact(resource, SOURCE, self._tz, fallback_id))
        except ResourceError as exc:
            return exc.what
        return ""

    def _set_aside(self, position: str, kind: str, reason: str, report: FileReport) -> None:
        report.quarantined += 1
        if reason in DAMAGED:
            report.damaged += 1
            report.damage = report.damage or position
        self._quarantined_procedures += kind == "Procedure"
        if len(self._quarantined) < self._named:
            self._quarantined.append(Quarantined(SOURCE, position, kind, reason))

    def take(self, line_ends: int = 0, *, continues: bool = False) -> Partial:
        """What was found since the last time; the arguments as in :class:`Partial`."""
        unmapped, without_code = self._tally.take()
        part = Partial(
            self._files, self._quarantined, self._quarantined_procedures, unmapped, without_code, line_ends, continues
        )
        self._files, self._quarantined, self._quarantined_procedures = [], [], 0
        return part


def _in_all(advance: Advance | None, done: int, total: int) -> Callable[[int], None] | None:
    """Tells how far all is, of one who knows how far one input is."""
    if advance is None:
        return None
    return lambda byte: advance(READING, min(done + byte, total) // 1_000_000, total // 1_000_000)


def scan_files(
    inputs: Sequence[InputFile],
    terms: Terms,
    spool: Spool,
    *,
    stdin: BinaryIO | None = None,
    progress: Callable[[FileReport], None] | None = None,
    advance: Advance | None = None,
) -> Scan:
    """Reads everything once.

    Args:
        inputs: What to read.
        terms: By what.
        spool: Takes the facts that decisions need: Procedures that a row matches, or all where everything is wanted,
            Conditions, Encounters, Patients.
        stdin: Where ``-`` reads from.
        progress: Called after each file.
        advance: Told of what is done.
    """
    gathered = Gathered()
    with DistinctTally() as distinct:
        scanner = Scanner(terms, distinct.extend, spool.add)
        done, total = 0, sum(map(size_of, inputs))
        for source in inputs:
            report = scanner.read(source, stdin, advance=_in_all(advance, done, total))
            done += size_of(source)
            if progress is not None:
                progress(report)
        gathered.add(scanner.take())
        return gathered.scan(distinct.result())
