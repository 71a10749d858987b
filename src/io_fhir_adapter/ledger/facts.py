"""Facts and decisions in the ledger: upsert by source and resource id, so that corrections replace."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, select, tuple_

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import upsert
from io_fhir_adapter.ledger.schema import decisions, facts, quarantine
from io_fhir_adapter.model import ConditionFact, Decision, EncounterFact, PatientFact, ProcedureFact, Quarantined

__all__ = [
    "Fact",
    "PatientRecord",
    "Stored",
    "StoredFact",
    "all_patients",
    "decisions_between",
    "decisions_with",
    "drop_quarantined",
    "every_procedure",
    "facts_of",
    "find_procedure",
    "mapped_patients",
    "merged_into",
    "patient_links",
    "person_of",
    "put_decisions",
    "put_facts",
    "put_quarantined",
    "quarantine_reasons",
    "quarantined",
    "referenced",
    "survivor",
    "tally_procedures",
]

Fact = ProcedureFact | ConditionFact | EncounterFact | PatientFact

_TYPES: Final[dict[str, type[Fact]]] = {
    "Procedure": ProcedureFact,
    "Condition": ConditionFact,
    "Encounter": EncounterFact,
    "Patient": PatientFact,
}
_NAMES: Final = {kind: name for name, kind in _TYPES.items()}
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODERS: Final = {name: msgspec.msgpack.Decoder(kind) for name, kind in _TYPES.items()}
_DECISION: Final = msgspec.json.Decoder(Decision)
_STEP = 2_000
_REPLACED = "replaced"
_MANY = 400  # values in one IN list; SQLite takes 999


@dataclass(frozen=True, slots=True)
class StoredFact:
    """A fact on its way into the ledger, with what the tables said of a Procedure's codes."""

    fact: Fact
    mapped: bool = False
    known_system: bool = False


@dataclass(slots=True)
class Stored:
    """What became of facts handed to the ledger."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    patients: set[str] = field(default_factory=set)

    def add(self, other: Stored) -> None:
        """Adds up."""
        self.new += other.new
        self.changed += other.changed
        self.unchanged += other.unchanged
        self.patients |= other.patients


def _patient_of(fact: Fact) -> str:
    return f"Patient/{fact.id}" if isinstance(fact, PatientFact) else fact.patient


def _status_of(fact: Fact) -> str:
    if isinstance(fact, PatientFact):
        return _REPLACED if fact.replaced_by else ""
    return getattr(fact, "status", "")


def put_facts(connection: Connection, items: Sequence[StoredFact], run: int) -> Stored:
    """Writes facts of ONE type; those that did not change are left alone.

    ``Stored.patients`` are the patients whose decisions may change, the former patient of a moved record included.
    """
    if not items:
        return Stored()
    name = _NAMES[type(items[0].fact)]
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for item in items:
        fact = item.fact
        # meta.lastUpdated alone is no change
        data = _ENCODE(fact)
        digest = hashlib.sha256(_ENCODE(msgspec.structs.replace(fact, updated=""))).hexdigest()
        rows[fact.source, fact.id] = {
            "source": fact.source,
            "resource_type": name,
            "id": fact.id,
            "patient": _patient_of(fact),
            "status": _status_of(fact),
            "day": getattr(fact, "day", ""),
            "mapped": item.mapped,
            "known_system": item.known_system,
            "digest": digest,
            "data": data,
            "run": run,
        }
    before = _known(connection, name, rows)
    outcome = Stored()
    write = []
    for key, row in rows.items():
        known = before.get(key)
        if known is None:
            outcome.new += 1
        elif known[0] == row["digest"] and known[2] == row["mapped"] and known[3] == row["known_system"]:
            outcome.unchanged += 1
            continue
        else:
            outcome.changed += 1
            outcome.patients.add(known[1])
        outcome.patients.add(str(row["patient"]))
        write.append(row)
    upsert(connection, facts, write, ("source", "resource_type", "id"))
    return outcome


def _known(
    connection: Connection, name: str, rows: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, str, bool, bool]]:
    by_source: dict[str, list[str]] = {}
    for source, resource_id in rows:
        by_source.setdefault(source, []).append(resource_id)
    found: dict[tuple[str, str], tuple[str, str, bool, bool]] = {}
    for source, ids in by_source.items():
        for start in range(0, len(ids), _MANY):
            query = select(facts.c.id, facts.c.digest, facts.c.patient, facts.c.mapped, facts.c.known_system).where(
                facts.c.source == source, facts.c.resource_type == name, facts.c.id.in_(ids[start : start + _MANY])
            )
            for row in connection.execute(query):
                found[source, row.id] = (row.digest, row.patient, row.mapped, row.known_system)
    return found


@dataclass(frozen=True, slots=True)
class PatientRecord:
    """All facts of one patient."""

    procedures: list[ProcedureFact]
    conditions: list[ConditionFact]
    encounters: list[EncounterFact]


def facts_of(connection: Connection, patient: str, *, mapped_only: bool = False) -> PatientRecord:
    """All facts of one patient's record, from every source; ``mapped_only`` leaves out Procedures without a row."""
    record = PatientRecord([], [], [])
    columns = facts.c
    query = (
        select(columns.resource_type, columns.data)
        .where(columns.patient == patient, columns.resource_type.in_(["Procedure", "Condition", "Encounter"]))
        .order_by(columns.resource_type, columns.source, columns.id)
    )
    if mapped_only:
        query = query.where(columns.mapped | (columns.resource_type != "Procedure"))
    for row in connection.execute(query):
        fact = _decode(row.resource_type, row.data)
        if isinstance(fact, ProcedureFact):
            record.procedures.append(fact)
        elif isinstance(fact, ConditionFact):
            record.conditions.append(fact)
        elif isinstance(fact, EncounterFact):
            record.encounters.append(fact)
    return record


def survivor(patient: str, links: Mapping[str, str]) -> str:
    """The record that a patient's record was merged into, itself where it was not."""
    seen = {patient}
    while (following := links.get(patient, patient)) not in seen:
        seen.add(following)
        patient = following
    return patient


def merged_into(patient: str, links: Mapping[str, str]) -> list[str]:
    """The records that were merged into a patient's."""
    return [other for other in sorted(links) if other != patient and survivor(other, links) == patient]


def person_of(
    connection: Connection, patient: str, links: Mapping[str, str], *, mapped_only: bool = False
) -> PatientRecord:
    """All facts of one person: the surviving record and those merged into it, under its reference."""
    record = facts_of(connection, patient, mapped_only=mapped_only)
    for other in merged_into(patient, links):
        former = facts_of(connection, other, mapped_only=mapped_only)
        record.procedures.extend(msgspec.structs.replace(fact, patient=patient) for fact in former.procedures)
        record.conditions.extend(msgspec.structs.replace(fact, patient=patient) for fact in former.conditions)
        record.encounters.extend(msgspec.structs.replace(fact, patient=patient) for fact in former.encounters)
    return record


def _decode(name: str, data: bytes) -> Fact:
    try:
        return _DECODERS[name].decode(data)
    except msgspec.DecodeError as exc:
        raise LedgerError(f"a stored {name} cannot be read", do="restore a backup", number=4) from exc


def find_procedure(connection: Connection, procedure_id: str) -> list[ProcedureFact]:
    """The Procedure with that id, one per source that has it."""
    query = select(facts.c.data).where(facts.c.resource_type == "Procedure", facts.c.id == procedure_id)
    found = (_decode("Procedure", row.data) for row in connection.execute(query.order_by(facts.c.source)))
    return [fact for fact in found if isinstance(fact, ProcedureFact)]


def all_patients(connection: Connection) -> list[str]:
    """Every patient with a Procedure."""
    query = select(facts.c.patient).where(facts.c.resource_type == "Procedure").distinct().order_by(facts.c.patient)
    return list(connection.execute(query).scalars())


def mapped_patients(connection: Connection, source: str) -> list[str]:
    """Every patient of a source with a Procedure that a row of the code tables matches."""
    query = (
        select(facts.c.patient)
        .where(facts.c.resource_type == "Procedure", facts.c.source == source, facts.c.mapped)
        .distinct()
        .order_by(facts.c.patient)
    )
    return list(connection.execute(query).scalars())


def referenced(connection: Connection, source: str, resource_type: str) -> set[str]:
    """Ids of that type which the ledger has of a source."""
    query = select(facts.c.id).where(facts.c.source == source, facts.c.resource_type == resource_type)
    return set(connection.execute(query).scalars())


def put_decisions(connection: Connection, patient: str, made: Sequence[Decision]) -> bool:
    """Replaces the decisions of one patient; says whether anything changed."""
    columns = decisions.c
    before = list(
        connection.execute(select(columns.data).where(columns.patient == patient).order_by(columns.number)).scalars()
    )
    after = [msgspec.json.encode(decision) for decision in made]
    if before == after:
        return False
    connection.execute(delete(decisions).where(columns.patient == patient))
    rows = [
        {
            "patient": patient,
            "number": number,
            "date": decision.date,
            "category": decision.category,
            "decision": decision.decision,
            "reason": decision.reason,
            "data": data,
        }
        for number, (decision, data) in enumerate(zip(made, after, strict=True))
    ]
    if rows:
        connection.execute(decisions.insert(), rows)
    return True


def decisions_between(connection: Connection, start: str, end: str) -> Iterator[Decision]:
    """Decisions whose date lies, or may lie, between two local dates, by patient and date."""
    columns = decisions.c
    query = (
        select(columns.data)
        .where((columns.date >= start[:4]) & (columns.date <= end) | (columns.date == ""))
        .order_by(columns.patient, columns.number)
    )
    for data in connection.execution_options(yield_per=500).execute(query).scalars():
        yield _DECISION.decode(data)


def decisions_with(connection: Connection, patient: str, procedure: str) -> list[Decision]:
    """The decisions of a patient that a Procedure takes part in."""
    query = select(decisions.c.data).where(decisions.c.patient == patient).order_by(decisions.c.number)
    made = (_DECISION.decode(data) for data in connection.execute(query).scalars())
    return [decision for decision in made if procedure in decision.procedures]


def tally_procedures(connection: Connection) -> Iterator[tuple[str, str, bool, bool, int]]:
    """(day, status, mapped, known system, number) over all Procedures."""
    columns = facts.c
    query = (
        select(columns.day, columns.status, columns.mapped, columns.known_system, func.count())
        .where(columns.resource_type == "Procedure")
        .group_by(columns.day, columns.status, columns.mapped, columns.known_system)
    )
    for day, status, mapped, known, number in connection.execute(query):
        yield day, status, bool(mapped), bool(known), number


def every_procedure(connection: Connection, *, unmapped_only: bool = False) -> Iterator[ProcedureFact]:
    """Every Procedure, or every one that no row of the code tables matches; read in steps of ids."""
    last = ("", "")
    while True:
        columns = facts.c
        query = (
            select(columns.source, columns.id, columns.data)
            .where(columns.resource_type == "Procedure", tuple_(columns.source, columns.id) > last)
            .order_by(columns.source, columns.id)
            .limit(_STEP)
        )
        if unmapped_only:
            query = query.where(~columns.mapped)
        rows = connection.execute(query).all()
        if not rows:
            return
        for row in rows:
            fact = _decode("Procedure", row.data)
            if isinstance(fact, ProcedureFact):
                yield fact
        last = (rows[-1].source, rows[-1].id)


def patient_links(connection: Connection) -> dict[str, str]:
    """Patient references that were merged into another, with that other."""
    query = select(facts.c.data).where(facts.c.resource_type == "Patient", facts.c.status == _REPLACED)
    found = (_decode("Patient", data) for data in connection.execute(query).scalars())
    return {f"Patient/{fact.id}": fact.replaced_by for fact in found if isinstance(fact, PatientFact)}


def put_quarantined(connection: Connection, items: Sequence[Quarantined], run: int) -> None:
    """Keeps what could not be used, each position once."""
    rows = {
        (item.source, item.resource_type, item.position): {
            "source": item.source,
            "resource_type": item.resource_type,
            "position": item.position,
            "reason": item.reason,
            "code": item.code,
            "run": run,
        }
        for item in items
    }
    upsert(connection, quarantine, list(rows.values()), ("source", "resource_type", "position"))


def drop_quarantined(connection: Connection, source: str, resource_type: str, positions: Sequence[str]) -> None:
    """Forgets positions that turned out good."""
    columns = quarantine.c
    for start in range(0, len(positions), _MANY):
        connection.execute(
            delete(quarantine).where(
                columns.source == source,
                columns.resource_type == resource_type,
                columns.position.in_(positions[start : start + _MANY]),
            )
        )


def quarantined(connection: Connection) -> list[Quarantined]:
    """All that could not be used, in a stable order."""
    columns = quarantine.c
    query = select(columns.source, columns.position, columns.resource_type, columns.reason, columns.code).order_by(
        columns.source, columns.resource_type, columns.position
    )
    return [Quarantined(*row) for row in connection.execute(query)]


def quarantine_reasons(connection: Connection) -> Counter[tuple[str, str]]:
    """(resource type, reason) to number."""
    columns = quarantine.c
    query = select(columns.resource_type, columns.reason, func.count()).group_by(columns.resource_type, columns.reason)
    return Counter({(kind, reason): number for kind, reason, number in connection.execute(query)})
