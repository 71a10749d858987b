"""Deciding in the ledger: every patient whose facts changed, or everyone after a change of the rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.lifespan import set_aside
from io_fhir_adapter.classify.recode import recode
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import (
    all_patients,
    ended_procedures,
    ids_set_aside,
    merged_into,
    person_of,
    put_decisions,
    survivor,
)
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.ledger.intake import put_quarantined, release, release_unmatched
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.model import ProcedureFact

__all__ = ["Redecided", "decided_with", "redecide"]

_RULESET = "ruleset"
_PERSONS = "persons"  # which records stood for which when the decisions were made
_PER_TRANSACTION = 200


@dataclass(frozen=True, slots=True)
class Redecided:
    """How many patients were decided on, and for how many something changed."""

    patients: int
    changed: int


def decided_with(connection: Connection) -> str:
    """Digest of the rules that the decisions in the ledger were made with; empty where there are none."""
    return read_state(connection, _RULESET)


def redecide(
    ledger: Ledger,
    ruleset: Ruleset,
    touched: Iterable[str],
    run: int,
    progress: Callable[[int, int], None],
    *,
    today: str = "",
) -> Redecided:
    """Brings the decisions up to date.

    What cannot have been done on its date, before the patient's birth or after the death, goes to quarantine and comes
    back when a date is corrected.

    Args:
        ledger: Holds facts and decisions.
        ruleset: What decides.
        touched: Patients whose facts changed.
        run: Number of the run.
        progress: Told how many of how many patients are done.
        today: Local date; where empty, that of the clock in UTC.
    """
    with ledger.begin() as connection:
        same_rules = read_state(connection, _RULESET) == ruleset.digest
    recode(ledger, ruleset, run)
    with ledger.begin() as connection:
        links = person_links(connection)
        asked = set(touched) if same_rules else set(all_patients(connection))
        asked |= _regrouped(json.loads(read_state(connection, _PERSONS) or "{}"), links)
        if ruleset.programme.takes_ended_for_completed:  # an end passes without any record being changed
            asked |= {fact.patient for fact in ended_procedures(connection)}
        patients = sorted({survivor(patient, links) for patient in asked})
        aside = {(source, name) for source, names in ids_set_aside(connection).items() for name in names}
    night = _Night(ruleset, run, links, aside, today)
    changed = 0
    for start in range(0, len(patients), _PER_TRANSACTION):
        batch = patients[start : start + _PER_TRANSACTION]
        with ledger.begin() as connection:
            changed += sum(night.decide(connection, patient) for patient in batch)
        progress(min(start + _PER_TRANSACTION, len(patients)), len(patients))
    with ledger.begin() as connection:
        release_unmatched(connection)
        write_state(connection, _RULESET, ruleset.digest)
        write_state(connection, _PERSONS, json.dumps(links))
    return Redecided(len(patients), changed)


def _regrouped(before: Mapping[str, str], links: Mapping[str, str]) -> set[str]:
    """Records that stand for another person than before, and those that stood for them: a third record may do that.

    Which records are one person hangs on all that carry an identifier. One that comes, goes or is corrected may part or
    join others that nobody touched.
    """
    moved = {record for record in before.keys() | links.keys() if before.get(record) != links.get(record)}
    return moved | {before[record] for record in moved if record in before}


@dataclass(frozen=True, slots=True)
class _Night:
    """What one bringing up to date rests on; ``aside`` are the Procedures set aside before it, as (source, id)."""

    ruleset: Ruleset
    run: int
    links: dict[str, str]
    aside: set[tuple[str, str]]
    today: str

    def decide(self, connection: Connection, patient: str) -> bool:
        """Decides on a person; what no row matches stays a tally over facts, and has no decision."""
        record = person_of(connection, patient, self.links, mapped_only=True)
        for other in merged_into(patient, self.links):
            put_decisions(connection, other, [])
        good, wrong = set_aside(patient, record.procedures, record.people, self.ruleset)
        self._release(connection, good)
        put_quarantined(connection, wrong, self.run)
        made = decide_patient(good, record.conditions, record.encounters, self.ruleset, today=self.today)
        return put_decisions(connection, patient, made)

    def _release(self, connection: Connection, good: Iterable[ProcedureFact]) -> None:
        by_source: dict[str, set[str]] = {}
        for fact in good:
            if (fact.source, fact.id) in self.aside:
                by_source.setdefault(fact.source, set()).add(f"Procedure/{fact.id}")
        for source, positions in by_source.items():
            release(connection, source, positions)
