"""The form in German: every word is there, it is shown and nothing else, and answers leave in the form's own words."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from io_fhir_adapter.fhir.form_words import category_title, form_in, form_words, response_in
from io_fhir_adapter.fhir.forms import sections
from io_fhir_adapter.review.completing import accept, completeness
from io_fhir_adapter.review.forms import items, load_questionnaire, public_words

FORM = load_questionnaire()
TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"
SITE = next(item for item in items(FORM) if item["linkId"] == "proc.site")["answerOption"][0]["valueCoding"]
EMPTY = {"resourceType": "QuestionnaireResponse", "item": []}


def options(form: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        item["linkId"]: {option["valueCoding"]["code"]: option["valueCoding"]["display"] for option in found}
        for item in items(form)
        if (found := item.get("answerOption"))
    }


def translation(language: str, content: str) -> dict[str, Any]:
    parts = [{"url": "lang", "valueCode": language}, {"url": "content", "valueString": content}]
    return {"extension": [{"url": TRANSLATION, "extension": parts}]}


def test_german_covers_the_shipped_form_and_names_nothing_else() -> None:
    words = form_words("de")
    assert words is not None
    assert (words.url, words.version) == (FORM["url"], FORM["version"])
    assert set(words.items) == {item["linkId"] for item in items(FORM)}
    asked = options(FORM)
    assert {link: sorted(set(codes) - set(asked[link])) for link, codes in words.options.items()} == {
        link: [] for link in words.options
    }
    assert [(link, code) for link, codes in asked.items() for code in codes if not words.option(link, code)] == []
    taken = {code for link, codes in asked.items() for code in codes if code not in words.options.get(link, {})}
    assert set(words.common) == taken
    said = [*words.items.values(), *words.common.values(), *(one for found in words.options.values() for one in
                                                             found.values())]  # fmt: skip
    assert all(isinstance(text, str) and text.strip() == text and text for text in said)
    for link, codes in options(form_in(FORM, "de")).items():
        assert len(set(codes.values())) == len(codes), link


def test_the_form_itself_stays_as_it_is() -> None:
    before = copy.deepcopy(FORM)
    shown = form_in(FORM, "de")
    assert before == FORM
    assert form_in(FORM, "en") == FORM
    assert next(item["text"] for item in items(shown) if item["linkId"] == "rad.dap") == "Dosisflächenprodukt"
    assert not {"dosisflächenprodukt", "durchleuchtungszeit", "leber"} & public_words(FORM)


def test_what_is_filled_in_german_leaves_in_the_forms_own_words() -> None:
    shown = form_in(FORM, "de")
    posted: dict[str, Any] = {"resourceType": "QuestionnaireResponse", "item": []}
    for group in shown["item"]:
        asked = [item for item in group["item"] if item["type"] == "choice" and "enableWhen" not in item]
        posted["item"].append({"linkId": group["linkId"], "text": group["text"], "item": [
            {"linkId": item["linkId"], "text": item["text"], "answer": [item["answerOption"][0]]} for item in asked
        ]})  # fmt: skip
    taken = accept(FORM, posted, EMPTY)
    own = options(FORM)
    answers = [(item["linkId"], answer["valueCoding"]) for item in items(taken) for answer in item.get("answer", ())]
    assert len(answers) > 30
    assert [one for link, one in answers if one["display"] != own[link][one["code"]]] == []
    assert "Nicht " not in json.dumps(taken)
    german = response_in(shown, taken)
    assert accept(FORM, german, EMPTY) == taken
    read = {line.link_id: line for section in sections(shown, taken, {}) for line in section.lines}
    assert read["proc.category"].values == ("Radiofrequenzablation",)
    assert next(item for item in items(german) if item["linkId"] == "proc.site")["answer"] == [
        {"valueCoding": {**SITE, "display": "Leber"}}
    ]


def test_open_questions_are_named_in_german() -> None:
    found = {one.link_id: one for one in completeness(form_in(FORM, "de"), EMPTY)}
    assert [one.link_id for one in completeness(FORM, EMPTY)] == list(found)
    assert (found["plan.intent"].text, found["plan.intent"].group) == ("Therapieziel", "Vor der Prozedur")


@pytest.mark.parametrize("changed", [{"version": "9"}, {"url": "https://body.example/fhir/Questionnaire/own"}])
def test_another_form_is_not_given_our_words(changed: dict[str, str]) -> None:
    other = {**FORM, **changed}
    assert form_in(other, "de") == other


def test_a_bodys_own_form_is_shown_in_its_own_translation() -> None:
    form = {"resourceType": "Questionnaire", "url": "https://body.example/q", "version": "1", "item": [
        {"linkId": "a", "type": "choice", "text": "Side", "_text": translation("de-DE", "Seite"), "answerOption": [
            {"valueCoding": {"code": "l", "display": "Left", "_display": translation("de", "Links")}},
            {"valueCoding": {"code": "r", "display": "Right", "_display": translation("fr", "Droite")}},
            {"valueCoding": {"display": "Both", "_display": translation("de", "Beide")}},
        ]},
    ]}  # fmt: skip
    (item,) = form_in(form, "de")["item"]
    assert item["text"] == "Seite"
    # an option without a code is known by its display, which is what comes back
    assert [option["valueCoding"]["display"] for option in item["answerOption"]] == ["Links", "Right", "Both"]
    assert form_in(form, "en") == form


def test_categories_have_german_titles() -> None:
    assert category_title("tace", "Transarterial chemoembolisation", "de") == "Transarterielle Chemoembolisation"
    assert category_title("tace", "Transarterial chemoembolisation", "en") == "Transarterial chemoembolisation"
    assert category_title("of-a-site", "A site's own", "de") == "A site's own"
