"""Writes planned sessions down as Procedures and Encounters, and notes what is true of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from io_fhir_adapter.sandbox.documentation import document_procedure
from io_fhir_adapter.sandbox.plans import codings
from io_fhir_adapter.sandbox.recipes import PROFILES
from io_fhir_adapter.sandbox.records import CODING_SYSTEM, RIS_SYSTEM, Person, ProcedurePlan, Register
from io_fhir_adapter.sandbox.schedule import PlannedSession
from io_fhir_adapter.sandbox.truth import SessionTruth

__all__ = ["stated_reason", "write_session"]

_IMAGING = ("ops", "3-225")


def stated_reason(register: Register, session: PlannedSession) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The reasonCode values (ICD-10-GM) and reasonReference values of a session's Procedures."""
    disease = session.disease or _treated(session.person)
    if session.route == "reason-code":
        return (disease,), ()
    if session.route == "reason-reference":
        known = session.person.conditions.get(disease)
        if known is None:
            onset = session.day - timedelta(days=register.rng.randint(3, 60))
            known = register.add_condition(session.person, disease, onset)
        return (), (known,)
    return (), ()


def write_session(register: Register, session: PlannedSession) -> SessionTruth:
    """Adds the Procedures of a session, and mostly an Encounter, and gives its truth."""
    rng, person, traits = register.rng, session.person, session.traits
    encounter = _encounter(register, session)
    reason_codes, reason_references = stated_reason(register, session)
    parts = list(codings(session.variant))
    first: ProcedurePlan | None = None
    written: list[str] = []
    everywhere = rng.random() < 0.6
    linked = rng.random() < 0.4
    for index, codes in enumerate(parts):
        late = "a-day-apart" in traits
        plan = ProcedurePlan(
            codes=codes,
            day=session.day + timedelta(days=1) if late else session.day,
            form=session.form,
            minute=session.minute + 4 * index,
            duration=45,
            status=session.recipe.status,
            origin=RIS_SYSTEM if codes[0][0] in {"ris", "sct"} else CODING_SYSTEM,
            encounter=encounter,
            part_of=written[0] if written and linked else "",
            reason_codes=reason_codes if everywhere or not index else (),
            reason_references=reason_references if everywhere or not index else (),
            versioned="versioned-reference" in traits,
        )
        first = first or plan
        written.append(register.add_procedure(_subject(session, index), plan))
        if not index and session.recipe.status == "completed":
            document_procedure(register.by_reference[written[0]])
    if first is not None and "two-systems" in traits:
        written.append(_write_twin(register, session, first))
    if first is not None and "replaced-error" in traits:
        register.add_procedure(person.id, replace(first, status="entered-in-error"))
    if first is not None and "ordinary-work-same-day" in traits:
        imaging = replace(first, codes=(_IMAGING,), part_of="")
        written.append(register.add_procedure(person.id, imaging))
    return SessionTruth(
        patient=person.reference,
        date="" if "undated" in traits else session.day.isoformat(),
        category=session.recipe.category,
        decision=session.recipe.decision,
        reason=session.recipe.reason,
        procedures=tuple(sorted(written)),
        kind=session.recipe.name,
        route=session.route,
        traits=tuple(sorted({*traits, *(("part-of",) if linked and len(parts) > 1 else ())})),
    )


def _treated(person: Person) -> str:
    return PROFILES[person.profile][1][-1] if person.profile in PROFILES else ""


def _subject(session: PlannedSession, index: int) -> str:
    person = session.person
    if "merged-record" in session.traits or ("split-over-merged" in session.traits and index == 0):
        return person.alias
    return person.id


def _encounter(register: Register, session: PlannedSession) -> str:
    if "undated" in session.traits:
        return ""
    diagnosed = session.route == "encounter"
    if not diagnosed and register.rng.random() < 0.15:
        return ""
    last = session.day + timedelta(days=register.rng.choice((1, 1, 2)))
    diagnoses: Sequence[str] = ()
    if diagnosed:
        diagnoses = (session.person.conditions[_treated(session.person)],)
    return register.add_encounter(session.person, session.day, last, diagnoses=diagnoses)


def _write_twin(register: Register, session: PlannedSession, first: ProcedurePlan) -> str:
    """The record of the same session by the radiology department."""
    codes = codings(session.recipe.twin)[0]
    twin = replace(first, codes=codes, origin=RIS_SYSTEM, day=session.day, minute=session.minute - 7)
    return register.add_procedure(session.person.id, twin)
