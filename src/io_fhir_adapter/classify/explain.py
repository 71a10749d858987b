"""Explaining a decision in words: every Procedure, code, row, rule and diagnosis behind it."""

from __future__ import annotations

from sqlalchemy import Connection

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.ledger.facts import find_procedure, patient_links, person_of, survivor
from io_fhir_adapter.model import Decision

__all__ = ["explain_procedure", "in_words"]

_OUTCOME = {
    "counted": "COUNTED",
    "review": "FOR REVIEW",
    "not-counted": "NOT COUNTED",
}
_REASONS = {
    "counted": "it meets every rule of the programme",
    "category-for-review": "the programme leaves this category to a responsible person",
    "indication-not-found": "the code nearly always means a tumour, but no diagnosis that says so was found",
    "indication-uncertain": "the diagnosis found leaves open whether it is malignant",
    "route-not-coded": "nothing says that the treatment went through the skin",
    "conflicting-codes": "one of its codes names a treatment, another a look-alike",
    "part-of-missing-procedure": "it is part of a Procedure that is not there",
    "category-not-counted": "the programme does not count this category",
    "no-tumour-indication": "the code is shared with other diseases, and no tumour diagnosis was found",
    "other-disease": "the stated reason is another disease",
    "look-alike": "its codes look like interventional oncology and are not",
    "not-percutaneous": "it was an open, laparoscopic or endoscopic procedure",
    "planning-only": "it only prepared a treatment",
    "revision-only": "it only removed, exchanged or checked something",
    "add-on-only": "its codes only describe a treatment that is coded elsewhere",
    "no-io-code": "its codes are known systems' codes without a row in the tables",
    "unmapped": "none of its codes belongs to a known code system",
    "not-completed": "its status says that it was not completed",
    "entered-in-error": "its record was entered in error",
    "undated": "its date is not known",
}


def explain_procedure(connection: Connection, procedure_id: str, ruleset: Ruleset) -> list[Decision]:
    """The decisions on the sessions that a Procedure takes part in, made anew with the rules as they are now.

    Raises:
        UsageError: The ledger has no such Procedure.
    """
    wanted = id_of(procedure_id)
    facts = find_procedure(connection, wanted)
    if not facts:
        raise UsageError(f"the ledger has no Procedure {wanted!r}", do="check the id, or run pull first", number=3)
    decisions: list[Decision] = []
    links = patient_links(connection)
    for patient in dict.fromkeys(survivor(fact.patient, links) for fact in facts):
        record = person_of(connection, patient, links)
        made = decide_patient(record.procedures, record.conditions, record.encounters, ruleset)
        here = [decision for decision in made if f"Procedure/{wanted}" in decision.procedures]
        days = {fact.day for fact in facts}
        decisions += here or [decision for decision in made if decision.date in days]
    return decisions


def in_words(decision: Decision, ruleset: Ruleset) -> list[str]:
    """A decision as lines of text, for a physician."""
    title = ruleset.categories.get(decision.category, decision.category)
    lines = [
        f"{_OUTCOME[decision.decision]}  {title} ({decision.category}), {decision.date or 'undated'}",
        f"because {_REASONS.get(decision.reason, decision.reason)} [{decision.reason}]",
        f"Procedures: {', '.join(decision.procedures)}",
    ]
    if len(decision.categories) > 1:
        lines.append(f"Also in this session: {', '.join(decision.categories[1:])}")
    for step in decision.trail:
        rule = f"  ({step.rule})" if step.rule else ""
        lines.append(f"  {step.step:<10} {step.text}{rule}")
    return lines
