"""Facts on their way into the ledger: upsert by source and resource id, so that corrections replace.

What changes here makes the decisions on its patient stale, in the same transaction, so that a run cut off between
reading and deciding loses nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, select

from io_fhir_adapter.ledger.database import among, make_key, upsert
from io_fhir_adapter.ledger.facts import FACT_TYPES, REPLACED, SET_ASIDE_BY_DECIDING, Fact, decode_fact, ids_set_aside
from io_fhir_adapter.ledger.identities import holders_of
from io_fhir_adapter.ledger.schema import facts, quarantine, stale
from io_fhir_adapter.model import PatientFact, Quarantined

__all__ = [
    "Stored",
    "StoredFact",
    "drop_facts",
    "drop_quarantined",
    "forget_quarantined",
    "known_ids",
    "mark_stale",
    "put_facts",
    "put_quarantined",
    "release",
    "release_unmatched",
    "stale_patients",
]

_NAMES: Final = {kind: name for name, kind in FACT_TYPES.items()}
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_KEY: Final = ("source", "resource_type", "id")
_STEP: Final = 5_000


class StoredFact(msgspec.Struct, frozen=True, gc=False):
    """A fact on its way into the ledger, with what the tables said of a Procedure's codes."""

    fact: Fact
    mapped: bool = False
    known_system: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of facts handed to the ledger."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0


class _Known(NamedTuple):
    """What the ledger has of a fact."""

    source: str
    id: str
    patient: str
    status: str
    data: bytes
    digest: str
    mapped: bool
    known_system: bool


def _patient_of(fact: Fact) -> str:
    if isinstance(fact, PatientFact):
        return f"Patient/{fact.id}@{fact.scope}" if fact.scope else f"Patient/{fact.id}"
    return fact.patient


def _status_of(fact: Fact) -> str:
    if isinstance(fact, PatientFact):
        return REPLACED if fact.replaced_by else ""
    return getattr(fact, "status", "")


def put_facts(connection: Connection, items: Sequence[StoredFact], run: int, *, newest_wins: bool = False) -> Stored:
    """Writes facts of ONE type; those that did not change are left alone.

    Patients whose decisions rest on what changed become stale, the former patient of a moved record included.

    Args:
        connection: An open transaction.
        items: The facts; of several with one id the last is taken.
        run: Number of the run.
        newest_wins: Whether a fact gives way to one whose ``updated`` is later. A server says what is true now; files
            may hold older versions beside newer ones.
    """
    if not items:
        return Stored()
    make_key(connection)
    name = _NAMES[type(items[0].fact)]
    given: dict[tuple[str, str], StoredFact] = {}
    for item in items:
        key = item.fact.source, item.fact.id
        former = given.get(key) if newest_wins else None
        if former is None or not _is_later(former.fact, item.fact):
            given[key] = item
    known = {row[:2]: row for row in _known(connection, name, given)}
    rows: list[dict[str, object]] = []
    concerned: set[str] = set()
    lost: set[str] = set()  # identifiers that a person no longer has: whoever shares them was the same person
    new = changed = 0
    for key, item in given.items():
        row = _row(item, name, run)
        before = known.get(key)
        if before is not None:
            same = before[-3:] == (row["digest"], item.mapped, item.known_system)
            if same and (not newest_wins or before.data == row["data"]):
                continue
            if newest_wins and not _is_later(item.fact, decode_fact(name, before.data), or_unknown=not same):
                continue
            rows.append(row)
            if same:
                continue  # only its time is new
            changed += 1
            concerned |= _concerned(name, before)
            if isinstance(item.fact, PatientFact):
                person = decode_fact(name, before.data)
                lost |= set(person.tokens if isinstance(person, PatientFact) else ()) - set(item.fact.tokens)
        else:
            new += 1
            rows.append(row)
        if name != "Procedure" or item.mapped:
            concerned.add(_patient_of(item.fact))
        if isinstance(item.fact, PatientFact) and item.fact.replaced_by:
            concerned.add(item.fact.replaced_by)
    concerned |= holders_of(connection, lost)
    upsert(connection, facts, rows, _KEY)
    mark_stale(connection, concerned)
    return Stored(new, changed, len(given) - new - changed)


def _row(item: StoredFact, name: str, run: int) -> dict[str, object]:
    fact = item.fact
    data = _ENCODE(fact)
    said = data[: -len(_ENCODE(fact.updated))]  # a later ``updated`` alone, the last field, is no change
    return {
        "source": fact.source,
        "resource_type": name,
        "id": fact.id,
        "patient": _patient_of(fact),
        "status": _status_of(fact),
        "day": getattr(fact, "day", ""),
        "mapped": item.mapped,
        "known_system": item.known_system,
        "digest": hashlib.sha256(said).hexdigest(),
        "data": data,
        "run": run,
    }


def _known(connection: Connection, name: str, keys: Iterable[tuple[str, str]]) -> Iterator[_Known]:
    by_source: dict[str, list[str]] = {}
    for source, resource_id in keys:
        by_source.setdefault(source, []).append(resource_id)
    columns = facts.c
    shown = [columns[field] for field in _Known._fields]
    for source, ids in by_source.items():
        query = select(*shown).where(
            columns.source == source, columns.resource_type == name, among(connection, columns.id, ids)
        )
        for row in connection.execute(query).all():
            yield _Known(*row)


def _is_later(first: Fact, second: Fact, *, or_unknown: bool = False) -> bool:
    """Whether ``first`` is the later version; ``or_unknown`` where one does not say when, or both say the same."""
    try:
        moments = datetime.fromisoformat(first.updated), datetime.fromisoformat(second.updated)
        return moments[0] >= moments[1] if or_unknown else moments[0] > moments[1]
    except (ValueError, TypeError):
        return or_unknown


def _concerned(name: str, row: _Known) -> set[str]:
    """The patients whose decisions rest on a fact that the ledger has."""
    if name == "Procedure" and not row.mapped:
        return set()
    if name == "Patient" and row.status == REPLACED:
        merged = decode_fact(name, row.data)
        return {row.patient, merged.replaced_by} if isinstance(merged, PatientFact) else {row.patient}
    return {row.patient}


def drop_facts(connection: Connection, source: str, resource_type: str, ids: Iterable[str]) -> int:
    """Forgets facts, so that nothing rests on them any longer; says how many there were."""
    make_key(connection)
    columns = facts.c
    gone = list(_known(connection, resource_type, ((source, resource_id) for resource_id in ids)))
    mark_stale(connection, {patient for row in gone for patient in _concerned(resource_type, row)})
    columns = facts.c
    named = among(connection, columns.id, [row.id for row in gone])
    if gone:
        connection.execute(delete(facts).where(columns.source == source, columns.resource_type == resource_type, named))
    return len(gone)


def known_ids(
    connection: Connection, source: str, resource_type: str, before: int, since: str = "", *, mapped_only: bool = False
) -> Iterator[tuple[str, str]]:
    """(id, patient) of the facts of a source and type that were written before a run and not in it; not held together.

    Args:
        connection: An open transaction.
        source: Name of the source.
        resource_type: Their type.
        before: Number of the run.
        since: A day: only those dated after it.
        mapped_only: Only Procedures for which a row of the tables matches.
    """
    columns = facts.c
    query = select(columns.id, columns.patient).where(
        columns.source == source, columns.resource_type == resource_type, columns.run < before
    )
    if since:
        query = query.where(columns.day > since)  # a partial day sorts before the whole ones within it
    if mapped_only:
        query = query.where(columns.mapped)
    for row in connection.execute(query, execution_options={"yield_per": _STEP}):
        yield row.id, row.patient


def mark_stale(connection: Connection, patients: Iterable[str]) -> None:
    """Writes down that these patients have to be decided on anew."""
    upsert(connection, stale, [{"patient": patient} for patient in patients], ("patient",))


def stale_patients(connection: Connection) -> set[str]:
    """Patients whose facts changed since the decisions on them were made, in this run or in one that was cut off."""
    return set(connection.execute(select(stale.c.patient)).scalars())


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


def drop_quarantined(connection: Connection, source: str, resource_type: str, positions: Iterable[str]) -> None:
    """Forgets positions that turned out good; what deciding set aside is for deciding to release."""
    columns = quarantine.c
    own = (
        (columns.source == source)
        & (columns.resource_type == resource_type)
        & columns.code.not_in(SET_ASIDE_BY_DECIDING)
    )
    if connection.execute(select(columns.position).where(own).limit(1)).first() is None:
        return  # as a rule nothing is set aside, and looking for thousands of positions takes its time
    connection.execute(delete(quarantine).where(own, among(connection, columns.position, list(positions))))


def forget_quarantined(connection: Connection, source: str, run: int) -> None:
    """Forgets what a complete reading of a whole source, in that run, no longer found; not what deciding set aside."""
    columns = quarantine.c
    own = columns.code.not_in(SET_ASIDE_BY_DECIDING)
    connection.execute(delete(quarantine).where(columns.source == source, columns.run < run, own))


def release(connection: Connection, source: str, positions: Iterable[str]) -> None:
    """Forgets Procedures that deciding had set aside and now can use."""
    columns = quarantine.c
    connection.execute(
        delete(quarantine).where(
            columns.source == source,
            columns.resource_type == "Procedure",
            columns.code.in_(SET_ASIDE_BY_DECIDING),
            among(connection, columns.position, sorted(positions)),
        )
    )


def release_unmatched(connection: Connection) -> None:
    """Forgets what deciding had set aside of Procedures that are gone, or that no row of the tables matches now."""
    columns = facts.c
    for source, ids in ids_set_aside(connection).items():
        query = select(columns.id).where(
            columns.source == source,
            columns.resource_type == "Procedure",
            columns.mapped,
            among(connection, columns.id, sorted(ids)),
        )
        gone = ids - set(connection.execute(query).scalars())
        release(connection, source, {f"Procedure/{name}" for name in gone})
