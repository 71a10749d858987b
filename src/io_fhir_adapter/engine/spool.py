"""An external sort: facts in any order in, one patient at a time out, in memory that does not grow.

Facts are kept in memory up to a limit; beyond it sorted runs go to files, which are merged at the end. What several
processes spooled is merged in the order of what they read, so that it comes out as if one had read it all.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from io_fhir_adapter.classify.versions import newest
from io_fhir_adapter.engine.scratch import Scratch
from io_fhir_adapter.model import ConditionFact, EncounterFact, PatientFact, ProcedureFact

__all__ = [
    "MOST_RUNS",
    "Fact",
    "PatientFacts",
    "Run",
    "Slice",
    "Spool",
    "Spooled",
    "borders",
    "by_patient",
    "merge_runs",
    "people",
]

Fact = ProcedureFact | ConditionFact | EncounterFact | PatientFact
_Record = tuple[str, int, str, str, Fact | msgspec.Raw]  # patient, kind, source, id, fact
_FactT = TypeVar("_FactT", ProcedureFact, ConditionFact, EncounterFact)
_Links = Mapping[str, Collection[str]]

MOST_RUNS = 64
"""So many runs are merged at once; each is an open file."""

_KINDS: Final[dict[type[Fact], int]] = {ProcedureFact: 0, ConditionFact: 1, EncounterFact: 2, PatientFact: 3}
_SORT_KEY: Final = itemgetter(0, 1, 2, 3)
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_RECORD: Final = msgspec.msgpack.Decoder(tuple[str, int, str, str, msgspec.Raw])
_LENGTH_BYTES = 4
_MARKED = 256


class PatientFacts(msgspec.Struct):
    """All facts of one patient; ``people`` are the versions of the Patient itself and of those merged into it."""

    patient: str
    procedures: list[ProcedureFact]
    conditions: list[ConditionFact]
    encounters: list[EncounterFact]
    people: list[PatientFact] = []


@dataclass(frozen=True, slots=True)
class Run:
    """Sorted facts on disk; ``marks`` are the patient and the place of every 256th, from the first on."""

    path: Path
    marks: tuple[tuple[str, int], ...]

    def since(self, patient: str | None) -> Slice:
        """From a little before that patient on; from the start where it is None."""
        before = bisect_left(self.marks, patient, key=itemgetter(0)) - 1 if patient is not None else 0
        return Slice(self.path, self.marks[max(before, 0)][1])


@dataclass(frozen=True, slots=True)
class Slice:
    """A run from a place in its file on."""

    path: Path
    start: int = 0


@dataclass(frozen=True, slots=True)
class Spooled:
    """What was spooled, in order; ``links`` are patients and those that any version says replaced them."""

    runs: tuple[Run, ...]
    links: Mapping[str, Collection[str]]


class Spool:
    """Collects facts and gives them back by patient. Use as a context manager.

    Args:
        limit: How many facts are held in memory before they are written to disk.
        scratch: Where they are written; what is taken from the spool stays there. None for a place of its own.
    """

    def __init__(self, limit: int = 5_000, scratch: Scratch | None = None) -> None:
        self._limit = limit
        self._own = Scratch()
        self._scratch = scratch or self._own
        self._held: list[_Record] = []
        self._levels: list[list[Run]] = [[]]  # of each level the runs that those of the level below were merged into
        self._links: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._own.__exit__(exc_type, exc, traceback)

    def add(self, fact: Fact) -> None:
        """Takes one fact; a Patient also says into which record it was merged."""
        patient = fact.patient if not isinstance(fact, PatientFact) else f"Patient/{fact.id}"
        if isinstance(fact, PatientFact):
            self.link(patient, fact.replaced_by)
        self._held.append((patient, _KINDS[type(fact)], fact.source, fact.id, fact))
        if len(self._held) >= self._limit:
            self._write_run()

    def link(self, patient: str, replaced_by: str) -> None:
        """Takes note that a patient's record was merged into another's."""
        if replaced_by and replaced_by != patient:
            self._links.setdefault(patient, set()).add(replaced_by)

    def _write_run(self) -> None:
        self._held.sort(key=_SORT_KEY)
        self._levels[0].append(_write(self._held, self._scratch.path()))
        self._held = []
        for level, runs in enumerate(self._levels):
            if len(runs) < MOST_RUNS:
                break
            if level + 1 == len(self._levels):
                self._levels.append([])
            self._levels[level + 1].append(merge_runs(runs, self._scratch))
            runs.clear()

    def _runs(self) -> list[Run]:
        return [run for runs in reversed(self._levels) for run in runs]

    def take(self) -> Spooled:
        """All that was added since the last time, in one run at most; what is added from now on is another's."""
        if self._held:
            self._write_run()
        runs = self._runs()
        spooled = Spooled((merge_runs(runs, self._scratch),) if len(runs) > 1 else tuple(runs), self._links)
        self._levels, self._links = [[]], {}
        return spooled

    def patients(self) -> Iterator[PatientFacts]:
        """Every patient with at least one Procedure, in the order of their references, merged records last."""
        self._held.sort(key=_SORT_KEY)
        merged = heapq.merge(*(_read(run.since(None)) for run in self._runs()), self._held, key=_SORT_KEY)
        linked = linked_patients(self._links)
        held_back: list[PatientFacts] = []
        for facts in _grouped(merged):
            if facts.patient in linked:
                held_back.append(facts)
            elif facts.procedures:
                yield facts
        yield from people(held_back, self._links)


def linked_patients(links: _Links) -> frozenset[str]:
    """All patients who may be one person with another."""
    return frozenset(links).union(*links.values())


def by_patient(slices: Iterable[Slice], first: str | None, beyond: str | None) -> Iterator[PatientFacts]:
    """Everything about the patients from ``first`` up to, not with, ``beyond``; None for all on that side."""
    return _grouped(heapq.merge(*(_read(one, first, beyond) for one in slices), key=_SORT_KEY))


def borders(runs: Iterable[Run], ranges: int, most: int = 1 << 14) -> list[str]:
    """Patients at which runs can be cut into at least so many ranges, if they are that many, of a bounded length.

    Args:
        runs: What is to be cut.
        ranges: Into how many at least.
        most: About how many facts may be in one.
    """
    marks = sorted(patient for run in runs for patient, _ in run.marks)
    step = max(min(len(marks) // ranges, most // _MARKED), 1)
    return sorted(set(marks[step::step]))


def people(records: Iterable[PatientFacts], links: _Links) -> Iterator[PatientFacts]:
    """Those of :func:`linked_patients` with at least one Procedure, each person once, by the surviving record.

    Args:
        records: Everything about them, by record.
        links: As any version of theirs says.
    """
    known = list(records)
    following = {patient: max(into) for patient, into in links.items()}
    for facts in known:
        for fact in newest(facts.people, lambda fact: fact.id).values():
            following[facts.patient] = fact.replaced_by
    persons: dict[str, PatientFacts] = {}
    for facts in known:
        survivor = _survivor(facts.patient, following)
        person = persons.setdefault(survivor, PatientFacts(survivor, [], [], [], []))
        person.procedures += _under(facts.procedures, survivor)
        person.conditions += _under(facts.conditions, survivor)
        person.encounters += _under(facts.encounters, survivor)
        person.people += facts.people
    for _, person in sorted(persons.items()):
        if person.procedures:
            yield person


def _survivor(patient: str, following: Mapping[str, str]) -> str:
    seen = {patient}
    while (into := following.get(patient) or patient) not in seen:
        seen.add(into)
        patient = into
    return patient


def _under(facts: list[_FactT], patient: str) -> list[_FactT]:
    """A record's facts under the person's reference."""
    return [fact if fact.patient == patient else msgspec.structs.replace(fact, patient=patient) for fact in facts]


def _grouped(records: Iterable[_Record]) -> Iterator[PatientFacts]:
    for patient, group in groupby(records, key=itemgetter(0)):
        facts = PatientFacts(patient, [], [], [], [])
        kinds = (facts.procedures, facts.conditions, facts.encounters, facts.people)
        for _, kind, _, _, fact in group:
            whole = _DECODERS[kind].decode(fact) if isinstance(fact, msgspec.Raw) else fact
            kinds[kind].append(whole)  # type: ignore[arg-type]
        yield facts


def merge_runs(runs: Sequence[Run], scratch: Scratch) -> Run:
    """Several runs as one; they are removed."""
    merged = _write(heapq.merge(*(_read(run.since(None)) for run in runs), key=_SORT_KEY), scratch.path())
    for run in runs:
        run.path.unlink()
    return merged


def _write(records: Iterable[_Record], path: Path) -> Run:
    marks: list[tuple[str, int]] = []
    place = 0
    with path.open("xb") as handle:
        for number, record in enumerate(records):
            if number % _MARKED == 0:
                marks.append((record[0], place))
            data = _ENCODER.encode(record)
            handle.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
            handle.write(data)
            place += _LENGTH_BYTES + len(data)
    return Run(path, tuple(marks))


def _read(run: Slice, first: str | None = None, beyond: str | None = None) -> Iterator[_Record]:
    with run.path.open("rb") as handle:
        handle.seek(run.start)
        while head := handle.read(_LENGTH_BYTES):
            record = _RECORD.decode(handle.read(int.from_bytes(head, "big")))
            if beyond is not None and record[0] >= beyond:
                return
            if first is None or record[0] >= first:
                yield record
