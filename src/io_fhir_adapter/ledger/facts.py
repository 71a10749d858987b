"""Facts and decisions in the ledger: what is read of them, and decisions replaced (facts are written by intake)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, select, text, union

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import among
from io_fhir_adapter.ledger.schema import decisions, facts, quarantine, stale
from io_fhir_adapter.model import ConditionFact, Decision, EncounterFact, PatientFact, ProcedureFact, Quarantined

__all__ = [
    "FACT_TYPES",
    "REPLACED",
    "SET_ASIDE_BY_DECIDING",
    "Fact",
    "PatientRecord",
    "all_patients",
    "completed_since",
    "decisions_between",
    "decisions_of",
    "decisions_with",
    "decode_fact",
    "ended_procedures",
    "every_procedure",
    "facts_of",
    "find_procedure",
    "ids_set_aside",
    "mapped_encounters",
    "mapped_patients",
    "merged_into",
    "number_of_facts",
    "patient_links",
    "person_of",
    "procedures_of",
    "procedures_set_aside",
    "put_decisions",
    "quarantine_reasons",
    "quarantined",
    "quarantined_by",
    "referenced",
    "sources_on_record",
    "survivor",
    "tally_procedures",
    "unmapped_since",
]

Fact = ProcedureFact | ConditionFact | EncounterFact | PatientFact

FACT_TYPES: Final[dict[str, type[Fact]]] = {
    "Procedure": ProcedureFact,
    "Condition": ConditionFact,
    "Encounter": EncounterFact,
    "Patient": PatientFact,
}
REPLACED: Final = "replaced"
"""The status of a Patient that was merged into another."""
SET_ASIDE_BY_DECIDING: Final = ("IOA-RES-014", "IOA-RES-015")
"""Codes of quarantine that reading cannot know: deciding sets such Procedures aside, and they stay among the facts."""
_DECODERS: Final = {name: msgspec.msgpack.Decoder(kind) for name, kind in FACT_TYPES.items()}
_DECISION: Final = msgspec.json.Decoder(Decision)
_STEP = 2_000
_COMPLETED: Final = (facts.c.resource_type == "Procedure") & (facts.c.status == "completed")
_IS_MAPPED: Final = text("facts.mapped AND facts.resource_type || '' = 'Procedure'")
"""Few Procedures are mapped, and an index holds just those: SQLite takes it where the condition is written as the
index's own, and where the type leads it to no other."""


@dataclass(frozen=True, slots=True)
class PatientRecord:
    """All facts of one patient; ``people`` are the Patient resources themselves, one per source and merged record."""

    procedures: list[ProcedureFact]
    conditions: list[ConditionFact]
    encounters: list[EncounterFact]
    people: list[PatientFact]


def facts_of(connection: Connection, patient: str, *, mapped_only: bool = False) -> PatientRecord:
    """All facts of one patient's record, from every source; ``mapped_only`` leaves out Procedures without a row."""
    record = PatientRecord([], [], [], [])
    columns = facts.c
    query = (
        select(columns.resource_type, columns.data)
        .where(columns.patient == patient, columns.resource_type.in_(list(FACT_TYPES)))
        .order_by(columns.resource_type, columns.source, columns.id)
    )
    if mapped_only:
        query = query.where(columns.mapped | (columns.resource_type != "Procedure"))
    for row in connection.execute(query):
        fact = decode_fact(row.resource_type, row.data)
        if isinstance(fact, ProcedureFact):
            record.procedures.append(fact)
        elif isinstance(fact, ConditionFact):
            record.conditions.append(fact)
        elif isinstance(fact, EncounterFact):
            record.encounters.append(fact)
        else:
            record.people.append(fact)
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
    members: Mapping[str, list[str]] | None = getattr(links, "members", None)
    if members is not None:
        return members.get(patient, [])
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
        record.people.extend(former.people)
    return record


def decode_fact(name: str, data: bytes) -> Fact:
    """A stored fact of that resource type.

    Raises:
        LedgerError: It is damaged.
    """
    try:
        return _DECODERS[name].decode(data)
    except msgspec.DecodeError as exc:
        raise LedgerError(f"a stored {name} cannot be read", do="restore a backup", number=4) from exc


def find_procedure(connection: Connection, procedure_id: str) -> list[ProcedureFact]:
    """The Procedure with that id, one per source that has it."""
    query = select(facts.c.data).where(facts.c.resource_type == "Procedure", facts.c.id == procedure_id)
    found = (decode_fact("Procedure", row.data) for row in connection.execute(query.order_by(facts.c.source)))
    return [fact for fact in found if isinstance(fact, ProcedureFact)]


def number_of_facts(connection: Connection, source: str, resource_type: str) -> int:
    """How many facts of one type the ledger has from a source."""
    columns = facts.c
    query = select(func.count()).where(columns.source == source, columns.resource_type == resource_type)
    return connection.execute(query).scalar_one()


def procedures_of(connection: Connection, source: str, ids: Collection[str]) -> list[ProcedureFact]:
    """The Procedures of a source with these ids, as far as they are on record."""
    query = select(facts.c.data).where(
        facts.c.source == source, facts.c.resource_type == "Procedure", among(connection, facts.c.id, ids)
    )
    found = (decode_fact("Procedure", row.data) for row in connection.execute(query))
    return [fact for fact in found if isinstance(fact, ProcedureFact)]


def all_patients(connection: Connection) -> list[str]:
    """Everyone to decide on: with a Procedure that a row matches, with decisions, or stale; merged records as one."""
    columns = facts.c
    found = union(
        select(columns.patient).where(_IS_MAPPED),
        select(decisions.c.patient),
        select(stale.c.patient),
    )
    links = patient_links(connection)
    return sorted({survivor(patient, links) for patient in connection.execute(found).scalars()})


def mapped_encounters(connection: Connection, source: str) -> set[str]:
    """Encounters that Procedures of a source name which a row of the code tables matches."""
    columns = facts.c
    query = select(columns.data).where(columns.source == source, _IS_MAPPED)
    named = set()
    for data in connection.execute(query.execution_options(yield_per=2_000)).scalars():
        fact = decode_fact("Procedure", data)
        if isinstance(fact, ProcedureFact) and fact.encounter:
            named.add(fact.encounter)
    return named


def mapped_patients(connection: Connection, source: str) -> list[str]:
    """Every patient of a source with a Procedure that a row of the code tables matches, as the source names them."""
    query = select(facts.c.patient).where(facts.c.source == source, _IS_MAPPED).distinct().order_by(facts.c.patient)
    return [patient.removesuffix(f"@{source}") for patient in connection.execute(query).scalars()]


def referenced(connection: Connection, source: str, resource_type: str) -> set[str]:
    """Ids of that type which the ledger has of a source."""
    query = select(facts.c.id).where(facts.c.source == source, facts.c.resource_type == resource_type)
    return set(connection.execute(query).scalars())


def put_decisions(connection: Connection, patient: str, made: Sequence[Decision]) -> bool:
    """Replaces the decisions of one patient, who is no longer stale; says whether anything changed."""
    connection.execute(delete(stale).where(stale.c.patient == patient))
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
    for data in connection.execute(query.execution_options(yield_per=500)).scalars():
        yield _DECISION.decode(data)


def decisions_of(connection: Connection, patient: str) -> list[Decision]:
    """All decisions on a patient, in order of date."""
    query = select(decisions.c.data).where(decisions.c.patient == patient).order_by(decisions.c.number)
    return [_DECISION.decode(data) for data in connection.execute(query).scalars()]


def decisions_with(connection: Connection, patient: str, procedure: str) -> list[Decision]:
    """The decisions of a patient that a Procedure takes part in."""
    return [decision for decision in decisions_of(connection, patient) if procedure in decision.procedures]


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


def ids_set_aside(connection: Connection) -> dict[str, set[str]]:
    """Source to the ids of the Procedures that are in the ledger and that deciding set aside."""
    columns = quarantine.c
    query = select(columns.source, columns.position).where(columns.code.in_(SET_ASIDE_BY_DECIDING))
    found: dict[str, set[str]] = {}
    for source, position in connection.execute(query):
        found.setdefault(source, set()).add(position.removeprefix("Procedure/"))
    return found


def procedures_set_aside(connection: Connection) -> list[ProcedureFact]:
    """The Procedures themselves that deciding set aside."""
    columns = facts.c
    found: list[ProcedureFact] = []
    for source, ids in ids_set_aside(connection).items():
        query = select(columns.data).where(
            columns.source == source, columns.resource_type == "Procedure", among(connection, columns.id, sorted(ids))
        )
        decoded = (decode_fact("Procedure", data) for data in connection.execute(query).scalars())
        found += [fact for fact in decoded if isinstance(fact, ProcedureFact)]
    return found


def ended_procedures(connection: Connection) -> list[ProcedureFact]:
    """Procedures with a row in the code tables that are ``in-progress`` and have an end."""
    columns = facts.c
    query = select(columns.data).where(_IS_MAPPED, columns.status == "in-progress")
    found = (decode_fact("Procedure", data) for data in connection.execute(query).scalars())
    return [fact for fact in found if isinstance(fact, ProcedureFact) and fact.end_day]


def every_procedure(connection: Connection, *, unmapped_only: bool = False) -> Iterator[ProcedureFact]:
    """Every Procedure, or every one that no row of the code tables matches; read in steps of ids."""
    columns = facts.c
    for source in sources_on_record(connection):
        last = ""
        while True:
            query = (
                select(columns.id, columns.data)
                .where(columns.source == source, columns.resource_type == "Procedure", columns.id > last)
                .order_by(columns.id)
                .limit(_STEP)
            )
            rows = connection.execute(query.where(~columns.mapped) if unmapped_only else query).all()
            if not rows:
                break
            for row in rows:
                fact = decode_fact("Procedure", row.data)
                if isinstance(fact, ProcedureFact):
                    yield fact
            last = rows[-1].id


def sources_on_record(connection: Connection) -> Iterator[str]:
    """The names of the sources that there are facts of; each is the first entry of the index behind the one before."""
    columns = facts.c
    name: str | None = ""
    while (
        name := connection.execute(select(func.min(columns.source)).where(columns.source > name)).scalar()
    ) is not None:
        yield name


def unmapped_since(connection: Connection, day: str) -> Iterator[ProcedureFact]:
    """The completed Procedures from a day on that no row of the code tables matches."""
    columns = facts.c
    query = select(columns.data).where(_COMPLETED, columns.day >= day, ~columns.mapped)
    for data in connection.execute(query.execution_options(yield_per=_STEP)).scalars():
        fact = decode_fact("Procedure", data)
        if isinstance(fact, ProcedureFact):
            yield fact


def completed_since(connection: Connection, day: str) -> int:
    """How many completed Procedures there are from a day on."""
    query = select(func.count()).where(_COMPLETED, facts.c.day >= day)
    return int(connection.execute(query).scalar_one())


def patient_links(connection: Connection, source: str = "") -> dict[str, str]:
    """Patient references that were merged into another, with that other.

    Args:
        connection: An open transaction.
        source: Only those of one source, as it names them.
    """
    query = select(facts.c.data, facts.c.patient).where(facts.c.resource_type == "Patient", facts.c.status == REPLACED)
    if source:
        query = query.where(facts.c.source == source)
    links = {}
    for data, patient in connection.execute(query).all():
        fact = decode_fact("Patient", data)
        if isinstance(fact, PatientFact):
            links[patient] = fact.replaced_by
    if source:
        scope = f"@{source}"
        return {patient.removesuffix(scope): other.removesuffix(scope) for patient, other in links.items()}
    return links


def quarantined(connection: Connection) -> list[Quarantined]:
    """All that could not be used, in a stable order."""
    columns = quarantine.c
    query = select(columns.source, columns.position, columns.resource_type, columns.reason, columns.code).order_by(
        columns.source, columns.resource_type, columns.position
    )
    return [Quarantined(*row) for row in connection.execute(query)]


def quarantined_by(connection: Connection, run: int) -> list[tuple[str, str, str, int]]:
    """(resource type, code, reason, number) of what a run set aside and no later one has come to see, most first."""
    columns = quarantine.c
    parts = (columns.resource_type, columns.code, columns.reason)
    query = select(*parts, func.count()).where(columns.run == run).group_by(*parts)
    ordered = query.order_by(func.count().desc(), *parts)
    return [(kind, code, reason, number) for kind, code, reason, number in connection.execute(ordered)]


def quarantine_reasons(connection: Connection) -> Counter[tuple[str, str]]:
    """(resource type, reason) to number."""
    columns = quarantine.c
    query = select(columns.resource_type, columns.reason, func.count()).group_by(columns.resource_type, columns.reason)
    return Counter({(kind, reason): number for kind, reason, number in connection.execute(query)})
