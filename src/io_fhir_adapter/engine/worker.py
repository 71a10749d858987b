"""What one worker process does: reads parts, tallies ranges of keys, merges runs, decides on ranges of patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from io_fhir_adapter.engine.deciding import Deciding
from io_fhir_adapter.engine.distinct import DistinctTally, Spilled, count_spilled
from io_fhir_adapter.engine.lines import decision_line
from io_fhir_adapter.engine.partial import Partial
from io_fhir_adapter.engine.parts import Part
from io_fhir_adapter.engine.scan import Scanner
from io_fhir_adapter.engine.scratch import Scratch
from io_fhir_adapter.engine.spool import PatientFacts, Run, Slice, Spool, Spooled, by_patient, merge_runs
from io_fhir_adapter.engine.terms import Terms
from io_fhir_adapter.model import Decision, DecisionKind, Quarantined
from io_fhir_adapter.pull.files import LineIndex

__all__ = ["Buckets", "Decided", "Job", "Merge", "Patients", "Result", "Scanned", "Task", "Worker", "outcome_of"]


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers know.

    Attributes:
        terms: By what; where everything is wanted there is a line for every session, else they are counted.
        folder: Where the workers put what is too large to be sent.
    """

    terms: Terms
    folder: Path

    def __call__(self) -> Worker:
        """Makes the worker."""
        return Worker(self)


@dataclass(frozen=True, slots=True)
class Buckets:
    """Asks for distinct Procedures by flags in a range of buckets; answered with a Counter."""

    spilled: tuple[Spilled, ...]
    buckets: range


@dataclass(frozen=True, slots=True)
class Merge:
    """Asks for runs to be merged into one; answered with it."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Patients:
    """Asks for decisions on the patients from ``first`` up to, not with, ``beyond``; not on those ``linked``."""

    slices: tuple[Slice, ...]
    first: str | None
    beyond: str | None
    linked: frozenset[str]


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a part yields."""

    part: Partial
    spilled: Spilled
    spooled: Spooled


Shape = tuple[str, str, DecisionKind, str]
"""Date, category, decision and reason: all that counting needs to know of a decision."""


@dataclass(slots=True)
class Decided:
    """What became of a range of patients.

    Attributes:
        shapes: The number of decisions by shape, where they are only counted.
        lines: The file with their lines otherwise.
        held_back: Everything about patients who may be one person with another, by record.
        quarantined, aside, ended: As in :class:`Deciding`.
    """

    shapes: Counter[Shape] = field(default_factory=Counter)
    lines: Path | None = None
    held_back: list[PatientFacts] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    aside: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)


Task = Part | Buckets | Merge | Patients
Result = Scanned | Counter[int] | Run | Decided


class Worker:
    """Does one task after the other; remembers from part to part what hospitals write."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scratch = Scratch(job.folder)
        self._distinct = DistinctTally(self._scratch)
        self._spool = Spool(scratch=self._scratch)
        self._scanner = Scanner(job.terms, self._distinct.extend, self._spool.add)

    def __call__(self, task: Task) -> Result:
        """Does one."""
        if isinstance(task, Part):
            return self._scan(task)
        if isinstance(task, Buckets):
            return count_spilled(task.spilled, task.buckets)
        if isinstance(task, Merge):
            return merge_runs(task.runs, self._scratch)
        return self._decide(task)

    def _scan(self, task: Part) -> Scanned:
        index = LineIndex(None) if task.span is not None else None
        for source in task.inputs:
            self._scanner.read(source, span=task.span, index=index)
        part = self._scanner.take(index.ended if index is not None else 0, continues=task.continues)
        return Scanned(part, self._distinct.take(), self._spool.take())

    def _decide(self, task: Patients) -> Decided:
        decided = Decided()

        def alone() -> Iterator[PatientFacts]:
            for facts in by_patient(task.slices, task.first, task.beyond):
                if facts.patient in task.linked:
                    decided.held_back.append(facts)
                elif facts.procedures:
                    yield facts

        return outcome_of(self._job, alone(), decided, self._scratch)


def outcome_of(job: Job, patients: Iterator[PatientFacts], decided: Decided, scratch: Scratch) -> Decided:
    """Decides on patients, and writes down what came of it."""
    deciding = Deciding(job.terms)
    decisions = deciding.decisions(patients)
    if job.terms.everything:
        decided.lines = scratch.path()
        with decided.lines.open("xb") as handle:
            handle.writelines(map(decision_line, decisions))
    else:
        decided.shapes.update(map(_shape, decisions))
    decided.quarantined, decided.aside, decided.ended = deciding.quarantined, deciding.aside, deciding.ended
    return decided


def _shape(decision: Decision) -> Shape:
    return decision.date, decision.category, decision.decision, decision.reason
