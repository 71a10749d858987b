from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.questionnaire import Questionnaire

from io_fhir_adapter.canonical_urls import (
    ABSENCE_OF,
    BASE,
    CASE_REVIEW_ANSWERS,
    CASE_REVIEW_QUESTIONNAIRE,
    CATEGORY_CODES,
)
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.generalise import AGE_BANDS
from io_fhir_adapter.shipped import shipped_path

LINK_TEXT = """
case.no case.pseudonym case.age-band case.sex proc.category proc.counts proc.quarter proc.setting
proc.site proc.guidance dx.tumour dx.histology dx.stage dx.ecog plan.referral plan.mdt plan.intent
plan.prior plan.clinic plan.imaging plan.labs plan.antithrombotic plan.allergy consent.signed
consent.risks safe.checklist-in safe.checklist-out deliv.operator deliv.anaesthesia deliv.device
deliv.drug deliv.contrast rad.dap rad.fluoro rad.dlp out.technical out.report out.postcare out.stay
out.unplanned ae.any ae.system ae.grade ae.discussed ae.death30 fu.imaging fu.response fu.visit
fu.letter fu.plan trial.any rev.complete rev.action rev.role
"""
LINKS = LINK_TEXT.split()
TYPES = {
    "integer": ["case.no", "plan.imaging", "out.report", "out.stay", "fu.imaging"],
    "boolean": ["proc.counts", "ae.death30"],
    "quantity": ["deliv.drug", "deliv.contrast", "rad.dap", "rad.fluoro", "rad.dlp"],
    "string": ["case.pseudonym"],
    "text": ["rev.action"],
}
REPEATING = {"proc.guidance", "plan.prior", "out.unplanned"}


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    return forms.load_questionnaire()


@pytest.fixture(scope="module")
def by_link(form: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["linkId"]: item for item in forms.items(form)}


def codes(item: dict[str, Any]) -> list[str]:
    return [option["valueCoding"]["code"] for option in item["answerOption"]]


def test_the_shipped_form_is_a_valid_draft_marked_as_a_proposal(form: dict[str, Any]) -> None:
    Questionnaire.model_validate(form)
    assert forms.canonical(form) == f"{CASE_REVIEW_QUESTIONNAIRE}|{form['version']}"
    assert (form["status"], form["experimental"]) == ("draft", True)
    assert "proposal" in form["title"]
    assert "own proposal" in form["description"]


def test_it_asks_everything_and_says_of_which_type(by_link: dict[str, dict[str, Any]]) -> None:
    assert set(LINKS) <= set(by_link)
    kind = {link: name for name, links in TYPES.items() for link in links}
    assert {link: by_link[link]["type"] for link in LINKS} == {link: kind.get(link, "choice") for link in LINKS}
    assert {link for link in LINKS if by_link[link].get("repeats")} == REPEATING


def test_it_has_a_header_and_four_groups(form: dict[str, Any]) -> None:
    groups = [item["linkId"] for item in form["item"]]
    assert groups == ["header", "before", "delivery", "outcome", "conclusion"]
    assert {item["type"] for item in form["item"]} == {"group"}


def test_every_clinical_item_accepts_not_documented_and_not_applicable(by_link: dict[str, dict[str, Any]]) -> None:
    administrative = {"proc.category", "proc.counts", "proc.quarter"}
    for link in LINKS:
        if link.startswith(("case.", "rev.")) or link in administrative:
            continue
        answers = by_link[link if by_link[link]["type"] == "choice" else f"{link}.absent"]
        assert {"not-documented", "not-applicable"} <= set(codes(answers)), link


def test_every_option_is_of_a_known_system_with_a_display_and_one_meaning(form: dict[str, Any]) -> None:
    meanings: dict[tuple[str, str], str] = {}
    for item in forms.questions(form):
        for option in item.get("answerOption", ()):
            coding = option["valueCoding"]
            assert coding["system"] in {
                CASE_REVIEW_ANSWERS,
                CATEGORY_CODES,
                "http://hl7.org/fhir/administrative-gender",
            }
            key = (coding["system"], coding["code"])
            assert meanings.setdefault(key, coding["display"]) == coding["display"], key


def test_categories_and_age_bands_are_those_of_the_project(by_link: dict[str, dict[str, Any]]) -> None:
    with shipped_path("mappings", "categories.csv").open(encoding="utf-8", newline="") as file:
        categories = {row["code"]: row["title"] for row in csv.DictReader(file)}
    options = by_link["proc.category"]["answerOption"]
    assert {option["valueCoding"]["code"]: option["valueCoding"]["display"] for option in options} == categories
    assert codes(by_link["case.age-band"]) == list(AGE_BANDS)


def test_grades_carry_their_scale_and_no_definition(by_link: dict[str, dict[str, Any]]) -> None:
    grades = codes(by_link["ae.grade"])
    cirse = [code.removeprefix("cirse-") for code in grades if code.startswith("cirse-")]
    assert cirse == ["1", "1a", "1b", "2", "3", "3a", "3b", "4", "5", "6"]
    toggled = {
        part["valueCoding"]["code"]
        for extension in by_link["ae.grade"]["extension"]
        if extension["url"].endswith("answerOptionsToggleExpression")
        for part in extension["extension"]
        if part["url"] == "option"
    }
    assert toggled == set(grades) - {"not-documented", "not-applicable"}


def test_own_urls_have_one_base(form: dict[str, Any]) -> None:
    assert ABSENCE_OF.startswith(BASE)
    text = json.dumps(form)
    assert text.count("io-fhir-adapter.example") == text.count(BASE)


@pytest.mark.parametrize(
    ("answers", "shown"),
    [
        ({}, False),
        ({"ae.any": [{"system": CASE_REVIEW_ANSWERS, "code": "no"}]}, False),
        ({"ae.any": [{"system": "urn:other", "code": "yes"}]}, False),
        ({"ae.any": [{"system": CASE_REVIEW_ANSWERS, "code": "yes", "display": "Ja"}]}, True),
    ],
)
def test_questions_about_an_event_open_only_where_there_was_one(
    by_link: dict[str, dict[str, Any]], answers: dict[str, list[Any]], shown: bool
) -> None:
    assert forms.enabled(by_link["ae.system"], answers) is shown
    assert forms.enabled(by_link["ae.discussed"], answers) is shown
    assert forms.enabled(by_link["ae.grade"], answers) is False
    assert forms.enabled(by_link["ae.grade"], {**answers, "ae.system": [{"code": "cirse-2017"}]}) is shown


@pytest.mark.parametrize(
    ("operator", "expected", "value", "shown"),
    [
        ("exists", {"answerBoolean": True}, 1, True),
        ("exists", {"answerBoolean": False}, 1, False),
        ("=", {"answerInteger": 3}, 3, True),
        ("!=", {"answerInteger": 3}, 3, False),
        (">", {"answerInteger": 3}, 4, True),
        ("<", {"answerInteger": 3}, 4, False),
        (">=", {"answerInteger": 4}, 4, True),
        ("<=", {"answerInteger": 4}, 5, False),
        ("=", {"answerString": "3"}, 3, False),
    ],
)
def test_enable_when_operators(operator: str, expected: dict[str, Any], value: Any, shown: bool) -> None:
    item = {"linkId": "b", "enableWhen": [{"question": "a", "operator": operator, **expected}]}
    assert forms.enabled(item, {"a": [value]}) is shown


def test_any_and_all_behaviour() -> None:
    conditions = [{"question": link, "operator": "=", "answerBoolean": True} for link in ("a", "b")]
    for behaviour, shown in (("any", True), ("all", False)):
        item = {"enableWhen": conditions, "enableBehavior": behaviour}
        assert forms.enabled(item, {"a": [True], "b": [False]}) is shown


def test_option_for_gives_the_forms_own_coding(by_link: dict[str, dict[str, Any]]) -> None:
    assert forms.option_for(by_link["proc.setting"], "inpatient") == {
        "system": CASE_REVIEW_ANSWERS,
        "code": "inpatient",
        "display": "Inpatient",
    }
    assert forms.option_for(by_link["proc.setting"], "inpatient", "urn:other") is None
    assert forms.option_for(by_link["proc.setting"], "IMP") is None


def test_public_words_hold_displays_whole_and_word_by_word(form: dict[str, Any]) -> None:
    words = forms.public_words(form)
    assert {"day case", "day", "inpatient", "case.no"} <= words


def test_a_body_may_bring_its_own_form(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    own = {"resourceType": "Questionnaire", "url": "urn:x", "version": "1", "item": [{"linkId": "1", "type": "string"}]}
    path.write_text(json.dumps(own), encoding="utf-8")
    assert forms.load_questionnaire(path) == own


def _set_expression(form: dict[str, Any], text: str) -> None:
    form["item"][0]["extension"] = [
        {"url": forms.INITIAL_EXPRESSION, "valueExpression": {"language": "text/fhirpath", "expression": text}}
    ]


CODES = [{"code": "a", "display": "first"}, {"code": "b"}]
LISTED: dict[str, dict[str, Any]] = {
    "a list": {"compose": {"include": [{"system": "urn:s", "concept": CODES}]}},
    "an expansion": {
        "compose": {"include": [{"system": "urn:s", "filter": [{"property": "x", "op": "=", "value": "y"}]}]},
        "expansion": {"contains": [
            {"system": "urn:s", "code": "a", "display": "first"},
            {"system": "urn:s", "abstract": True, "code": "g", "contains": [{"system": "urn:s", "code": "b"}]},
        ]},
    },
}  # fmt: skip


def choosing(value_set: str) -> dict[str, Any]:
    inner = {"linkId": "1.1", "type": "choice", "answerValueSet": value_set}
    return {
        "resourceType": "Questionnaire", "url": "urn:x", "version": "1",
        "item": [{"linkId": "1", "type": "group", "item": [inner]}],
    }  # fmt: skip


@pytest.mark.parametrize("kind", LISTED)
def test_answers_of_a_value_set_at_hand_become_options(kind: str) -> None:
    value_set = {"resourceType": "ValueSet", "id": "v", "url": "urn:v", "version": "2", **LISTED[kind]}
    containing = {**choosing("#v"), "contained": [value_set]}
    packed = [
        {"resourceType": "Bundle", "entry": [{"resource": value_set}, {"resource": choosing(name)}]}
        for name in ("urn:v", "urn:v|2")
    ]
    for document in (containing, *packed):
        form = forms.parse_questionnaire(json.dumps(document).encode(), "own.json")
        (item,) = forms.questions(form)
        assert "answerValueSet" not in item
        assert forms.option_for(item, "a") == {"system": "urn:s", "code": "a", "display": "first"}
        assert forms.option_for(item, "b", "urn:s") == {"system": "urn:s", "code": "b"}
        assert forms.option_for(item, "g") is None


@pytest.mark.parametrize(
    "value_set",
    [
        {"compose": {"include": [{"system": "urn:s"}]}},
        {"compose": {"include": [{"system": "urn:s", "concept": CODES}, {"valueSet": ["urn:other"]}]}},
        {"compose": {"include": [{"system": "urn:s", "concept": CODES}], "exclude": [{"system": "urn:s"}]}},
        {"expansion": {"contains": []}},
        {"expansion": {"contains": ["a", {"contains": "b"}]}},
        {"compose": {"include": ["urn:s", {"system": "urn:s", "concept": ["a", 1]}]}},
    ],
)
def test_a_value_set_that_does_not_list_its_answers_is_none(value_set: dict[str, Any]) -> None:
    form = {**choosing("#v"), "contained": [{"resourceType": "ValueSet", "id": "v", **value_set}]}
    with pytest.raises(MappingError, match=r"item 1\.1"):
        forms.parse_questionnaire(json.dumps(form).encode(), "own.json")


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "other type": lambda form: form.update(resourceType="Patient"),
    "no version": lambda form: form.pop("version"),
    "no items": lambda form: form.update(item=[]),
    "repeated link": lambda form: form["item"].append({"linkId": "1", "type": "string"}),
    "no link": lambda form: form["item"].append({"type": "string"}),
    "unknown question": lambda form: form["item"][0].update(enableWhen=[{"question": "2", "operator": "exists"}]),
    "unknown operator": lambda form: form["item"][0].update(enableWhen=[{"question": "1", "operator": "~"}]),
    "a choice without options": lambda form: form["item"].append({"linkId": "2", "type": "choice"}),
    "a choice from a ValueSet": lambda form: form["item"].append(
        {"linkId": "2", "type": "choice", "answerValueSet": "http://hl7.org/fhir/ValueSet/administrative-gender"}
    ),
    "unfinished FHIRPath": lambda form: _set_expression(form, "iif("),
    "FHIRPath with a tail": lambda form: _set_expression(form, "%patient.gender and so on"),
    "doubled operator": lambda form: _set_expression(form, "a = = b"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_form_that_cannot_work_is_refused_with_its_file(tmp_path: Path, wrong: str) -> None:
    own: dict[str, Any] = {
        "resourceType": "Questionnaire",
        "url": "urn:x",
        "version": "1",
        "item": [{"linkId": "1", "type": "string"}],
    }
    WRONG[wrong](own)
    path = tmp_path / "own.json"
    path.write_text(json.dumps(own), encoding="utf-8")
    with pytest.raises(MappingError, match=r"own\.json"):
        forms.load_questionnaire(path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null"])
def test_what_is_no_questionnaire_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(content)
    with pytest.raises(MappingError):
        forms.load_questionnaire(path)
    with pytest.raises(MappingError):
        forms.load_questionnaire(tmp_path / "absent.json")
