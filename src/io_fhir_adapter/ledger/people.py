"""Who the ledger's cases are about: sex and birth date of many people at once, and the ids that their records have."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select

from io_fhir_adapter.ledger.database import among
from io_fhir_adapter.ledger.facts import decode_fact, survivor
from io_fhir_adapter.ledger.schema import facts
from io_fhir_adapter.model import PatientFact, ProcedureFact

__all__ = ["ids_of_people", "patient_facts", "record_digest"]


def patient_facts(
    connection: Connection, patients: Collection[str], links: Mapping[str, str]
) -> dict[str, list[PatientFact]]:
    """What the ledger has of these people's Patient resources, own record first, then those merged into it.

    Args:
        connection: An open transaction.
        patients: References of surviving records.
        links: Merged records, as :func:`~io_fhir_adapter.ledger.identities.person_links` gives them.
    """
    owners = _owners(patients, links)
    found: dict[str, list[PatientFact]] = {}
    for reference, data in _rows(connection, "Patient", owners):
        fact = decode_fact("Patient", data)
        if isinstance(fact, PatientFact):
            found.setdefault(owners[reference], []).append(fact)
    for owner, people in found.items():
        people.sort(key=lambda fact: (f"Patient/{fact.id}" != owner.partition("@")[0], fact.source, fact.id))
    return found


def record_digest(connection: Connection, patients: Collection[str], links: Mapping[str, str]) -> str:
    """A digest of all that the ledger has of these people; another one whenever a fact of theirs came, went or changed.

    Args:
        connection: An open transaction.
        patients: References of surviving records.
        links: Merged records, as for :func:`patient_facts`.
    """
    columns = facts.c
    query = (
        select(columns.source, columns.resource_type, columns.id, columns.digest)
        .where(among(connection, columns.patient, sorted(_owners(patients, links))))
        .order_by(columns.source, columns.resource_type, columns.id)
    )
    made = hashlib.sha256()
    for row in connection.execute(query):
        made.update("\x1f".join(row).encode() + b"\x1e")
    return made.hexdigest()


def _owners(patients: Collection[str], links: Mapping[str, str]) -> dict[str, str]:
    """These records and those merged into them, each with the surviving one."""
    owners = {patient: patient for patient in patients}
    return owners | {other: owner for other in links if (owner := survivor(other, links)) in owners}


def ids_of_people(connection: Connection, patients: Collection[str]) -> set[str]:
    """``Type/id`` of everything that the ledger has of these records, and of who operated on them."""
    found = {patient.partition("@")[0] for patient in patients}
    for kind in ("Procedure", "Condition", "Encounter"):
        for _, data in _rows(connection, kind, patients):
            fact = decode_fact(kind, data)
            found.add(f"{kind}/{fact.id}")
            if isinstance(fact, ProcedureFact) and fact.operator:
                found.add(fact.operator)
    return found


def _rows(connection: Connection, kind: str, patients: Collection[str]) -> list[tuple[str, bytes]]:
    columns = facts.c
    query = select(columns.patient, columns.data).where(
        columns.resource_type == kind, among(connection, columns.patient, sorted(patients))
    )
    return [(row.patient, row.data) for row in connection.execute(query)]
