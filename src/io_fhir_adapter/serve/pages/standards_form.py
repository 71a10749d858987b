"""The form of the standards self-assessment as a page shows it, and its answers put together with the evidence.

Evidence has a place of its own on the page: the form that LHC-Forms shows is the one without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.ledger.assessments import Evidence
from io_fhir_adapter.report.standards import questionnaire, requirements
from io_fhir_adapter.serve.pages.wording import Translate

__all__ = ["answers_alone", "asked_form", "documents", "names_of", "shown_form", "titles_of", "with_evidence"]

Json = dict[str, Any]
_EVIDENCE: Final = ".evidence"
_CONTROL: Final = "http://hl7.org/fhir/StructureDefinition/questionnaire-itemControl"
_CONTROLS: Final = "http://hl7.org/fhir/questionnaire-item-control"
_RADIO: Final = {
    "url": _CONTROL, "valueCodeableConcept": {"coding": [{"system": _CONTROLS, "code": "radio-button"}]},
}  # fmt: skip
_ACROSS: Final = {
    "url": "http://hl7.org/fhir/StructureDefinition/questionnaire-choiceOrientation", "valueCode": "horizontal",
}  # fmt: skip


def asked_form(programme: Programme) -> Json:
    """The form without evidence: what a draft answers.

    Raises:
        UsageError: The programme's data hold no standards.
    """
    return _without_evidence(questionnaire(programme))


def _without_evidence(node: Json) -> Json:
    if "item" not in node:
        return node
    kept = [_without_evidence(item) for item in node["item"] if not item["linkId"].endswith(_EVIDENCE)]
    return {**node, "item": kept}


def answers_alone(response: Mapping[str, Any]) -> Json:
    """A response without its evidence."""
    return _without_evidence(dict(response))


def with_evidence(programme: Programme, response: Mapping[str, Any], evidence: Iterable[Evidence]) -> Json:
    """The answers of a draft with the evidence named in the places that the whole form has for it."""
    answers: dict[str, Any] = {}

    def walk(node: Mapping[str, Any]) -> None:
        for item in node.get("item", ()):
            if "answer" in item:
                answers[item["linkId"]] = item["answer"]
            walk(item)

    walk(response)
    form = questionnaire(programme)
    head = {name: value for name, value in response.items() if name != "item"}
    return {**head, "item": _filled(form, answers, tuple(evidence))}


def _filled(asked: Json, answers: Mapping[str, Any], evidence: tuple[Evidence, ...]) -> list[Json]:
    made: list[Json] = []
    for item in asked.get("item", ()):
        link = item["linkId"]
        if link.endswith(_EVIDENCE):
            made += [
                {"linkId": link, "item": [
                    {"linkId": f"{link}.name", "answer": [{"valueString": one.name}]},
                    {"linkId": f"{link}.sha256", "answer": [{"valueString": one.sha256}]},
                ]}
                for one in evidence if f"{one.link_id}{_EVIDENCE}" == link
            ]  # fmt: skip
        elif item["type"] == "group":
            inner = _filled(item, answers, evidence)
            made += [{"linkId": link, "item": inner}] if inner else []
        elif link in answers:
            made.append({"linkId": link, "answer": answers[link]})
    return made


def shown_form(programme: Programme, t: Translate) -> Json:
    """The form without evidence in the words of a page; answers are chosen among buttons."""
    known = {one.link_id: one for one in requirements(programme)}
    names, titles = names_of(programme, t), titles_of(programme, t)

    def shown(node: Json) -> Json:
        made = dict(node)
        link = node.get("linkId", "")
        if link in titles:
            made["text"] = titles[link]
        elif link in known:
            made["text"] = names[link]
            del made["prefix"]  # the text says it
            made["extension"] = [_RADIO, _ACROSS]
            made["answerOption"] = [
                {"valueCoding": {**option["valueCoding"], "display": t(_answer_key(option))}}
                for option in node["answerOption"]
            ]
        if "item" in node:
            made["item"] = [shown(item) for item in node["item"]]
        return made

    return shown(asked_form(programme))


def _answer_key(option: Json) -> str:
    return f"standards.answers.{option['valueCoding']['code']}"


def titles_of(programme: Programme, t: Translate) -> dict[str, str]:
    """linkId of every section and standard to its number in words, with the title where the data have one."""
    document = programme.standards
    if document is None:
        return {}
    sections = {f"section-{one.id}": (t("standards.section", id=one.id), one.title) for one in document.sections}
    standards = {
        f"standard-{one.number}": (t("standards.standard", number=one.number), one.title) for one in document.standards
    }
    return {link: ": ".join(part for part in found if part) for link, found in (sections | standards).items()}


def names_of(programme: Programme, t: Translate) -> dict[str, str]:
    """linkId of every requirement to this project's neutral number for it, with the public letter."""
    counted: dict[tuple[int, str], int] = {}
    names = {}
    for one in requirements(programme):
        key = (one.standard, one.kind)
        counted[key] = counted.get(key, 0) + 1
        said = t(f"standards.item.{one.kind}", place=counted[key], letter=one.letter)
        names[one.link_id] = said if one.letter else t("standards.further")
    return names


def documents(programme: Programme, evidence: Iterable[Evidence]) -> Json:
    """The evidence as FHIR: a collection of DocumentReferences with metadata alone, for a body that asks for it."""
    form = questionnaire(programme)
    entries = [
        {
            "resource": {
                "resourceType": "DocumentReference",
                "status": "current",
                "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:sha256:{one.sha256}"}],
                **({"date": one.at} if one.at else {}),
                "description": one.link_id,
                "content": [{"attachment": {"title": one.name} | ({"size": one.size} if 0 < one.size < 2**31 else {})}],
                "context": {"related": [{"display": f"{form['url']}#{one.link_id}"}]},
            }
        }
        for one in evidence
    ]
    return {"resourceType": "Bundle", "type": "collection"} | ({"entry": entries} if entries else {})
