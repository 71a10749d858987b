"""The guard at the door: everything that is done to prepared cases before they are sealed.

Answers are released, cases that too few others look like are made coarser, what stays behind is counted, and one
scanner knows the identifiers of everybody in the draw, also of the reserves and of those who left it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from io_fhir_adapter.ledger.draws import StoredDraw, cases_of
from io_fhir_adapter.ledger.facts import decisions_between, merged_into, survivor
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.ledger.people import ids_of_people, patient_facts
from io_fhir_adapter.model import Indication
from io_fhir_adapter.review.answers import Released, release_answers
from io_fhir_adapter.review.cases import PreparedCase
from io_fhir_adapter.review.forms import public_words
from io_fhir_adapter.review.identifiers import date_forms, id_forms, identifiers_of, texts_of, values_of
from io_fhir_adapter.review.leaks import LeakScanner
from io_fhir_adapter.review.profile import Profile
from io_fhir_adapter.review.risk import FrameClasses, Risk, coarsened, frame_classes, tumour_group
from io_fhir_adapter.review.sample import frame_of
from io_fhir_adapter.review.telling import telling_items

__all__ = ["Guarded", "classes_of", "guard_cases", "patients_of", "scanner_for"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Guarded:
    """The cases as they may leave, and what the run's summary says about them; the summary names nobody.

    Attributes:
        cases: What leaves.
        risks: How each case stands, in order.
        forms: What each form keeps back, in order.
        dropped: How often elements stayed behind, such as ``Procedure.extension``.
        k: How many patients must look alike.
    """

    cases: tuple[PreparedCase, ...]
    risks: tuple[Risk, ...]
    forms: tuple[Released, ...]
    dropped: Mapping[str, int]
    k: int

    @property
    def flagged(self) -> tuple[Risk, ...]:
        """Cases for which all steps did not suffice."""
        return tuple(risk for risk in self.risks if not risk.holds)

    @property
    def sentence(self) -> str:
        """What a person should know of it."""
        coarser = sum(bool(risk.steps) for risk in self.risks)
        said = [f"{coarser} of {len(self.cases)} cases made coarser, so that {self.k} patients look alike"]
        if self.flagged:
            numbers = ", ".join(str(risk.number) for risk in self.flagged)
            said.append(f"still rare, to be looked at before sending: case {numbers}")
        extensions = sum(number for name, number in self.dropped.items() if name.endswith(".extension"))
        said.append(f"{extensions} extensions stayed behind")
        held = sum(len(form.held) for form in self.forms)
        if held:
            said.append(f"{held} texts wait for approval")
        return "; ".join(said)

    def to_json(self) -> Json:
        """The run's summary."""
        steps = Counter(step for risk in self.risks for step in risk.steps)
        return {
            "dropped": dict(sorted(self.dropped.items())),
            "refused": sum(len(case.refused) for case in self.cases),
            "risk": {
                "k": self.k,
                "generalised": [risk.to_json() for risk in self.risks if risk.steps],
                "steps": dict(steps),
                "flagged": [risk.number for risk in self.flagged],
            },
            "texts": {
                "local": sum(len(form.local) for form in self.forms),
                "held": sum(len(form.held) for form in self.forms),
                "leaking": [case.number for case, form in zip(self.cases, self.forms, strict=True) if form.leaking],
            },
        }


def patients_of(connection: Connection, draw: StoredDraw) -> dict[str, set[str]]:
    """Source to the patients of all cases of a draw, with all their records; reserves and those who left as well."""
    frame, links = frame_of(draw).patients, person_links(connection)
    found: dict[str, set[str]] = {}
    for case in cases_of(connection, draw.id, None):
        for session in frame.get(case.patient, ()):
            found.setdefault(session.source, set()).update(_records(case.patient, links))
    return found


def _records(patient: str, links: Mapping[str, str]) -> set[str]:
    """All records of a person, whichever of them was drawn."""
    leading = survivor(patient, links)
    return {patient, leading, *merged_into(leading, links)}


def scanner_for(
    connection: Connection,
    draw: StoredDraw,
    resources: Collection[Json],
    profile: Profile,
    questionnaire: Json,
    own: Iterable[Any],
) -> LeakScanner:
    """A scanner that knows everybody in a draw.

    Args:
        connection: An open transaction.
        draw: The draw.
        resources: Everything that was pulled for its cases, and the people that they name.
        profile: The allow-list; what it names is published.
        questionnaire: The form; it is published.
        own: Other texts and documents that leave and are about nobody: the facility's name, the Measure.
    """
    words = public_words(questionnaire) | profile.public_words
    published = words | {text.casefold() for text in texts_of([questionnaire, *own])}
    links = person_links(connection)
    patients = {name for case in cases_of(connection, draw.id, None) for name in _records(case.patient, links)}
    needles = set(identifiers_of(resources, words))
    for reference in ids_of_people(connection, patients):
        kind, _, identity = reference.partition("/")
        needles.update(id_forms(kind, identity))
    for people in patient_facts(connection, patients, {}).values():
        needles.update(form for fact in people for form in date_forms(fact.birth_date))
    return LeakScanner(needles, published, values_of(resources, published, profile.shapes))


def classes_of(connection: Connection, draw: StoredDraw, organ_of: Callable[[Indication], str]) -> FrameClasses:
    """The quasi-identifiers of everybody in a draw's frame.

    Args:
        connection: An open transaction.
        draw: The draw.
        organ_of: The organ that the tables see in an indication.
    """
    frame, links = frame_of(draw), person_links(connection)
    people = {patient: survivor(patient, links) for patient in frame.patients}
    tumours = {
        (decision.patient, decision.date, decision.category): tumour_group(decision.indication, organ_of)
        for decision in decisions_between(connection, frame.start, frame.end)
        if decision.decision == "counted"
    }
    return frame_classes(frame, patient_facts(connection, {*people.values()}, links), tumours, people)


def guard_cases(
    prepared: Iterable[PreparedCase],
    sessions: Mapping[int, tuple[str, str, str]],
    classes: FrameClasses,
    questionnaire: Json,
    profile: Profile,
    scanner: LeakScanner,
    approved: Collection[str] = (),
) -> Guarded:
    """Makes prepared cases fit to leave.

    Args:
        prepared: The cases.
        sessions: Case number to patient, date and category of its index session.
        classes: The frame that the cases were drawn from.
        questionnaire: The form that they answer.
        profile: The allow-list.
        scanner: Knows the identifiers.
        approved: Digests of texts that a person approved.
    """
    telling = telling_items(questionnaire)
    cases: list[PreparedCase] = []
    risks: list[Risk] = []
    forms: list[Released] = []
    dropped: Counter[str] = Counter()
    for case in prepared:
        form = release_answers(case.response, questionnaire, profile.answers, scanner, approved)
        risk = classes.measure(case.number, *sessions[case.number], profile.risk)
        cases.append(coarsened(replace(case, response=form.response), risk, profile.risk, telling))
        risks.append(risk)
        forms.append(form)
        dropped.update(case.dropped)
    return Guarded(tuple(cases), tuple(risks), tuple(forms), dropped, profile.risk.k)
