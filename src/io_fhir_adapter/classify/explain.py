"""Explaining a decision in words: every Procedure, code, row, rule and diagnosis behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.lifespan import set_aside
from io_fhir_adapter.classify.recorded import CodeRead, codes_read, text_read
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.ledger.facts import find_procedure, person_of, quarantined, survivor
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.model import Decision, EncounterFact, ProcedureFact, Quarantined

__all__ = ["Explanation", "explain_procedure", "in_words"]

_OUTCOME = {
    "counted": "COUNTED",
    "review": "FOR REVIEW",
    "not-counted": "NOT COUNTED",
}
_REASONS = {
    "counted": "it meets every rule of the programme",
    "category-for-review": "the programme leaves this category to a responsible person",
    "indication-not-found": "the code nearly always means a tumour, but no diagnosis that says so was found",
    "indication-uncertain": "the diagnosis found leaves open whether it is malignant, or whether it is the reason",
    "text-only": "no table knows its codes, and only its text says what was done",
    "protection-possible": "vessels were closed in a way that may treat, or only protect before radioembolisation",
    "site-for-review": "the place is one that is rarely treated for a tumour",
    "route-not-coded": "nothing says that the treatment went through the skin",
    "mapping-inexact": "the site's ConceptMap says that its code and what it is mapped to do not mean the same",
    "conflicting-codes": "one of its codes names a treatment, another a look-alike or an operation by another way in",
    "part-of-missing-procedure": "it is part of a Procedure that is not there, has no row or was not completed",
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
    "out-of-scope": "its record says that it is not this service's, by the scope of the configuration",
    "scope-unknown": "its record does not say whether it is this service's, and all else is met",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of a Procedure: how it is recorded, line by line, and the decisions that it takes part in."""

    record: list[str]
    decisions: list[Decision]


def explain_procedure(connection: Connection, procedure_id: str, ruleset: Ruleset) -> Explanation:
    """Why a Procedure counted or did not, decided anew with the rules as they are now.

    Args:
        connection: The ledger.
        procedure_id: Logical id, with or without ``Procedure/``.
        ruleset: What decides.

    Raises:
        UsageError: The ledger has no such Procedure, neither good nor set aside.
    """
    wanted = id_of(procedure_id)
    reference = f"Procedure/{wanted}"
    facts = find_procedure(connection, wanted)
    record = [_set_aside(entry) for entry in quarantined(connection) if entry.position == reference]
    if not facts and not record:
        raise UsageError(f"the ledger has no Procedure {wanted!r}", do="check the id, or run pull first", number=3)
    decisions: list[Decision] = []
    links = person_links(connection)
    for fact in facts:
        patient = survivor(fact.patient, links)
        person = person_of(connection, patient, links)
        made = decide_patient(person.procedures, person.conditions, person.encounters, ruleset, person.people)
        _, aside = set_aside(patient, [fact], person.people, ruleset)
        here = [decision for decision in made if reference in decision.procedures]
        shown = list(_recorded(fact, patient, ruleset))
        said = [_set_aside(entry) for entry in aside]
        record += [line for line in said if line not in record]
        record += shown
        if not here and not aside:
            record.append(f"  {_why_apart(fact, ruleset, person.encounters)}")
        decisions += [decision for decision in here if decision not in decisions]
    return Explanation(record, decisions)


def _set_aside(entry: Quarantined) -> str:
    return f"{entry.position} of {entry.source} was set aside and takes part in nothing: {entry.reason} [{entry.code}]"


def _recorded(fact: ProcedureFact, patient: str, ruleset: Ruleset) -> Iterator[str]:
    """The Procedure as it was read: status, day and codes; never a text."""
    yield f"Procedure/{fact.id} of {fact.source}: {fact.status}, {fact.day or 'undated'}"
    if patient != fact.patient:
        yield f"  recorded for {fact.patient}, which was merged into {patient}"
    if not fact.codes:
        yield "  it has no code"
    for code in codes_read(fact, ruleset):
        if code.finding is not None:
            said = code.finding
            what = ", ".join(part for part in (said.technique, said.site, said.approach) if part)
            yield f"  {code.system} {code.code}: {what} ({said.rule}){_instead(code)}"
        elif code.has_table:
            yield f"  {code.system} {code.code}: no row in the tables"
        else:
            yield f"  {code.system or '(no system)'} {code.code}: not a code system that has a table"
    for finding in text_read(fact, ruleset):
        what = ", ".join(part for part in (finding.technique, finding.site, finding.role) if part)
        yield f"  its text: {what} ({finding.rule})"


def _instead(code: CodeRead) -> str:
    """That a site's own row decides where a shipped one would have."""
    if not code.own:
        return ""
    return f", the site's own row in place of {code.in_place_of}" if code.in_place_of else ", the site's own row"


def _why_apart(fact: ProcedureFact, ruleset: Ruleset, encounters: Iterable[EncounterFact]) -> str:
    """Why a Procedure is in no session."""
    if fact.status != "completed":
        return f"its status is {fact.status}, so it adds nothing to what was completed for the patient at that time"
    if not read_codes(fact, ruleset).findings:
        return "no row of the tables matches it, so it adds nothing to what else was done on that day"
    if ruleset.scope is not None:
        stay = next((e for e in encounters if (e.source, f"Encounter/{e.id}") == (fact.source, fact.encounter)), None)
        found = ruleset.scope.standing(fact, stay)
        if found.place != "inside":
            return f"{found.step.text} ({found.step.rule}); what is inside the scope on that day decides without it"
    return "another version of it, or the same session in another system, was decided on"


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
