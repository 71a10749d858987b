"""What leaves, read out of the sealed Bundle itself: an approver is shown this and not what it was made from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from io_fhir_adapter.fhir.forms import Section, sections

__all__ = ["LeavingCase", "leaving_cases", "leaving_standards", "resource_counts"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeavingCase:
    """One case as it leaves.

    Attributes:
        number: Place in the draw, as its form says.
        category: What was done, as its form says.
        pseudonym: The token that stands for the patient.
        sections: What the form says.
        records: The resources beside it: type, and what each says in a line.
    """

    number: int
    category: str
    pseudonym: str
    sections: tuple[Section, ...]
    records: tuple[tuple[str, str], ...]


def resource_counts(body: bytes) -> list[tuple[str, int]]:
    """How many resources of each type a Bundle holds, the most frequent first."""
    return Counter(str(resource.get("resourceType")) for resource in _resources(body).values()).most_common()


def leaving_cases(body: bytes, questionnaire: Json, yes_no: Mapping[bool, str]) -> list[LeavingCase]:
    """The cases in a Bundle, by number.

    Args:
        body: The Bundle as it is sent.
        questionnaire: The form that its responses answer.
        yes_no: The words for true and false.
    """
    resources = _resources(body)
    beside: dict[str, list[tuple[str, str]]] = {}
    for resource in resources.values():
        kind = str(resource.get("resourceType"))
        if kind in {"Condition", "Encounter", "Procedure"}:
            beside.setdefault(_subject(resource), []).append((kind, _said(resource)))
    found = []
    for response in resources.values():
        if response.get("resourceType") != "QuestionnaireResponse" or _subject(response) not in resources:
            continue
        read = sections(questionnaire, response, yes_no)
        lines = {line.link_id: line.values[0] for section in read for line in section.lines}
        subject = _subject(response)
        patient = resources.get(subject, {})
        found.append(
            LeavingCase(
                int(lines.get("case.no", "0")), lines.get("proc.category", ""), _token(patient), read,
                (("Patient", str(patient.get("gender", ""))), *beside.get(subject, ())),
            )
        )  # fmt: skip
    return sorted(found, key=lambda case: case.number)


def leaving_standards(body: bytes, yes_no: Mapping[bool, str]) -> tuple[Section, ...]:
    """What the facility's self-assessment in a Bundle says, in the words of its own form; nothing where there is none.

    Args:
        body: The Bundle as it is sent.
        yes_no: The words for true and false.
    """
    resources = _resources(body)
    forms = {
        f"{form['url']}|{form.get('version', '')}": form
        for form in resources.values()
        if form.get("resourceType") == "Questionnaire"
    }
    for response in resources.values():
        if response.get("resourceType") == "QuestionnaireResponse" and not _subject(response):
            return sections(forms[response["questionnaire"]], response, yes_no)
    return ()


def _resources(body: bytes) -> dict[str, Json]:
    """Full URL to resource."""
    return {entry["fullUrl"]: entry["resource"] for entry in json.loads(body).get("entry", ())}


def _subject(resource: Json) -> str:
    return str(resource.get("subject", {}).get("reference", ""))


def _token(patient: Json) -> str:
    return str(next((one.get("value", "") for one in patient.get("identifier", ())), ""))


def _said(resource: Json) -> str:
    """A resource in a line: its codes, and the days that its extensions count."""
    codings = resource.get("code", {}).get("coding", ()) or [resource.get("class", {})]
    codes = [f"{one.get('code', '')} ({str(one.get('system', '')).rpartition('/')[2]})" for one in codings]
    days = [
        f"{extension['url'].rpartition('/')[2]} {extension['valueInteger']}"
        for extension in resource.get("extension", ())
        if "valueInteger" in extension
    ]
    return ", ".join([*codes, *days])
