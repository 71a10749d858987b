"""How easily somebody could be told from a case: measured against the whole frame, and lowered where it is too easy.

Someone who knows that a person was treated knows sex, about the age and when it was. A case therefore counts its
look-alikes: the patients of the frame with a session of the same age band, sex, category, tumour group and quarter.
Where they are fewer than the profile's k, the case is made coarser in the profile's order until they are enough; where
they never are, the case is flagged. Pure functions; the frame's facts come from the ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from io_fhir_adapter.canonical_urls import AGE_BAND, GENERALISED, QUARTER
from io_fhir_adapter.model import Indication, PatientFact
from io_fhir_adapter.review.cases import PreparedCase
from io_fhir_adapter.review.draw import Frame
from io_fhir_adapter.review.generalise import age_band, icd_group, quarter, wide_age_band
from io_fhir_adapter.review.profile import RiskRule, Step

__all__ = ["FrameClasses", "Quasi", "Risk", "coarsened", "frame_classes", "tumour_group"]

Json = dict[str, Any]

_OF_STEP: Final[Mapping[Step, str]] = {
    "widen-age": "age", "drop-age": "age", "drop-sex": "sex", "drop-tumour-group": "tumour-group",
    "drop-quarter": "quarter",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quasi:
    """What one session says about its patient to someone who was near; empty where the record does not tell."""

    age: str
    sex: str
    category: str
    tumour: str
    quarter: str

    def after(self, steps: Iterable[Step]) -> Quasi:
        """The same, made coarser."""
        made = self
        for step in steps:
            if step == "widen-age":
                made = replace(made, age=wide_age_band(made.age))
            elif step == "drop-age":
                made = replace(made, age="")
            elif step == "drop-sex":
                made = replace(made, sex="")
            elif step == "drop-tumour-group":
                made = replace(made, tumour="")
            else:
                made = replace(made, quarter="")
        return made


@dataclass(frozen=True, slots=True)
class Risk:
    """How a case stands.

    Attributes:
        number: Place in the draw.
        before: How many patients of the frame looked alike at first, the case's own included.
        alike: How many do after the steps.
        steps: What was generalised, in order.
        holds: Whether that is at least the profile's k.
    """

    number: int
    before: int
    alike: int
    steps: tuple[Step, ...]
    holds: bool

    def to_json(self) -> Json:
        """For the run's summary; names nobody."""
        return {"case": self.number, "before": self.before, "alike": self.alike, "steps": list(self.steps)}


@dataclass(frozen=True)
class FrameClasses:
    """Every frame patient's sessions as quasi-identifiers. Local only.

    Attributes:
        sessions: Reference of a person's leading record to (date, category) to what that session says.
        people: Patients of the frame to their leading records, where these are others: records may be merged after the
            draw, and one person is not two who look alike.
    """

    sessions: Mapping[str, Mapping[tuple[str, str], Quasi]] = field(repr=False)
    people: Mapping[str, str] = field(default_factory=dict, repr=False)
    _sizes: dict[tuple[Step, ...], dict[Quasi, int]] = field(default_factory=dict, repr=False, compare=False)

    def size(self, quasi: Quasi, steps: tuple[Step, ...]) -> int:
        """How many patients of the frame look like ``quasi`` after these steps."""
        sizes = self._sizes.get(steps)
        if sizes is None:
            classes: defaultdict[Quasi, int] = defaultdict(int)
            for sessions in self.sessions.values():
                for one in {session.after(steps) for session in sessions.values()}:
                    classes[one] += 1
            sizes = self._sizes[steps] = dict(classes)
        return sizes.get(quasi.after(steps), 0)

    def measure(self, number: int, patient: str, day: str, category: str, rule: RiskRule) -> Risk:
        """The risk of one case, and the shortest run of the rule's steps that lowers it enough.

        Args:
            number: Place in the draw.
            patient: The patient's reference.
            day: Local date of the index session.
            category: Its category.
            rule: k and the order of the steps.
        """
        quasi = self.sessions.get(self.people.get(patient, patient), {}).get((day, category))
        if quasi is None:  # the session is not in the frame any more: nothing can be said, so nothing holds
            return Risk(number, 0, 0, rule.steps, holds=False)
        before = alike = self.size(quasi, ())
        taken: tuple[Step, ...] = ()
        for step in rule.steps:
            if alike >= rule.k:
                break
            taken = (*taken, step)
            alike = self.size(quasi, taken)
        return Risk(number, before, alike, taken, alike >= rule.k)


def frame_classes(
    frame: Frame,
    people: Mapping[str, Iterable[PatientFact]],
    tumours: Mapping[tuple[str, str, str], str],
    leading: Mapping[str, str] | None = None,
) -> FrameClasses:
    """The quasi-identifiers of a frame.

    Args:
        frame: Who could be drawn.
        people: What the ledger has of each person by the leading record, which is the first.
        tumours: (leading record, date, category) of a decision to its tumour group.
        leading: Patients of the frame to the records that lead for them now; those left out lead themselves.
    """
    leading = leading or {}
    made: dict[str, dict[tuple[str, str], Quasi]] = {}
    for drawn, sessions in frame.patients.items():
        patient = leading.get(drawn, drawn)
        records = list(people.get(patient, ()))
        sex = next((fact.gender for fact in records if fact.gender), "")
        birth = next((fact.birth_date for fact in records if fact.birth_date), "")
        made.setdefault(patient, {}).update({
            (session.date, session.category): Quasi(
                age=age_band(birth, session.date),
                sex=sex,
                category=session.category,
                tumour=tumours.get((patient, session.date, session.category), ""),
                quarter=quarter(session.date),
            )
            for session in sessions
        })  # fmt: skip
    return FrameClasses(made, leading)


def tumour_group(indication: Indication, organ_of: Callable[[Indication], str]) -> str:
    """What leaves of an indication: the three characters of its ICD-10 code, else the kind and organ of its tumour."""
    group = icd_group(indication.code)
    if group:
        return group
    organ = organ_of(indication)
    return f"{indication.kind} {organ}".strip()


def coarsened(
    case: PreparedCase, risk: Risk, rule: RiskRule, telling: Mapping[str, Collection[str]] | None = None
) -> PreparedCase:
    """The case as it may leave: with what the steps name made coarser in its resources and in its form.

    The form names what was generalised as tags, so that who receives it knows why an item is empty.

    Args:
        case: The case.
        risk: The steps that it needs.
        rule: Names the items of the form that say the same.
        telling: Further items that do, as :func:`~io_fhir_adapter.review.telling.telling_items` finds them.
    """
    if not risk.steps:
        return case
    changed: dict[str, Any] = {}
    for part in fields(case):
        value = getattr(case, part.name)
        if part.name == "response":
            changed[part.name] = _form(value, risk.steps, rule, telling or {})
        elif isinstance(value, dict) and "resourceType" in value:
            changed[part.name] = _resource(value, risk.steps)
        elif isinstance(value, tuple) and value and isinstance(value[0], dict):
            changed[part.name] = tuple(_resource(one, risk.steps) for one in value)
    return replace(case, **changed)


def _resource(resource: Json, steps: tuple[Step, ...]) -> Json:
    made = dict(resource)
    if "drop-sex" in steps:
        made.pop("gender", None)
    if "drop-tumour-group" in steps and made["resourceType"] == "Condition":
        made.pop("code", None)
    extensions = [kept for one in resource.get("extension", ()) if (kept := _extension(one, steps)) is not None]
    made.pop("extension", None)
    return {**made, "extension": extensions} if extensions else made


def _extension(extension: Json, steps: tuple[Step, ...]) -> Json | None:
    if extension["url"] == QUARTER and "drop-quarter" in steps:
        return None
    if extension["url"] == AGE_BAND:
        if "drop-age" in steps:
            return None
        if "widen-age" in steps:
            return {**extension, "valueCode": wide_age_band(extension["valueCode"])}
    return extension


def _form(response: Json, steps: tuple[Step, ...], rule: RiskRule, telling: Mapping[str, Collection[str]]) -> Json:
    """The form without the answers to what was generalised, also where a coarser one would have no option."""
    gone = {_OF_STEP[step] for step in steps}
    links = {link for link, quasi in rule.answers.items() if quasi in gone}
    links |= {link for link, said in telling.items() if gone.intersection(said)}
    tags = [*response.get("meta", {}).get("tag", ()), *({"system": GENERALISED, "code": step} for step in steps)]
    made = {**response, "meta": {**response.get("meta", {}), "tag": tags}}
    items = _without(response.get("item", ()), links)
    made.pop("item", None)
    return {**made, "item": items} if items else made


def _without(items: Iterable[Json], links: set[str]) -> list[Json]:
    kept: list[Json] = []
    for item in items:
        if item["linkId"] in links:
            continue
        made = {name: value for name, value in item.items() if name != "item"}
        inner = _without(item.get("item", ()), links)
        if inner:
            made["item"] = inner
        if "item" in made or "answer" in made:
            kept.append(made)
    return kept
