"""An external sort: facts in any order in, one patient at a time out, in memory that does not grow.

Facts are kept in memory up to a limit; beyond it sorted runs go to temporary files, which are merged at the end.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from io_fhir_adapter.model import ConditionFact, EncounterFact, ProcedureFact

__all__ = ["PatientFacts", "Spool"]

Fact = ProcedureFact | ConditionFact | EncounterFact
_Record = tuple[str, int, str, str, Fact]  # patient, kind, source, id, fact

_KIND = 1
_KINDS: Final[dict[type[Fact], int]] = {ProcedureFact: 0, ConditionFact: 1, EncounterFact: 2}
_SORT_KEY: Final = itemgetter(0, 1, 2, 3)
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_RECORD: Final = msgspec.msgpack.Decoder(tuple[int, str, str, msgspec.Raw])
_LENGTH_BYTES = 4


class PatientFacts(msgspec.Struct):
    """All facts of one patient."""

    patient: str
    procedures: list[ProcedureFact]
    conditions: list[ConditionFact]
    encounters: list[EncounterFact]


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
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, fact: Fact) -> None:
        """Takes one fact."""
        self._held.append((fact.patient, _KINDS[type(fact)], fact.source, fact.id, fact))
        if len(self._held) >= self._limit:
            self._write_run()

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
            facts = held_back.setdefault(survivor, PatientFacts(survivor, [], [], [])) if linked else None
            facts = _collect(records, facts or PatientFacts(patient, [], [], []))
            if facts.procedures and not linked:
                yield facts
        for _, facts in sorted(held_back.items()):
            if facts.procedures:
                yield facts


def _collect(records: Iterable[_Record], facts: PatientFacts) -> PatientFacts:
    """Adds records to a patient's facts, under the patient's surviving reference."""
    for patient, kind, _, _, fact in records:
        kept = msgspec.structs.replace(fact, patient=facts.patient) if patient != facts.patient else fact
        (facts.procedures, facts.conditions, facts.encounters)[kind].append(kept)  # type: ignore[arg-type]
    return facts


def _read_run(path: Path) -> Iterator[_Record]:
    with path.open("rb") as handle:
        while head := handle.read(_LENGTH_BYTES):
            kind, source, identifier, raw = _RECORD.decode(handle.read(int.from_bytes(head, "big")))
            fact = _DECODERS[kind].decode(raw)
            yield fact.patient, kind, source, identifier, fact
