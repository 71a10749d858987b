"""The cases of a sample, ready to leave: pulled whole, pre-filled, de-identified, and scanned for leaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any

from sqlalchemy import Connection

from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.fhir.dates import is_full
from io_fhir_adapter.fhir.references import normalise
from io_fhir_adapter.ledger.draws import StoredCase, StoredDraw, cases_of, leave_case
from io_fhir_adapter.ledger.facts import PatientRecord, decisions_of, decisions_with, merged_into, person_of, survivor
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.model import Decision, Lookup, ProcedureFact
from io_fhir_adapter.review.case_input import CaseInput
from io_fhir_adapter.review.deidentify import DeidContext, carries_modifier, deidentify
from io_fhir_adapter.review.prefill import prefill
from io_fhir_adapter.review.profile import Profile
from io_fhir_adapter.review.queries import as_found, last_contact_in, last_moment, lookups_for, record_queries
from io_fhir_adapter.trust.frame import case_pseudonym

__all__ = ["CaseNeeds", "PreparedCase", "lookups_of", "needs_of", "people_in", "prepare_case"]

Json = dict[str, Any]

_NOT_DONE = frozenset({"entered-in-error", "not-done", "preparation"})


@dataclass(frozen=True, slots=True)
class CaseNeeds:
    """What a case's form is filled from: its decision, and the references to pull from its source. Local only."""

    case: StoredCase
    decision: Decision
    references: frozenset[str] = field(repr=False)
    merged: frozenset[str] = field(default=frozenset(), repr=False)  # the person's other records
    earlier: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # (date, category) of other counted sessions
    last_contact: str = field(default="", repr=False)  # the last local day on which something was done


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """A case that may leave, beside what stays: where answers came from, why others are empty, what was refused."""

    number: int
    token: str
    patient: Json
    procedures: tuple[Json, ...]
    encounters: tuple[Json, ...]
    conditions: tuple[Json, ...]
    response: Json
    sources: Mapping[str, str] = field(repr=False)
    missing: Mapping[str, str] = field(repr=False)
    share: float = 0.0
    known_share: float = 0.0
    refused: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)  # what stayed behind, such as ``Procedure.extension``


def needs_of(connection: Connection, draw: StoredDraw, now: datetime) -> list[CaseNeeds]:
    """The decision behind each case of a draw, and what to pull for it.

    A case that does not count any more, because its record was corrected after the draw, leaves the sample, and the
    next reserve takes its place; so does one whose record was merged with that of a case before it. A case whose record
    was merged with any other stays, and is read under both.
    """
    needs: list[CaseNeeds] = []
    waiting = cases_of(connection, draw.id)
    links = person_links(connection)
    people: set[str] = set()
    while waiting:
        case = waiting.pop(0)
        person = survivor(case.patient, links)
        decision = _decision_on(connection, case, person) if person not in people else None
        if decision is None:
            leave_case(connection, draw, case, "duplicate" if person in people else "not-io", now)
            known = {need.case.number for need in needs} | {other.number for other in waiting}
            waiting += [other for other in cases_of(connection, draw.id) if other.number not in known]
            continue
        people.add(person)
        record = person_of(connection, person, links)
        of_session = _performed(fact for fact in record.procedures if f"Procedure/{fact.id}" in decision.procedures)
        merged = frozenset({person, *merged_into(person, links)} - {case.patient})
        references = {case.patient, *merged, *(f"Procedure/{fact.id}" for fact in of_session)}
        references |= _encounters(of_session, record, decision)
        references |= {f"Condition/{fact.id}" for fact in record.conditions if fact.source == decision.source}
        earlier = tuple(
            (other.date, other.category)
            for other in decisions_of(connection, person)
            if other.decision == "counted" and other.date != case.date
        )
        needs.append(
            CaseNeeds(case, decision, frozenset(references), merged, earlier, last_contact=_last_contact(record))
        )
    return needs


def _performed(facts: Iterable[ProcedureFact]) -> list[ProcedureFact]:
    """The Procedures that were done: the completed ones; where none is, those that the programme takes for done."""
    found = [fact for fact in facts if fact.status not in _NOT_DONE]
    return [fact for fact in found if fact.status == "completed"] or found


def _encounters(of_session: Iterable[ProcedureFact], record: PatientRecord, decision: Decision) -> set[str]:
    """The Encounters that the session's Procedures name; where they name none, those around its day."""
    named = {fact.encounter for fact in of_session if fact.encounter.startswith("Encounter/")}
    return named or {
        f"Encounter/{fact.id}"
        for fact in record.encounters
        if fact.source == decision.source and fact.start and fact.start <= decision.date <= fact.end
    }


def _last_contact(record: PatientRecord) -> str:
    days = [fact.day for fact in record.procedures if fact.status == "completed"]
    days += [fact.start for fact in record.encounters if fact.status not in {"planned", "cancelled"}]
    return max((day for day in days if is_full(day)), default="")


def _decision_on(connection: Connection, case: StoredCase, person: str) -> Decision | None:
    """The decision that a case stands on, or, where its category was corrected, the one that took its place.

    A programme may count each category of a session; then the other categories' decisions are not the case's.
    """
    of_session = [
        decision
        for procedure in case.procedures
        for decision in decisions_with(connection, person, procedure)
        if decision.date == case.date
    ]
    own = [decision for decision in of_session if decision.category == case.category]
    return next((decision for decision in own or of_session if decision.decision == "counted"), None)


def lookups_of(needs: CaseNeeds, questionnaire: Json) -> list[Lookup]:
    """What a form wants its case's source to be asked for."""
    return lookups_for(record_queries(questionnaire), {needs.case.patient, *needs.merged}, needs.case.date)


def people_in(resources: Iterable[Json]) -> set[str]:
    """References of the people that these resources name, whose identifiers must not leave either."""
    return {
        reference
        for resource in resources
        for reference in _references(resource)
        if reference.partition("/")[0] in {"Practitioner", "RelatedPerson", "Patient"}
    }


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        found = node.get("reference")
        if isinstance(found, str):
            yield normalise(found, "Patient")
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def prepare_case(
    needs: CaseNeeds,
    resources: Mapping[str, Json],
    questionnaire: Json,
    profile: Profile,
    *,
    key: bytes,
    nonce: str,
    zone: tzinfo,
    organ: str = "",
    around: Mapping[Lookup, Sequence[Json]] | None = None,
    absent: Mapping[str, str] | None = None,
) -> PreparedCase:
    """Pre-fills and de-identifies one case.

    Args:
        needs: The case and its decision.
        resources: The pulled resources by reference.
        questionnaire: The form.
        profile: The allow-list.
        key: The facility's secret key.
        nonce: The draw's nonce, hexadecimal.
        zone: The facility's time zone.
        organ: The organ that the code of the decision's indication names, where it names one.
        around: What the form's searches gave. It is read for answers only; none of it leaves.
        absent: Resource types that the source does not offer, and why.

    Resources that may not leave are left out and named in ``refused``; in the place of such a Patient leaves one that
    says nothing. None of them is read for answers either, nor is what the searches gave with a modifierExtension.
    """
    case = needs.case
    resources = {
        reference: _under(resources[reference], case.patient, needs.merged)
        for reference in sorted(needs.references)
        if reference in resources
    }
    # a person whose own record lies in another source, or was merged since, is described by one that is in force
    others = [resources.pop(reference) for reference in sorted(needs.merged) if reference in resources]
    records = [*filter(None, [resources.get(case.patient)]), *others]
    patient = next((record for record in records if not _replaced(record)), next(iter(records), None))
    context = DeidContext(
        key=key, token=case.token, patient=case.patient, index_date=case.date, category=case.category,
        included=frozenset(resources) | {case.patient}, zone=zone,
    )  # fmt: skip
    bare = {"resourceType": "Patient", "id": case.patient.rpartition("/")[2] or case.token}
    shell = {**(patient or {}), **bare}
    leaving = {**resources, case.patient: shell}
    copies, refused = _deidentified(leaving, profile, context)
    # what may not leave answers nothing either
    kinds: dict[str, list[Json]] = {"Procedure": [], "Encounter": [], "Condition": []}
    for reference, resource in resources.items():
        if reference not in refused:
            kinds.get(reference.partition("/")[0], []).append(resource)
    given = [one for lookup in lookups_of(needs, questionnaire) for one in (around or {}).get(lookup, ())]
    unread = [one for one in given if carries_modifier(one)]
    given = [one for one in given if one not in unread]
    context.dropped.update(f"{one.get('resourceType')}.modifierExtension" for one in unread)
    ended = last_moment(kinds["Procedure"])
    searched = as_found(record_queries(questionnaire), given, case.date, zone, ended)
    form = prefill(
        questionnaire,
        CaseInput(
            number=case.number,
            token=case.token,
            pseudonym=case_pseudonym(bytes.fromhex(nonce), case.token),
            decision=needs.decision,
            patient=None if case.patient in refused else patient,
            procedures=tuple(kinds["Procedure"]),
            encounters=tuple(kinds["Encounter"]),
            conditions=tuple(kinds["Condition"]),
            found=searched,
            absent=absent or {},
            earlier=needs.earlier,
            subject=context.url(case.patient),
            organ=organ,
            last_contact=max(needs.last_contact, last_contact_in(searched, zone)),
            zone=zone,
        ),
    )
    dropped = dict(context.dropped)
    if refused:  # nothing that leaves may point to what does not
        context = replace(context, included=context.included - set(refused) | {case.patient})
        leaving = {name: leaving[name] for name in copies} | {case.patient: leaving[case.patient]}
        if case.patient in refused:
            leaving[case.patient] = bare
        copies, _ = _deidentified(leaving, profile, context)
    # within a submission the resources of a case name each other by the ids that they leave with
    names = {context.url(reference): f"{copy['resourceType']}/{copy['id']}" for reference, copy in copies.items()}
    renamed = {reference: _renamed(copy, names) for reference, copy in copies.items()}

    def of(kind: str) -> tuple[Json, ...]:
        return tuple(copy for copy in renamed.values() if copy["resourceType"] == kind)

    return PreparedCase(
        number=case.number,
        token=case.token,
        patient=renamed[case.patient],
        procedures=of("Procedure"),
        encounters=of("Encounter"),
        conditions=of("Condition"),
        response=_renamed(form.response, names),
        sources=form.sources,
        missing=form.missing,
        share=form.share,
        known_share=form.known_share,
        refused=tuple(refused.values()),
        dropped=dropped,
    )


def _deidentified(
    resources: Mapping[str, Json], profile: Profile, context: DeidContext
) -> tuple[dict[str, Json], dict[str, str]]:
    """The copies that may leave, and why others may not, by reference."""
    copies: dict[str, Json] = {}
    refused: dict[str, str] = {}
    for reference, resource in resources.items():
        try:
            copies[reference] = deidentify(resource, profile, context)
        except ReviewError as exc:
            refused[reference] = exc.sentence
    return copies, refused


def _replaced(record: Json) -> bool:
    """Whether a Patient says that another stands in its place."""
    links = record.get("link")
    return any(isinstance(one, dict) and one.get("type") == "replaced-by" for one in links or ())


def _under(resource: Json, patient: str, merged: frozenset[str]) -> Json:
    """The resource with its subject named as the surviving record, where it belongs to a former one."""
    subject = resource.get("subject")
    named = subject.get("reference") if isinstance(subject, dict) else None
    others = {name.partition("@")[0] for name in (patient, *merged)} - {patient}
    if isinstance(named, str) and normalise(named, "Patient") in others:
        return {**resource, "subject": {"reference": patient}}
    return resource


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _renamed(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, names) for value in node]
    return names.get(node, node) if isinstance(node, str) else node
