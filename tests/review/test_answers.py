from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from io_fhir_adapter.review.answers import Released, release_answers, text_digest
from io_fhir_adapter.review.forms import load_questionnaire
from io_fhir_adapter.review.leaks import LeakScanner
from io_fhir_adapter.review.profile import AnswerRule, load_profile

FORM = load_questionnaire()
RULE = load_profile().answers
ASKING = msgspec.structs.replace(RULE, text="ask")
SCANNER = LeakScanner(["Eisenbart"])
SEX = "http://hl7.org/fhir/administrative-gender"
TEXT = "Send the report sooner."


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "QuestionnaireResponse",
        "id": "local-7",
        "identifier": {"system": "urn:case", "value": "case-name"},
        "questionnaire": "https://x.example/form|1",
        "status": "completed",
        "subject": {"reference": "Patient/t"},
        "item": [{"linkId": "header", "item": list(items)}],
        **more,
    }


def released(*items: dict[str, Any], rule: AnswerRule = RULE, approved: tuple[str, ...] = ()) -> Released:
    return release_answers(response(*items), FORM, rule, SCANNER, approved)


def answers(made: Released) -> list[Any]:
    return [item for group in made.response.get("item", ()) for item in group["item"]]


def test_the_shipped_profile_keeps_texts_local() -> None:
    assert RULE.text == "local"


def test_only_elements_that_the_profile_names_leave() -> None:
    made = release_answers(
        response(
            author={"reference": "Practitioner/1"}, authored="2026-01-01", text={"div": "x"}, extension=[{"url": "x"}]
        ),
        FORM, RULE, SCANNER,
    ).response  # fmt: skip
    assert set(made) == {"resourceType", "identifier", "questionnaire", "status", "subject"}


def test_codings_are_the_forms_own_options_with_its_displays() -> None:
    code = next(item for item in _items(FORM) if item["linkId"] == "case.sex")["answerOption"][1]["valueCoding"]
    typed = {**code, "display": "Herr Eisenbart", "userSelected": True}
    foreign = {"system": "urn:other", "code": code["code"]}
    made = released(
        {"linkId": "case.sex", "text": "Eisenbart", "answer": [{"valueCoding": typed}]},
        {"linkId": "proc.setting", "answer": [{"valueCoding": foreign}]},
        {"linkId": "not.in.form", "answer": [{"valueBoolean": True}]},
    )
    assert answers(made) == [{"linkId": "case.sex", "answer": [{"valueCoding": code}]}]


def test_numbers_and_units_leave_and_other_kinds_do_not() -> None:
    unit = {"system": "http://unitsofmeasure.org", "code": "mL", "unit": "Eisenbart"}
    made = released(
        {"linkId": "case.no", "answer": [{"valueInteger": 3}]},
        {"linkId": "deliv.contrast", "answer": [{"valueQuantity": {"value": 40, **unit, "id": "x"}}]},
        {"linkId": "rad.dap", "answer": [{"valueQuantity": {"value": 40, "unit": "Eisenbart"}}]},
        {"linkId": "proc.counts", "answer": [{"valueBoolean": True, "extension": [{"url": "x"}]}]},
        {"linkId": "out.report", "answer": [{"valueInteger": "Eisenbart"}]},
        {"linkId": "fu.imaging", "answer": [{"valueDate": "2025-03-02"}, {"valueReference": {"reference": "x"}}]},
    )
    assert [item["linkId"] for item in answers(made)] == ["case.no", "deliv.contrast", "proc.counts"]
    assert "Eisenbart" not in json.dumps(made.response)
    assert "extension" not in json.dumps(made.response)


def test_texts_stay_local_but_for_the_cases_own_name() -> None:
    made = released(
        {"linkId": "case.pseudonym", "answer": [{"valueString": "case-name"}]},
        {"linkId": "rev.action", "answer": [{"valueString": TEXT}]},
    )
    assert [item["linkId"] for item in answers(made)] == ["case.pseudonym"]
    assert made.local == ("rev.action",)
    assert not made.held


def test_where_a_body_asks_texts_wait_for_approval_of_that_very_text() -> None:
    item = {"linkId": "rev.action", "answer": [{"valueString": TEXT}]}
    held = released(item, rule=ASKING)
    assert answers(held) == []
    assert held.held == {"rev.action": text_digest(TEXT)}
    approved = released(item, rule=ASKING, approved=(text_digest(TEXT),))
    assert answers(approved) == [item]
    changed = {"linkId": "rev.action", "answer": [{"valueString": f"{TEXT}!"}]}
    assert answers(released(changed, rule=ASKING, approved=(text_digest(TEXT),))) == []


def test_a_string_that_is_one_of_the_items_own_options_is_no_text() -> None:
    form = {"item": [{"linkId": "1", "type": "choice", "answerOption": [{"valueString": "oui"}, {"valueInteger": 1}]}]}

    def leaving(word: str) -> Released:
        made = {"resourceType": "QuestionnaireResponse", "item": [{"linkId": "1", "answer": [{"valueString": word}]}]}
        return release_answers(made, form, RULE, LeakScanner([]))

    assert leaving("oui").response["item"] == [{"linkId": "1", "answer": [{"valueString": "oui"}]}]
    assert "item" not in leaving("oui, dit Mme X").response
    assert leaving("oui, dit Mme X").local == ("1",)


def test_a_text_with_an_identifier_never_leaves_even_if_approved() -> None:
    text = "call Dr EISENBART"
    made = released(
        {"linkId": "rev.action", "answer": [{"valueString": text}]}, rule=ASKING, approved=(text_digest(text),)
    )
    assert answers(made) == []
    assert made.leaking == ("rev.action",)
    assert not made.held


@pytest.mark.parametrize("broken", [{}, {"linkId": "case.sex"}, {"linkId": "case.sex", "answer": [{}]}])
def test_empty_items_do_not_leave(broken: dict[str, Any]) -> None:
    assert "item" not in released(broken).response


def _items(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for item in node.get("item", ()) for found in (item, *_items(item))]
