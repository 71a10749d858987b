"""Deciding in the ledger: every patient whose facts changed, or everyone after a change of the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.recode import recode
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import (
    all_patients,
    merged_into,
    patient_links,
    person_of,
    put_decisions,
    survivor,
)
from io_fhir_adapter.ledger.runs import read_state, write_state

__all__ = ["Redecided", "redecide"]

_RULESET = "ruleset"
_PER_TRANSACTION = 200


@dataclass(frozen=True, slots=True)
class Redecided:
    """How many patients were decided on, and for how many something changed."""

    patients: int
    changed: int


def redecide(
    ledger: Ledger, ruleset: Ruleset, touched: Iterable[str], run: int, progress: Callable[[int, int], None]
) -> Redecided:
    """Brings the decisions up to date.

    Args:
        ledger: Holds facts and decisions.
        ruleset: What decides.
        touched: Patients whose facts changed.
        run: Number of the run.
        progress: Told how many of how many patients are done.
    """
    with ledger.begin() as connection:
        same_rules = read_state(connection, _RULESET) == ruleset.digest
    recode(ledger, ruleset, run)
    with ledger.begin() as connection:
        links = patient_links(connection)
        asked = touched if same_rules else all_patients(connection)
        patients = sorted({survivor(patient, links) for patient in asked})
    changed = 0
    for start in range(0, len(patients), _PER_TRANSACTION):
        batch = patients[start : start + _PER_TRANSACTION]
        with ledger.begin() as connection:
            changed += sum(_decide(connection, patient, links, ruleset) for patient in batch)
        progress(min(start + _PER_TRANSACTION, len(patients)), len(patients))
    with ledger.begin() as connection:
        write_state(connection, _RULESET, ruleset.digest)
    return Redecided(len(patients), changed)


def _decide(connection: Connection, patient: str, links: dict[str, str], ruleset: Ruleset) -> bool:
    """Decides on a person; what no row matches stays a tally over facts, and has no decision."""
    record = person_of(connection, patient, links, mapped_only=True)
    for other in merged_into(patient, links):
        put_decisions(connection, other, [])
    made = decide_patient(record.procedures, record.conditions, record.encounters, ruleset)
    return put_decisions(connection, patient, made)
