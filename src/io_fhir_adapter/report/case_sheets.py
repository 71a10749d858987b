"""The case-review sheets of a sealed submission: each form in its own order, as it would leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.canonical_urls import ABSENCE_OF, AGE_BAND, GENERALISED, PATIENT_TOKEN

__all__ = ["CaseSheet", "Section", "case_sheets"]

Json = Mapping[str, Any]

_COARSER: Final = {
    "widen-age": "wider age band",
    "drop-age": "no age",
    "drop-quarter": "no quarter",
    "drop-sex": "no sex",
    "drop-tumour-group": "no tumour group",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the form with its questions in order: linkId, text, and answer, empty where there is none."""

    title: str
    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class CaseSheet:
    """One case as it would leave: ``coarser`` says what was made less exact, so that others look alike."""

    number: int
    token: str
    age: str
    sex: str
    coarser: tuple[str, ...]
    sections: tuple[Section, ...]


def case_sheets(kinds: Mapping[str, Sequence[Json]]) -> Iterator[CaseSheet]:
    """The sheets in drawn order; other forms of the submission, which are of no patient, are left out.

    Args:
        kinds: Resource type to the Bundle's resources of it, each with its full URL under ``_``.
    """
    given = [one for one in kinds.get("QuestionnaireResponse", ()) if "reference" in one.get("subject", {})]
    if not given:
        return
    forms = {f"{form['url']}|{form.get('version', '')}": form for form in kinds["Questionnaire"]}
    form = forms[given[0]["questionnaire"]]
    patients = {patient["_"]: patient for patient in kinds.get("Patient", ())}
    order = {
        entry["item"].get("reference"): place
        for drawn in kinds.get("List", ())
        for place, entry in enumerate(drawn.get("entry", ()), start=1)
    }
    responses = sorted(given, key=lambda one: order[one["subject"]["reference"]])
    for number, response in enumerate(responses, start=1):
        patient = patients[response["subject"]["reference"]]
        answers = _answers(response)
        said = answers.get("case.no", [""])[0]
        tags = response.get("meta", {}).get("tag", ())
        yield CaseSheet(
            number=int(said) if said.isdigit() else number,
            token=next(i["value"] for i in patient["identifier"] if i["system"] == PATIENT_TOKEN),
            age=next((str(e.get("valueCode", "")) for e in patient.get("extension", ()) if e["url"] == AGE_BAND), ""),
            sex=str(patient.get("gender", "")),
            coarser=tuple(
                _COARSER.get(str(tag["code"]), str(tag["code"])) for tag in tags if tag.get("system") == GENERALISED
            ),
            sections=tuple(_sections(form, answers)),
        )


def _sections(form: Json, answers: Mapping[str, list[str]]) -> Iterator[Section]:
    """The form's outermost groups; a question's reason for having no answer stands in the answer's place."""
    absent = {
        str(extension["valueString"]): answers[item["linkId"]]
        for item in _below(form)
        for extension in item.get("extension", ())
        if extension["url"] == ABSENCE_OF and item["linkId"] in answers
    }

    def said(link: str) -> str:
        return ", ".join(answers.get(link, absent.get(link, [])))

    for group in form["item"]:
        inside = _below(group) if group["type"] == "group" else iter([group])
        asked = (
            item
            for item in inside
            if item["type"] not in ("group", "display")
            and not any(extension["url"] == ABSENCE_OF for extension in item.get("extension", ()))
        )
        rows = tuple((link, str(item.get("text", "")), said(link)) for item in asked if (link := item["linkId"]))
        if rows:
            yield Section(str(group.get("text", "")), rows)


def _below(node: Json) -> Iterator[Json]:
    for item in node.get("item", ()):
        yield item
        yield from _below(item)


def _answers(response: Json) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def walk(node: Json) -> None:
        for item in node.get("item", ()):
            for answer in item.get("answer", ()):
                found.setdefault(item["linkId"], []).append(_shown(answer))
                walk(answer)
            walk(item)

    walk(response)
    return found


def _shown(answer: Json) -> str:
    value = next((value for name, value in answer.items() if name.startswith("value")), "")
    if isinstance(value, Mapping):
        if "value" in value:
            return f"{value['value']} {value.get('unit') or value.get('code') or ''}".strip()
        return str(value.get("display") or value.get("code") or "")
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return str(value).replace("-", "\N{MINUS SIGN}") if isinstance(value, int | float) else str(value)
