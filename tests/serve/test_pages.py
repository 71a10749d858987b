"""What the case pages show of a form, of a reason and of a sealed Bundle."""

from __future__ import annotations

import json

import pytest

from io_fhir_adapter.fhir.forms import sections
from io_fhir_adapter.review.forms import load_questionnaire
from io_fhir_adapter.serve.language import LANGUAGES, texts, translator
from io_fhir_adapter.serve.pages.forms import for_display
from io_fhir_adapter.serve.pages.leaving import leaving_cases, resource_counts
from io_fhir_adapter.serve.pages.wording import day_in, reason_in

YES_NO = {True: "yes", False: "no"}
FORM = {
    "resourceType": "Questionnaire",
    "item": [
        {"linkId": "head", "type": "group", "text": "Head", "item": [
            {"linkId": "case.no", "type": "integer", "text": "Number", "readOnly": True},
            {"linkId": "dose", "type": "quantity", "text": "Dose"},
            {"linkId": "dead", "type": "boolean", "text": "Dead"},
            {"linkId": "kind", "type": "choice", "text": "Kind", "repeats": True},
        ]},
        {"linkId": "empty", "type": "group", "text": "Empty", "item": [{"linkId": "say", "type": "text"}]},
    ],
}  # fmt: skip
RESPONSE = {
    "resourceType": "QuestionnaireResponse",
    "subject": {"reference": "urn:uuid:p"},
    "item": [{"linkId": "head", "item": [
        {"linkId": "case.no", "answer": [{"valueInteger": 7}]},
        {"linkId": "dose", "answer": [{"valueQuantity": {"value": 90, "unit": "mL"}}]},
        {"linkId": "dead", "answer": [{"valueBoolean": False}]},
        {"linkId": "kind", "answer": [{"valueCoding": {"display": "One"}}, {"valueCoding": {"code": "two"}}]},
    ]}],
}  # fmt: skip


def test_the_browser_gets_the_form_without_what_fills_it() -> None:
    form = load_questionnaire()
    shown = json.dumps(for_display(form))
    assert "initialExpression" in json.dumps(form)
    assert [word for word in ("initialExpression", "x-fhir-query", "launchContext", "%patient") if word in shown] == []
    assert "answerOptionsToggleExpression" in shown


def test_a_form_is_read_in_its_own_words() -> None:
    (section,) = sections(FORM, RESPONSE, YES_NO)
    assert section.title == "Head"
    assert [(line.text, line.values) for line in section.lines] == [
        ("Number", ("7",)), ("Dose", ("90 mL",)), ("Dead", ("no",)), ("Kind", ("One", "two")),
    ]  # fmt: skip


def test_a_bundle_is_read_by_case() -> None:
    entries = [
        {"fullUrl": "urn:uuid:p", "resource": {"resourceType": "Patient", "gender": "male",
                                               "identifier": [{"value": "token"}]}},
        {"fullUrl": "urn:uuid:q", "resource": RESPONSE},
        {"fullUrl": "urn:uuid:c", "resource": {
            "resourceType": "Condition", "subject": {"reference": "urn:uuid:p"},
            "code": {"coding": [{"code": "C22", "system": "http://hl7.org/fhir/sid/icd-10"}]}}},
    ]  # fmt: skip
    body = json.dumps({"entry": entries}).encode()
    (case,) = leaving_cases(body, FORM, YES_NO)
    assert (case.number, case.pseudonym) == (7, "token")
    assert case.records == (("Patient", "male"), ("Condition", "C22 (icd-10)"))
    assert dict(resource_counts(body)) == {"Patient": 1, "QuestionnaireResponse": 1, "Condition": 1}


@pytest.mark.parametrize(
    ("reason", "german"),
    [
        ("not recorded", "nicht dokumentiert"),
        ("not offered by this source: Consent, Observation", "von dieser Quelle nicht angeboten: Consent, Observation"),
        ("not recorded; refused by this source: Consent", "nicht dokumentiert; von dieser Quelle verweigert: Consent"),
        ("a reason of tomorrow", "a reason of tomorrow"),
        ("", ""),
    ],
)
def test_reasons_are_said_in_the_language_of_the_page(reason: str, german: str) -> None:
    assert reason_in(translator("de"), reason) == german


def test_every_text_is_there_in_every_language() -> None:
    keys = [set(texts(language)) for language in LANGUAGES]
    assert all(found == keys[0] for found in keys)
    assert (day_in("de", "2026-01-30"), day_in("en", "2026-01-30")) == ("30.01.2026", "30 January 2026")
