"""Seal a submission: one R4 transaction Bundle, the same bytes for the same content.

Every entry is a conditional update by business identifier, so that sending it again changes nothing; entries point to
each other by ``urn:uuid``. The Bundle's identifier is a digest of what it says, not of when it was said. That an
accreditation body takes a FHIR transaction at all is this project's proposal.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from io_fhir_adapter.canonical_urls import (
    BASE,
    DRAW_SYSTEM,
    ENTRY_SYSTEM,
    FRAME_SYSTEM,
    NONCE_SYSTEM,
    PATIENT_TOKEN,
    PROGRAMME_SYSTEM,
    RULESET_SYSTEM,
    SUBMISSION_SYSTEM,
    SUPERSEDING_REASON,
)
from io_fhir_adapter.errors import SubmitError
from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.submit.content import (
    CaseContent,
    Method,
    StandardsContent,
    SubmissionContent,
    Superseded,
    check_content,
    facility_of,
    own_identifier,
)
from io_fhir_adapter.trust.canonical import digest
from io_fhir_adapter.trust.frame import draw_digest
from io_fhir_adapter.trust.submission import submission_digest

__all__ = [
    "CaseContent",
    "Method",
    "StandardsContent",
    "SubmissionContent",
    "Superseded",
    "assembler",
    "replaced_by",
    "seal",
    "with_statement",
]

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, BASE)
_KEPT_META: Final = ("profile", "security", "tag")
# Generated narrative repeats the elements and would have to be checked as free text; the receiver refuses it.
_DROPPED: Final = ("id", "meta", "identifier", "text")
_WITH_SUBJECT: Final = ("Procedure", "Condition", "Encounter", "QuestionnaireResponse")


@dataclass(frozen=True)
class _Item:
    """A resource on its way into the Bundle: what it is known by, and where it came from (for errors)."""

    kind: str
    place: str
    source: dict[str, Any]
    system: str
    value: str

    @property
    def full_url(self) -> str:
        return f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{self.kind}|{self.system}|{self.value}')}"

    @property
    def request_url(self) -> str:
        if self.system == "url":
            return f"{self.kind}?url={quote(self.value, safe='')}"
        return f"{self.kind}?identifier={quote(f'{_escaped(self.system)}|{_escaped(self.value)}', safe='')}"


def seal(content: SubmissionContent, timestamp: datetime) -> dict[str, Any]:
    """The transaction Bundle for ``content``.

    The same content gives the same ``Bundle.identifier`` and, with the same timestamp, the same Bundle, in whatever
    order the cases come.

    Args:
        content: What is to be said.
        timestamp: When it is sealed, with a time zone.

    Raises:
        SubmitError: Something is missing, points outside the submission, or is not valid FHIR R4; names the element.
    """
    if timestamp.tzinfo is None:
        raise _refused("the time of sealing has no time zone", "timestamp")
    check_content(content)
    written = timestamp.isoformat(timespec="seconds")
    key = f"{content.facility_code}.{content.programme}.{content.period_start}.{content.period_end}"

    shared = list(_shared_items(content, key))
    known = _names(shared)
    cases = [(case, list(_case_items(case, key))) for case in sorted(content.cases, key=lambda case: case.number)]
    patients = {case.token: items[0].full_url for case, items in cases}

    groups = [item.full_url for item in shared if item.kind == "Group"]
    entries = [_entry(item, _resource(item, known, None)) for item in shared]
    for entry in entries:
        if entry["resource"]["resourceType"] == "MeasureReport":
            entry["resource"].setdefault("reporter", facility_of(content.facility_code))
        if entry["resource"]["resourceType"] == "List":
            _name_cases(entry["resource"], patients, groups)
    for _, items in cases:
        here = known | _names(items)
        entries += [_entry(item, _resource(item, here, items[0].full_url)) for item in items]

    provenance = _provenance(content, [entry["fullUrl"] for entry in entries], written)
    return with_statement(content.facility_code, content.programme, written, entries, provenance)


def with_statement(
    facility_code: str, programme: str, written: str, entries: list[dict[str, Any]], provenance: dict[str, Any]
) -> dict[str, Any]:
    """The transaction Bundle of entries and the Provenance that speaks for them, known by what it says.

    Args:
        facility_code: The facility's code.
        programme: Code of the accreditation programme.
        written: When it is sealed, as FHIR writes it.
        entries: All other entries.
        provenance: Has no id yet.

    Raises:
        SubmitError: It would not be valid FHIR R4; names the element.
    """
    bundle: dict[str, Any] = {
        "resourceType": "Bundle",
        "meta": {"tag": [{"system": PROGRAMME_SYSTEM, "code": programme}]},
        "type": "transaction",
        "timestamp": written,
    }
    try:
        value = submission_digest({**bundle, "entry": [*entries, {"resource": provenance}]})
    except ValueError as exc:
        raise _refused("a value has no canonical JSON form", "Bundle") from exc
    stamp = str(uuid.uuid5(_NAMESPACE, f"Provenance|{facility_code}|{value}"))
    statement = {
        "fullUrl": f"urn:uuid:{stamp}",
        "resource": {**provenance, "id": stamp},
        "request": {"method": "PUT", "url": f"Provenance/{stamp}"},
    }
    bundle["identifier"] = {"system": SUBMISSION_SYSTEM, "value": value}
    bundle["entry"] = [*entries, statement]
    for problem in resource_problems(bundle, frozenset({"Bundle"})):
        raise _refused(f"the sealed Bundle would not be valid FHIR: {problem.words}", problem.path, number=2)
    return bundle


def replaced_by(bundle: Mapping[str, Any]) -> str:
    """Identifier of the submission that a sealed one corrects, empty where it corrects none."""
    statements = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "Provenance"]
    named = (entity["what"]["identifier"] for one in statements for entity in one.get("entity", ()))
    return next((str(one["value"]) for one in named if one["system"] == SUBMISSION_SYSTEM), "")


def _name_cases(drawn: dict[str, Any], patients: Mapping[str, str], groups: list[str]) -> None:
    """Lets the List of a draw point to the frame and to the cases that are in the submission."""
    drawn["subject"] = {"reference": groups[0]}
    for place in drawn["entry"]:
        patient = patients.get(place["item"]["identifier"]["value"])
        if patient is not None:
            place["item"]["reference"] = patient


def _refused(what: str, where: str, number: int = 1) -> SubmitError:
    return SubmitError(what, where=where, do="nothing was queued; this is a fault of the stage before", number=number)


def _shared_items(content: SubmissionContent, key: str) -> Iterator[_Item]:
    standards = content.standards
    forms = (content.questionnaire, standards.questionnaire if standards is not None else None)
    for kind, canonical in (("Measure", content.measure), *(("Questionnaire", form) for form in forms)):
        if canonical is None:
            continue
        url = canonical.get("url")
        if not isinstance(url, str) or not url:
            raise _refused("has no canonical URL to be known by", f"{kind}.url")
        yield _Item(kind, kind, canonical, "url", url)
    report = content.measure_report
    yield _Item("MeasureReport", "MeasureReport", report, *own_identifier(report, ENTRY_SYSTEM, key))
    if content.group is not None:
        frame = own_identifier(content.group, FRAME_SYSTEM, content.method["frame_digest"])
        yield _Item("Group", "Group", content.group, *frame)
    if content.draw is not None:
        drawn = draw_digest(content.method["frame_digest"], content.method["nonce"].lower())
        yield _Item("List", "List", content.draw, *own_identifier(content.draw, DRAW_SYSTEM, drawn))
    if standards is not None:
        answers = {**standards.response, "subject": facility_of(content.facility_code)}
        place = "standards, QuestionnaireResponse"
        yield _Item("QuestionnaireResponse", place, answers, ENTRY_SYSTEM, f"{key}.standards")


def _case_items(case: CaseContent, key: str) -> Iterator[_Item]:
    """The case's resources, the patient first."""
    place = f"case {case.number}, "
    yield _Item("Patient", f"{place}Patient", case.patient, PATIENT_TOKEN, case.token)
    for kind, resources in (
        ("Encounter", case.encounters),
        ("Condition", case.conditions),
        ("Procedure", case.procedures),
    ):
        for number, resource in enumerate(sorted(resources, key=_content_order), start=1):
            value = f"{key}.{case.token}.{kind.lower()}.{number}"
            yield _Item(kind, f"{place}{kind} {number}", resource, ENTRY_SYSTEM, value)
    response = case.questionnaire_response
    yield _Item(
        "QuestionnaireResponse", f"{place}QuestionnaireResponse", response, ENTRY_SYSTEM, f"{key}.{case.token}.review"
    )


def _content_order(resource: Mapping[str, Any]) -> str:
    """Orders a case's resources by what they say, so that numbering does not hang on the order of arrival."""
    return digest({name: value for name, value in resource.items() if name not in _DROPPED})


def _names(items: list[_Item]) -> dict[str, str]:
    """What the items may be called by in references, each with its full URL."""
    names: dict[str, str] = {}
    for item in items:
        own = item.source.get("id")
        if isinstance(own, str):
            names[f"{item.kind}/{own}"] = item.full_url
            names[f"urn:uuid:{own}"] = item.full_url
    return names


def _resource(item: _Item, known: Mapping[str, str], patient: str | None) -> dict[str, Any]:
    """The item's resource as it leaves: own identifier, no id, references by full URL."""
    source = item.source
    if source.get("resourceType") != item.kind:
        raise _refused(f"is not a {item.kind}", item.place)
    if "contained" in source:
        raise _refused("contained resources do not leave", f"{item.place}.contained")
    subject = patient if item.kind in _WITH_SUBJECT else None
    made: dict[str, Any] = {"resourceType": item.kind}
    meta = {name: value for name, value in source.get("meta", {}).items() if name in _KEPT_META}
    if meta:
        made["meta"] = meta
    if item.kind == "QuestionnaireResponse":
        made["identifier"] = {"system": item.system, "value": item.value}
    elif item.kind == "Group":  # digests of our own making: of the frame and of the rules
        made["identifier"] = source.get("identifier", [{"system": item.system, "value": item.value}])
    elif item.system != "url":
        made["identifier"] = [{"system": item.system, "value": item.value}]
    for name, value in source.items():
        if name in ("resourceType", *_DROPPED) or (name == "subject" and subject):
            continue
        made[name] = _linked(value, known, f"{item.place}.{name}")
    if subject:
        made["subject"] = {"reference": subject}
    return made


def _linked(value: Any, known: Mapping[str, str], place: str) -> Any:
    """A copy of ``value`` with every literal reference replaced by the full URL it means."""
    if isinstance(value, list):
        return [_linked(item, known, f"{place}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    copy = {name: _linked(item, known, f"{place}.{name}") for name, item in value.items()}
    reference = copy.get("reference")
    if isinstance(reference, str):
        if reference not in known:
            raise _refused("points to something that is not in the submission", f"{place}.reference")
        copy["reference"] = known[reference]
    return copy


def _entry(item: _Item, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "fullUrl": item.full_url,
        "resource": resource,
        "request": {"method": "PUT", "url": item.request_url},
    }


def _provenance(content: SubmissionContent, targets: list[str], written: str) -> dict[str, Any]:
    method = content.method
    sources = [(RULESET_SYSTEM, method["ruleset_digest"])]
    if content.group is not None:
        sources += [(FRAME_SYSTEM, method["frame_digest"]), (NONCE_SYSTEM, method["nonce"].lower())]
    entities = [
        {"role": "source", "what": {"identifier": {"system": system, "value": value}}} for system, value in sources
    ]
    entities += [
        {"role": "revision", "what": {"identifier": {"system": DRAW_SYSTEM, "value": earlier.draw}}}
        for earlier in content.superseded
    ]
    if content.replaces:
        replaced = {"identifier": {"system": SUBMISSION_SYSTEM, "value": content.replaces}}
        entities.append({"role": "revision", "what": replaced})
    reasons = [{"coding": [{"system": SUPERSEDING_REASON, "code": earlier.reason}]} for earlier in content.superseded]
    return {
        "resourceType": "Provenance",
        "target": [{"reference": target} for target in targets],
        "recorded": written,
        "agent": [assembler(content.facility_code, method["software_version"])],
        "entity": entities,
        **({"reason": reasons} if reasons else {}),
    }


def assembler(facility_code: str, software_version: str) -> dict[str, Any]:
    """The Provenance.agent of this program, on behalf of a facility."""
    participant = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
    return {
        "type": {"coding": [{"system": participant, "code": "assembler"}]},
        "who": {"type": "Device", "display": f"io-fhir-adapter {software_version}"},
        "onBehalfOf": facility_of(facility_code),
    }


def _escaped(text: str) -> str:
    """FHIR search escapes its own separators with a backslash."""
    return re.sub(r"([\\,$|])", r"\\\1", text)
