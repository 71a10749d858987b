"""What a stored submission says, taken out of its Bundle for people to read.

Everything was checked when it came; what a page shows is taken as found, and nothing is left out for being odd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.canonical_urls import (
    APPROVER_SYSTEM,
    CATEGORY_CODES,
    DRAW_ROLE,
    FRAME_SYSTEM,
    NONCE_SYSTEM,
    PATIENT_TOKEN,
    ROLE_CODES,
    RULESET_SYSTEM,
    SUBMISSION_SYSTEM,
    SUPERSEDING_REASON,
    structure_definition,
)

__all__ = [
    "Approver",
    "Case",
    "Statement",
    "Tally",
    "Volume",
    "assessments_of",
    "cases_of",
    "of_kind",
    "statement_of",
    "volume_of",
]

Json = dict[str, Any]
_THRESHOLD: Final = structure_definition("volume-threshold")


@dataclass(frozen=True)
class Tally:
    """Sessions by decision."""

    counted: int = 0
    review: int = 0
    not_counted: int = 0


@dataclass(frozen=True)
class Volume:
    """One MeasureReport.

    Attributes:
        total: All sessions of the period.
        by_category: Code of the category to its sessions.
        by_month: ``YYYY-MM`` (or the report's words for none) to its sessions.
        threshold: What the facility says that its programme asks for; None where it does not say.
        completeness: Code to number of Procedures that were read.
    """

    total: Tally
    by_category: Mapping[str, Tally]
    by_month: Mapping[str, Tally]
    threshold: int | None
    completeness: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Approver:
    """Who let a submission go: the role, the token of the account, a name where the facility gives one."""

    role: str
    token: str
    name: str


@dataclass(frozen=True)
class Statement:
    """The method statement (Provenance).

    Attributes:
        recorded: When it was sealed.
        software: Name and version of what made it.
        ruleset: Digest of tables and rules.
        frame: Digest of the frame, empty where nothing was drawn.
        nonce: What was drawn with.
        approvers: The people who approved it.
        replaces: Identifiers of earlier submissions that it corrects.
        superseded: Reasons for which draws were made again.
    """

    recorded: str
    software: str
    ruleset: str
    frame: str
    nonce: str
    approvers: tuple[Approver, ...]
    replaces: tuple[str, ...]
    superseded: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A drawn case with its review.

    Attributes:
        number: Its place in the draw, from 1.
        token: The pseudonym of the patient.
        category: Code of the category of its Procedure, empty where there is none.
        response: The QuestionnaireResponse.
        form: The Questionnaire that it answers, None where the submission lacks it.
    """

    number: int
    token: str
    category: str
    response: Json
    form: Json | None


def of_kind(bundle: Json, kind: str) -> list[tuple[str, Json]]:
    """Full URL and resource of the entries of a type, in order."""
    entries = bundle.get("entry", [])
    return [(e.get("fullUrl", ""), e["resource"]) for e in entries if e.get("resource", {}).get("resourceType") == kind]


def _codings(concepts: Any) -> Iterator[Json]:
    for concept in concepts if isinstance(concepts, list) else [concepts or {}]:
        yield from concept.get("coding", [])


def _code(concepts: Any, system: str = "") -> str:
    return next((str(one.get("code", "")) for one in _codings(concepts) if system in ("", one.get("system"))), "")


def _tally(populations: list[Json]) -> Tally:
    counts = {_code(one.get("code")): int(one.get("count", 0)) for one in reversed(populations)}
    counted = counts.get("numerator", counts.get("counted", 0))
    return Tally(counted, counts.get("review", 0), counts.get("not-counted", 0))


def volume_of(report: Json) -> Volume:
    """The numbers of a MeasureReport."""
    groups = report.get("group", [])
    first = groups[0] if groups else {}
    by: dict[str, dict[str, Tally]] = {"category": {}, "month": {}}
    for stratifier in first.get("stratifier", []):
        kind = _code(stratifier.get("code")) or "category"
        for stratum in stratifier.get("stratum", []):
            value = stratum.get("value", {})
            name = _code(value, CATEGORY_CODES) or str(value.get("text", ""))
            by.setdefault(kind, {})[name] = _tally(stratum.get("population", []))
    thresholds = [one.get("valueInteger") for one in report.get("extension", []) if one.get("url") == _THRESHOLD]
    read: Json = next((group for group in groups if _code(group.get("code")) == "completeness"), {})
    return Volume(
        total=_tally(first.get("population", [])),
        by_category=by["category"],
        by_month=by["month"],
        threshold=thresholds[0] if thresholds else None,
        completeness=tuple((_code(one.get("code")), int(one.get("count", 0))) for one in read.get("population", [])),
    )


def statement_of(bundle: Json) -> Statement:
    """The method statement of a submission."""
    found = of_kind(bundle, "Provenance")
    provenance = found[0][1] if found else {}
    named: dict[tuple[str, str], list[str]] = {}
    for entity in provenance.get("entity", []):
        identifier = entity.get("what", {}).get("identifier", {})
        place = (str(entity.get("role", "")), str(identifier.get("system", "")))
        named.setdefault(place, []).append(str(identifier.get("value", "")))
    agents = provenance.get("agent", [])

    def source(system: str) -> str:
        return next(iter(named.get(("source", system), [])), "")

    return Statement(
        recorded=str(provenance.get("recorded", "")),
        software=next((str(one["who"].get("display", "")) for one in agents if "onBehalfOf" in one), ""),
        ruleset=source(RULESET_SYSTEM),
        frame=source(FRAME_SYSTEM),
        nonce=source(NONCE_SYSTEM),
        approvers=tuple(_approver(one) for one in agents if _code(one.get("role"), ROLE_CODES)),
        replaces=tuple(named.get(("revision", SUBMISSION_SYSTEM), [])),
        superseded=tuple(_code(one, SUPERSEDING_REASON) for one in provenance.get("reason", [])),
    )


def _approver(agent: Json) -> Approver:
    who = agent.get("who", {})
    identifier = who.get("identifier", {})
    token = str(identifier.get("value", "")) if identifier.get("system") == APPROVER_SYSTEM else ""
    return Approver(_code(agent.get("role"), ROLE_CODES), token, str(who.get("display", "")))


def cases_of(bundle: Json) -> list[Case]:
    """The cases of a submission in the order of the draw."""
    order: dict[str, int] = {}
    for _, drawn in of_kind(bundle, "List"):
        for place in drawn.get("entry", []):
            if _code(place.get("flag"), DRAW_ROLE) == "case":
                order[str(place.get("item", {}).get("reference", ""))] = len(order)
    tokens = {url: _token(patient) for url, patient in of_kind(bundle, "Patient")}
    categories: dict[str, str] = {}
    for _, procedure in of_kind(bundle, "Procedure"):
        subject = procedure.get("subject", {}).get("reference", "")
        categories.setdefault(subject, _code(procedure.get("category"), CATEGORY_CODES))
    forms = {form.get("url", ""): form for _, form in of_kind(bundle, "Questionnaire")}
    answered = [
        (response.get("subject", {}).get("reference"), response)
        for _, response in of_kind(bundle, "QuestionnaireResponse")
    ]
    drawn_first = sorted(
        ((subject, response) for subject, response in answered if subject in tokens),
        key=lambda one: order.get(one[0], len(order)),
    )
    return [
        Case(number, tokens[subject], categories.get(subject, ""), response, forms.get(_canonical(response)))
        for number, (subject, response) in enumerate(drawn_first, start=1)
    ]


def assessments_of(bundle: Json) -> list[tuple[Json | None, Json]]:
    """The facility's own answers (its self-assessment against the standards), each with its form."""
    forms = {form.get("url", ""): form for _, form in of_kind(bundle, "Questionnaire")}
    responses = [response for _, response in of_kind(bundle, "QuestionnaireResponse")]
    return [(forms.get(_canonical(one)), one) for one in responses if "reference" not in one.get("subject", {})]


def _canonical(response: Json) -> str:
    return str(response.get("questionnaire", "")).partition("|")[0]


def _token(patient: Json) -> str:
    identifiers = patient.get("identifier", [])
    return next((str(one.get("value", "")) for one in identifiers if one.get("system") == PATIENT_TOKEN), "")
