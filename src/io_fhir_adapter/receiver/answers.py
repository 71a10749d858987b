"""The answers of a submission's forms, held against the forms themselves and against the case that they are about.

A coded answer is one of the form's own options, word for word; a string is an option too, or the pseudonym of the case;
a quantity has one of the item's units. So no text that a person typed can come this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.canonical_urls import FACILITY_SYSTEM, PATIENT_TOKEN
from io_fhir_adapter.receiver.entries import of_kind, place_of
from io_fhir_adapter.receiver.published import canonical_of, is_altered, published_form
from io_fhir_adapter.receiver.wire import Issue
from io_fhir_adapter.trust.frame import case_pseudonym

__all__ = ["answer_issues", "case_issues", "definition_issues", "is_of_facility"]

Json = Mapping[str, Any]
Entries = list[dict[str, Any]]

_OF_A_CASE: Final = ("Procedure", "Condition", "Encounter")
_FITTING: Final = {"valueBoolean": "boolean", "valueInteger": "integer", "valueDecimal": "decimal"}


def is_of_facility(response: Json) -> bool:
    """Whether a QuestionnaireResponse is a facility's own, such as its self-assessment, and no case review."""
    return bool(response.get("subject", {}).get("identifier", {}).get("system") == FACILITY_SYSTEM)


def definition_issues(entries: Entries) -> Iterator[Issue]:
    """A form under the URL and version of a published one is that one, without a word more or less."""
    for index, entry in of_kind(entries, "Questionnaire"):
        if is_altered(entry["resource"]):
            yield Issue("business-rule", "is not the form published under this URL and version", place_of(index))


def case_issues(entries: Entries) -> Iterator[Issue]:
    """Everything of a case hangs on its patient, and is named after the patient's token."""
    tokens = {entry["fullUrl"]: _token(entry["resource"]) for _, entry in of_kind(entries, "Patient")}
    for kind in (*_OF_A_CASE, "QuestionnaireResponse"):
        for index, entry in of_kind(entries, kind):
            resource, place = entry["resource"], place_of(index)
            if kind == "QuestionnaireResponse" and is_of_facility(resource):
                continue
            token = tokens.get(resource.get("subject", {}).get("reference"))
            if token is None:
                yield Issue("business-rule", "belongs to no case of the submission", f"{place}.subject")
                continue
            given = resource.get("identifier", {})
            named = given if isinstance(given, dict) else given[0]
            ending = "review" if kind == "QuestionnaireResponse" else kind.lower()
            if f".{token}.{ending}" not in str(named.get("value")):
                yield Issue("business-rule", "is named after another case", f"{place}.identifier")


def _token(patient: Json) -> str:
    return next((str(one.get("value")) for one in patient["identifier"] if one.get("system") == PATIENT_TOKEN), "")


def answer_issues(entries: Entries, nonce: str, facility: str, *, texts: bool = False) -> Iterator[Issue]:
    """Answers that are none of their form's, or that hold more than the form's own words.

    Args:
        entries: Valid entries whose cases hold together.
        nonce: What was drawn with, in hexadecimal; empty where nothing was drawn.
        facility: Code of the facility that reports.
        texts: Whether texts that people typed are taken as answers of a case review.
    """
    forms = {canonical_of(entry["resource"]): entry["resource"] for _, entry in of_kind(entries, "Questionnaire")}
    tokens = {entry["fullUrl"]: _token(entry["resource"]) for _, entry in of_kind(entries, "Patient")}
    known: dict[str, Mapping[str, Json]] = {}
    for index, entry in of_kind(entries, "QuestionnaireResponse"):
        response, place = entry["resource"], place_of(index)
        name = str(response.get("questionnaire"))
        form = forms.get(name) or published_form(name)
        own = ""
        if is_of_facility(response):
            if response["subject"]["identifier"].get("value") != facility:
                yield Issue("business-rule", "is about another facility", f"{place}.subject.identifier")
        else:
            own = _pseudonym(nonce, tokens.get(response.get("subject", {}).get("reference"), ""))
        if form is None and response.get("item"):
            yield Issue("business-rule", "its form is not in the submission", f"{place}.questionnaire")
            continue
        asked = known.setdefault(name, dict(_items(form or {})))
        yield from _below(response, asked, _Open(own, texts and bool(own)), place)


def _pseudonym(nonce: str, token: str) -> str:
    try:
        return case_pseudonym(bytes.fromhex(nonce), token) if nonce and token else ""
    except ValueError:
        return ""


def _items(node: Json) -> Iterator[tuple[str, Json]]:
    for item in node.get("item", ()):
        yield str(item.get("linkId")), item
        yield from _items(item)


@dataclass(frozen=True, slots=True)
class _Open:
    """What an answer may be beside the form's options: the case's pseudonym, and texts where they are asked for."""

    own: str
    texts: bool


def _below(node: Json, asked: Mapping[str, Json], beside: _Open, place: str) -> Iterator[Issue]:
    seen: set[str] = set()
    for n, item in enumerate(node.get("item", ())):
        here = f"{place}.item[{n}]"
        question = asked.get(item.get("linkId", ""))
        if question is None:
            yield Issue("business-rule", "the form has no such item", f"{here}.linkId")
            continue
        if item["linkId"] in seen and not question.get("repeats"):
            yield Issue("business-rule", "the form asks this once", f"{here}.linkId")
        seen.add(item["linkId"])
        for a, answer in enumerate(item.get("answer", ())):
            kind = next((name for name in answer if name.startswith("value")), "")
            if kind and not _is_offered(question, kind, answer[kind], beside):
                yield Issue(
                    "business-rule", "is none of the answers that the form offers", f"{here}.answer[{a}].{kind}"
                )
            yield from _below(answer, asked, beside, f"{here}.answer[{a}]")
        yield from _below(item, asked, beside, here)


def _is_offered(question: Json, kind: str, value: Any, beside: _Open) -> bool:
    if value in [option[kind] for option in question.get("answerOption", ()) if kind in option]:
        return True
    if kind == "valueString":
        typed = beside.texts and question.get("type") in ("string", "text", "open-choice")
        return typed or (bool(beside.own) and value == beside.own)
    if kind == "valueQuantity":
        said = {"display": value.get("unit"), "system": value.get("system"), "code": value.get("code")}
        units = [one["valueCoding"] for one in question.get("extension", ()) if "valueCoding" in one]
        return any(all(unit.get(name) == part for name, part in said.items()) for unit in units)
    return kind in _FITTING and _FITTING[kind] == question.get("type")
