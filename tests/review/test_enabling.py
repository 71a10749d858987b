"""Which items a form asks: SDC's enableWhenExpression beside enableWhen, on the answers alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.completing import accept, completeness
from io_fhir_adapter.serve.pages.forms import for_display

SMOKES = "%resource.item.where(linkId = 'smoker').answer.value = true"
SCORE = "%resource.item.where(linkId = 'score').answer.value"


def expression(url: str, text: str, language: str = "text/fhirpath") -> dict[str, Any]:
    return {"url": url, "valueExpression": {"language": language, "expression": text}}


def form(condition: dict[str, Any], *variables: tuple[str, str]) -> dict[str, Any]:
    """A form of a smoker's question, a score, and one more question under a condition."""
    more = {"linkId": "more", "type": "integer", "text": "How many", "extension": [condition]}
    questionnaire = {
        "resourceType": "Questionnaire",
        "url": "https://body.example/Questionnaire/own",
        "version": "1",
        "extension": [
            {"url": forms.VARIABLE, "valueExpression": {"name": name, "language": "text/fhirpath", "expression": text}}
            for name, text in variables
        ],
        "item": [
            {"linkId": "smoker", "type": "boolean", "text": "Smokes"},
            {"linkId": "score", "type": "integer", "text": "Score"},
            more,
        ],
    }
    return forms.parse_questionnaire(json.dumps(questionnaire).encode(), "own.json")


def response(**answers: Any) -> dict[str, Any]:
    kinds = {bool: "valueBoolean", int: "valueInteger"}
    items = [{"linkId": link, "answer": [{kinds[type(value)]: value}]} for link, value in answers.items()]
    return {"resourceType": "QuestionnaireResponse", "item": items}


def taken(questionnaire: dict[str, Any], **answers: Any) -> set[str]:
    made = accept(questionnaire, response(**answers), {"resourceType": "QuestionnaireResponse"})
    return {item["linkId"] for item in made.get("item", ())}


def asked(questionnaire: dict[str, Any], **answers: Any) -> set[str]:
    return {item.link_id for item in completeness(questionnaire, response(**answers))}


def test_an_item_is_asked_only_where_its_expression_holds() -> None:
    own = form(expression(forms.ENABLE_WHEN_EXPRESSION, SMOKES))
    assert asked(own, smoker=True, score=1) == {"more"}
    assert asked(own, smoker=False, score=1) == set()
    assert asked(own) == {"smoker", "score"}
    assert taken(own, smoker=True, more=20) == {"smoker", "more"}
    assert taken(own, smoker=False, more=20) == {"smoker"}


def test_an_expression_reads_variables_that_go_by_the_answers() -> None:
    own = form(expression(forms.ENABLE_WHEN_EXPRESSION, "%total > 3"), ("total", SCORE))
    assert asked(own, smoker=True, score=4) == {"more"}
    assert asked(own, smoker=True, score=3) == set()


@pytest.mark.parametrize(
    ("text", "variable"),
    [("%resource.item.answer.value.single() > 1", "1"), ("%one > 1", "%resource.item.answer.value.single().nothing()")],
)
def test_an_answer_is_kept_and_none_demanded_where_an_expression_cannot_be_evaluated(text: str, variable: str) -> None:
    own = form(expression(forms.ENABLE_WHEN_EXPRESSION, text), ("one", variable))
    assert asked(own, smoker=True, score=4) == set()
    assert taken(own, smoker=True, score=4, more=1) == {"smoker", "score", "more"}


def test_the_browser_is_given_the_expressions_that_go_by_the_answers_and_no_others() -> None:
    own = form(expression(forms.ENABLE_WHEN_EXPRESSION, "%total > 3"), ("total", SCORE), ("born", "%patient.birthDate"))
    shown = for_display(own)
    assert [one["valueExpression"]["name"] for one in shown["extension"]] == ["total"]
    assert shown["item"][2]["extension"] == own["item"][2]["extension"]


@pytest.mark.parametrize("url", [forms.ENABLE_WHEN_EXPRESSION, forms.CALCULATED_EXPRESSION])
@pytest.mark.parametrize(
    ("text", "language", "number"),
    [
        ("%patient.gender = 'male'", "text/fhirpath", 49),
        ("%born > 1950", "text/fhirpath", 49),
        ("%resource.item.where(", "text/fhirpath", 40),
        ("Patient?gender=male", "application/x-fhir-query", 48),
    ],
)
def test_a_form_whose_expressions_could_not_work_is_refused(url: str, text: str, language: str, number: int) -> None:
    with pytest.raises(MappingError) as refused:
        form(expression(url, text, language), ("born", "%patient.birthDate"))
    assert refused.value.code.endswith(f"{number:02d}")
    assert "item more" in str(refused.value.where)
