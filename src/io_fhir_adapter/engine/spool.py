"""An external sort: facts in any order in, one patient at a time out, in memory that does not grow.

Facts are kept in memory up to a limit; beyond it sorted runs go to temporary files, which are merged at the end.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from io_fhir_adapter.classify.versions import moment_of
from io_fhir_adapter.model import ConditionFact, EncounterFact, PatientFact, ProcedureFact

__all__ = ["PatientFacts", "Spool"]

Fact = ProcedureFact | ConditionFact | EncounterFact | PatientFact
_Record = tuple[str, int, str, str, Fact]  # patient, kind, source, id, fact

_KIND = 1
_KINDS: Final[dict[type[Fact], int]] = {ProcedureFact: 0, ConditionFact: 1, EncounterFact: 2, PatientFact: 3}
_SORT_KEY: Final = itemgetter(0, 1, 2, 3)
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_RECORD: Final = msgspec.msgpack.Decoder(tuple[int, str, str, msgspec.Raw])
_LENGTH_BYTES = 4


class PatientFacts(msgspec.Struct):
    """All facts of one patient; ``people`` are the versions of the Patient itself and of those merged into it."""

    patient: str
    procedures: list[ProcedureFact]
    conditions: list[ConditionFact]
    encounters: list[EncounterFact]
    people: list[PatientFact] = []


class Spool:
    """Collects facts and gives them back by patient. Use as a context manager.

    Args:
        limit: How many facts are held in memory before they are written to disk.
    """

    def __init__(self, limit: int = 5_000) -> None:
        self._limit = limit
        self._held: list[_Record] = []
        self._runs: list[Path] = []
        self._links: dict[str, str] = {}
        self._linked: dict[str, tuple[datetime, str]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, fact: Fact) -> None:
        """Takes one fact; a Patient also says into which record it was merged."""
        if isinstance(fact, PatientFact):
            self._newest_link(fact)
        self._held.append((_patient_of(fact), _KINDS[type(fact)], fact.source, fact.id, fact))
        if len(self._held) >= self._limit:
            self._write_run()

    def _newest_link(self, fact: PatientFact) -> None:
        """Of several versions of a Patient the newest says whether it was merged."""
        patient = _patient_of(fact)
        if not fact.replaced_by and patient not in self._linked:
            return  # as nearly all
        version = moment_of(fact.updated), fact.replaced_by
        if version >= self._linked.get(patient, version):
            self._linked[patient] = version
            self._links.pop(patient, None)
            self.link(patient, fact.replaced_by)

    def link(self, patient: str, replaced_by: str) -> None:
        """Takes note that a patient's record was merged into another's."""
        if replaced_by and replaced_by != patient:
            self._links[patient] = replaced_by

    def _survivor(self, patient: str) -> str:
        seen = {patient}
        while (following := self._links.get(patient, patient)) not in seen:
            seen.add(following)
            patient = following
        return patient

    def _write_run(self) -> None:
        self._held.sort(key=_SORT_KEY)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="io-fhir-adapter-")
        path = Path(self._folder.name) / f"{len(self._runs):06d}.run"
        with path.open("wb") as handle:
            for record in self._held:
                data = _ENCODER.encode(record[_KIND:])
                handle.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
                handle.write(data)
        self._runs.append(path)
        self._held = []

    def patients(self) -> Iterator[PatientFacts]:
        """Every patient with at least one Procedure, in the order of their references, merged records last."""
        self._held.sort(key=_SORT_KEY)
        merged = heapq.merge(*(_read_run(path) for path in self._runs), self._held, key=_SORT_KEY)
        survivors = {self._survivor(patient) for patient in self._links}
        held_back: dict[str, PatientFacts] = {}
        for patient, records in groupby(merged, key=lambda record: record[0]):
            survivor = self._survivor(patient)
            linked = survivor != patient or patient in survivors
            facts = held_back.setdefault(survivor, PatientFacts(survivor, [], [], [], [])) if linked else None
            facts = _collect(records, facts or PatientFacts(patient, [], [], [], []))
            if facts.procedures and not linked:
                yield facts
        for _, facts in sorted(held_back.items()):
            if facts.procedures:
                yield facts


def _collect(records: Iterable[_Record], facts: PatientFacts) -> PatientFacts:
    """Adds records to a patient's facts, under the patient's surviving reference."""
    for patient, kind, _, _, fact in records:
        moved = patient != facts.patient and not isinstance(fact, PatientFact)
        kept = msgspec.structs.replace(fact, patient=facts.patient) if moved else fact
        (facts.procedures, facts.conditions, facts.encounters, facts.people)[kind].append(kept)  # type: ignore[arg-type]
    return facts


def _patient_of(fact: Fact) -> str:
    return f"Patient/{fact.id}" if isinstance(fact, PatientFact) else fact.patient


def _read_run(path: Path) -> Iterator[_Record]:
    with path.open("rb") as handle:
        while head := handle.read(_LENGTH_BYTES):
            kind, source, identifier, raw = _RECORD.decode(handle.read(int.from_bytes(head, "big")))
            fact = _DECODERS[kind].decode(raw)
            yield _patient_of(fact), kind, source, identifier, fact
