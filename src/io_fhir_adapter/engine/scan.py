"""One pass over input files: every Procedure tallied, what decisions need set aside, the broken quarantined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import BinaryIO, cast

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.distinct import DistinctTally
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.errors import InputError, ResourceError
from io_fhir_adapter.fhir.dates import days_apart, local_day
from io_fhir_adapter.fhir.facts import condition_fact, encounter_fact, patient_fact, procedure_fact
from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure, ProcedureGlance
from io_fhir_adapter.model import Quarantined
from io_fhir_adapter.pull.decode import Item, Resource
from io_fhir_adapter.pull.files import Block, InputFile, read_input
from io_fhir_adapter.volume.count import Period, Seen

__all__ = ["SOURCE", "FileReport", "Scan", "UnmappedCode", "scan_files"]

SOURCE = "files"
_STATUSES = (
    "completed", "not-done", "entered-in-error", "in-progress", "preparation", "on-hold", "stopped", "unknown",
)  # fmt: skip
_OTHER_STATUS = len(_STATUSES)
_STATUS_INDEX: dict[str | None, int] = {name: index for index, name in enumerate(_STATUSES)}
_INSIDE, _OUTSIDE, _UNPLACED, _INVALID = 0, 1, 2, 3
_PLACES = {"inside": _INSIDE, "outside": _OUTSIDE, "unplaced": _UNPLACED}
_MAPPED, _KNOWN = 1, 2
_NOT_DONE = _STATUSES.index("not-done")
_DAY = 10
_DAYS_LIMIT = 100_000
_QUARANTINED_KEPT = 1_000


@dataclass(slots=True)
class FileReport:
    """What one input held."""

    name: str
    procedures: int = 0
    other: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class UnmappedCode:
    """A code that no row matches: its system as written, whether that system has a table, how often it was read."""

    system: str
    code: str
    known_system: bool
    codings: int


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

    def __init__(
        self, ruleset: Ruleset, tz: tzinfo | None, spool: Spool, tally: DistinctTally, period: Period, keep_all: bool
    ) -> None:
        self.ruleset = ruleset
        self.tz = tz
        self.spool = spool
        self.tally = tally
        self.period = period
        self.keep_all = keep_all
        self.quarantined: list[Quarantined] = []
        self.quarantined_procedures = 0
        self.without_code = 0
        self._codes: dict[tuple[str | None, str | None], list[int]] = {}  # (system, code) → [flags, codings]
        self._statuses: dict[str | None, int] = {
            **_STATUS_INDEX,
            None: _STATUS_INDEX["unknown"],
            "aborted": _STATUS_INDEX["stopped"],  # STU3
            "suspended": _STATUS_INDEX["on-hold"],  # STU3
        }
        self._days: dict[str, int] = {}
        self._borders = (period.start, period.end)

    def block(self, block: Block, report: FileReport) -> None:
        if block.glances:
            chosen = self._look_at(block.glances, report)
            for offset, item in block.whole(chosen):
                self._keep(item, report, counted=block.glances[offset])
        elif block.resource_type == "Procedure":
            procedures = cast(Sequence[Procedure], block.resources)
            for offset in self._look_at(procedures, report):
                position = f"{block.name}:{block.first_line + offset}"
                self._keep(Item(position, "Procedure", procedures[offset]), report, counted=procedures[offset])
        else:
            report.other[block.resource_type] += len(block.resources)
            for line, resource in enumerate(block.resources, start=block.first_line):
                self._background(resource, f"{block.name}:{line}", "", report)

    def item(self, item: Item, report: FileReport) -> None:
        if item.problem:
            self._set_aside(item.position, item.resource_type, item.problem, "IOA-RES-010", report)
        elif isinstance(item.resource, Procedure):
            procedure = item.resource
            procedure.id = procedure.id or item.fallback_id or None
            if self._look_at([procedure], report):
                self._keep(item, report, counted=procedure)
        else:
            report.other[item.resource_type] += 1
            if item.resource is not None:
                self._background(item.resource, item.position, item.fallback_id, report)

    def _set_aside(self, position: str, kind: str, reason: str, code: str, report: FileReport) -> None:
        report.quarantined += 1
        self.quarantined_procedures += kind == "Procedure"
        if len(self.quarantined) < _QUARANTINED_KEPT:
            self.quarantined.append(Quarantined(SOURCE, position, kind, reason, code))

    def _background(self, resource: Resource, position: str, fallback_id: str, report: FileReport) -> None:
        try:
            if isinstance(resource, Condition):
                self.spool.add(condition_fact(resource, SOURCE, self.tz, fallback_id))
            elif isinstance(resource, Encounter):
                self.spool.add(encounter_fact(resource, SOURCE, self.tz, fallback_id))
            elif isinstance(resource, Patient):
                fact = patient_fact(resource, SOURCE, self.tz, fallback_id)
                self.spool.link(f"Patient/{fact.id}", fact.replaced_by)
        except ResourceError as exc:
            self._set_aside(position, resource.resourceType, exc.what, exc.code, report)

    def _look_at(self, procedures: Sequence[Procedure | ProcedureGlance], report: FileReport) -> list[int]:
        """Tallies Procedures; gives the offsets of those that need a closer look."""
        # The hot loop: everything that a Procedure of no interest costs happens here.
        codes, statuses, days, adders, mask = (
            self._codes,
            self._statuses,
            self._days,
            self.tally.adders,
            DistinctTally.MASK,
        )
        chosen: list[int] = []
        report.procedures += len(procedures)
        for offset, procedure in enumerate(procedures):
            flags = 0
            concept = procedure.code
            if concept is not None and concept.coding:
                for coding in concept.coding:
                    key = (coding.system, coding.code)
                    slot = codes.get(key)
                    if slot is None:
                        slot = self._new_code(key)
                    slot[1] += 1
                    flags |= slot[0]
            else:
                self.without_code += 1
            value = procedure.performedDateTime
            where = days.get(value[:_DAY]) if value is not None else None
            if where is None:
                where = self._place(procedure)
            resource_id = procedure.id
            if flags & _MAPPED or self.keep_all or where == _INVALID or not resource_id or procedure.subject is None:
                chosen.append(offset)  # tallied after the closer look, which may set it aside
                continue
            status = statuses.get(procedure.status, _OTHER_STATUS) if not procedure.notDone else _NOT_DONE
            word = hash(resource_id) & mask | status << 4 | where << 2 | flags
            adders[word >> 8 & 255](word)
        self.tally.settle()
        return chosen

    def _new_code(self, key: tuple[str | None, str | None]) -> list[int]:
        system, code = key[0] or "", key[1] or ""
        entry = self.ruleset.entry(system, code) if code else None
        flags = 0
        if entry is not None:
            flags |= _MAPPED | _KNOWN if entry.rows else 0
            flags |= _KNOWN if entry.system in self.ruleset.table_systems else 0
        slot = self._codes[key] = [flags, 0]
        return slot

    def _keep(self, item: Item, report: FileReport, counted: Procedure | ProcedureGlance) -> None:
        """The closer look at a Procedure: set aside, or spooled and tallied."""
        procedure = item.resource
        if not isinstance(procedure, Procedure):
            self._set_aside(item.position, "Procedure", item.problem, "IOA-RES-010", report)
            return
        try:
            fact = procedure_fact(procedure, SOURCE, self.tz, item.fallback_id)
        except ResourceError as exc:
            self._set_aside(item.position, "Procedure", exc.what, exc.code, report)
            return
        self.spool.add(fact)
        flags = 0
        for code in fact.codes:
            # the system is missing or empty in the source, which the fact does not tell apart
            slot = self._codes.get((code.system or None, code.code)) or self._codes[code.system, code.code]
            flags |= slot[0]
        word = hash(fact.id) & DistinctTally.MASK
        word |= self._statuses.get(fact.status, _OTHER_STATUS) << 4 | self._place(counted) << 2 | flags
        self.tally.adders[word >> 8 & 255](word)

    def _place(self, procedure: Procedure | ProcedureGlance) -> int:
        """Where the Procedure's date stands to the period, ``_INVALID`` for a date that is none."""
        value = procedure.performedDateTime or procedure.occurrenceDateTime
        if value is None:
            span = procedure.performedPeriod or procedure.occurrencePeriod
            value = (span.start or span.end) if span is not None else None
            if value is None:
                return _UNPLACED
        day = value[:_DAY]
        known = self._days.get(day)
        if known is not None:
            return known
        try:
            where = _PLACES[self.period.place(local_day(value, self.tz))]
        except ResourceError:
            return _INVALID
        # A day within one of the period's borders may fall on the other side in the facility's time zone, so only
        # days further away are remembered.
        if len(day) == _DAY and all(days_apart(day, border) not in {0, 1} for border in self._borders):
            if len(self._days) > _DAYS_LIMIT:
                self._days.clear()
            self._days[day] = where
        return where

    def result(self, files: list[FileReport]) -> Scan:
        tallies = self.tally.result()
        status: Counter[str] = Counter()
        completed = mapped = known = outside = unplaced = 0
        for flags, number in tallies.items():
            where = flags >> 2 & 3
            if where == _OUTSIDE:
                outside += number
            elif where == _UNPLACED:
                unplaced += number
            else:
                index = flags >> 4
                name = _STATUSES[index] if index < len(_STATUSES) else "other"
                status[name] += number
                if name == "completed":
                    completed += number
                    mapped += number if flags & _MAPPED else 0
                    known += number if flags & _KNOWN else 0
        seen = Seen(
            procedures=status.total(),
            completed=completed,
            by_status=dict(sorted(status.items())),
            mapped=mapped,
            known_system=known,
            quarantined=self.quarantined_procedures,
            undated=unplaced,
            outside=outside,
        )
        unmapped = [
            UnmappedCode(system or "", code or "", bool(flags & _KNOWN), number)
            for (system, code), (flags, number) in self._codes.items()
            if not flags & _MAPPED
        ]
        unmapped.sort(key=lambda entry: (-entry.codings, entry.system, entry.code))
        return Scan(files, self.quarantined, seen, unmapped, self.without_code)


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
    with DistinctTally() as tally:
        scanner = _Scanner(ruleset, tz, spool, tally, period, keep_all)
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
