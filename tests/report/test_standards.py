"""The standards self-assessment: the form made from the programme's data, and what people answered."""

from __future__ import annotations

from typing import Any

import pytest

from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.errors import AdapterError, InputError, ReviewError, UsageError
from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.report.standards import ANSWERS, checklist, questionnaire, requirements, tally
from io_fhir_adapter.review.assessing import accept_assessment
from io_fhir_adapter.review.forms import items

IASIOS = load_programme("iasios")
FORM = questionnaire(IASIOS)
SYSTEM = "https://io-fhir-adapter.example/fhir/CodeSystem/standards-assessment"


def answer(link: str, code: str, **more: Any) -> dict[str, Any]:
    return {"linkId": link, "answer": [{"valueCoding": {"system": SYSTEM, "code": code, **more}}]}


def response(*inside: dict[str, Any], section: str = "I", standard: int = 1, **more: Any) -> dict[str, Any]:
    group = {"linkId": f"standard-{standard}", "item": list(inside)}
    return {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "questionnaire": f"{FORM['url']}|{FORM['version']}",
        "item": [{"linkId": f"section-{section}", "item": [group]}],
        **more,
    }


def test_the_form_has_thirteen_standards_in_three_sections_and_27_core_requirements() -> None:
    assert resource_problems(FORM, frozenset({"Questionnaire"})) == ()
    assert [section["text"].partition(":")[0] for section in FORM["item"]] == ["Section I", "Section II", "Section III"]
    assert [len(section["item"]) for section in FORM["item"]] == [6, 3, 4]
    core = [item for item in items(FORM) if item.get("prefix") == "core"]
    assert len(core) == 27
    codes = [option["valueCoding"]["code"] for option in core[0]["answerOption"]]
    assert codes == list(ANSWERS) == ["met", "partly-met", "not-met", "not-applicable"]
    assert "proposal" in FORM["title"]


def test_requirements_have_our_own_numbers_and_the_public_letters_alone() -> None:
    named = {one.link_id: one.text for one in requirements(IASIOS)}
    assert named["standard-4.c"] == "Standard 4, core requirement 2 (letter c)"
    assert named["standard-7.further"] == "Standard 7, all extended requirements, as in your own copy"
    assert [item["text"] for item in items(FORM) if item["linkId"] == "standard-9"] == ["Standard 9"]


def test_a_title_of_ones_own_copy_is_shown() -> None:
    assert IASIOS.standards is not None
    first = IASIOS.standards.standards[0].model_copy(update={"title": "Ours"})
    own = IASIOS.standards.model_copy(update={"standards": (first,)})
    form = questionnaire(IASIOS.model_copy(update={"standards": own}))
    assert form["item"][0]["item"][0]["text"] == "Standard 1: Ours"


def test_a_programme_without_standards_has_no_form() -> None:
    with pytest.raises(UsageError, match="programme degir hold no standards"):
        questionnaire(load_programme("degir"))


def test_answers_are_counted_and_evidence_is_named() -> None:
    paper = {
        "linkId": "standard-1.a.evidence",
        "item": [
            {"linkId": "standard-1.a.evidence.name", "answer": [{"valueString": "Dienstplan Ärzte.pdf"}]},
            {"linkId": "standard-1.a.evidence.sha256", "answer": [{"valueString": "ab" * 32}]},
        ],
    }
    posted = response(
        answer("standard-1.a", "met", display="something else"),
        paper,
        answer("standard-1.c", "partly-met"),
        answer("standard-1.b", "not-applicable"),
    )
    clean = accept_assessment(FORM, posted, "answers.json")
    lines = checklist(IASIOS, clean)
    assert "something else" not in str(clean)
    assert clean["status"] == "completed"
    core, extended = tally(lines, "core"), tally(lines, "extended")
    assert (core.total, core.answered, core.met, core.partly) == (27, 2, 1, 1)
    assert (extended.answered, extended.not_applicable) == (1, 1)
    first = next(line for line in lines if line.requirement.link_id == "standard-1.a")
    assert first.evidence == (("Dienstplan Ärzte.pdf", "ab" * 32),)
    assert tally(checklist(IASIOS, None), "core").answered == 0


@pytest.mark.parametrize(
    ("posted", "error", "words"),
    [
        ([], InputError, "no QuestionnaireResponse"),
        ({"resourceType": "Bundle"}, InputError, "no QuestionnaireResponse"),
        (response(questionnaire="https://other.example/form"), InputError, "to another form"),
        (response(questionnaire=7), InputError, "to another form"),
        (response(answer("standard-99.z", "met")), InputError, "not of this form: standard-99.z"),
        (response(answer("standard-2.b", "met")), InputError, "not of this form: standard-2.b"),  # below standard 1
        (response({"linkId": "Anna Muster <b>"}), InputError, "(no linkId)"),
        (response(item={"a": 1}), InputError, "(no linkId)"),
        (response(item=["x"]), InputError, "(no linkId)"),
        (response(answer("standard-1.a", "perfect")), ReviewError, "standard-1.a is none of the options"),
        (response(answer("standard-1.a", "met"), answer("standard-1.a", "met")), ReviewError, "standard-1.a stands"),
    ],
)
def test_what_does_not_fit_is_named_by_its_link_id(posted: Any, error: type[AdapterError], words: str) -> None:
    with pytest.raises(error) as refused:
        accept_assessment(FORM, posted, "answers.json")
    assert words in refused.value.sentence
    assert "Anna" not in refused.value.sentence
    assert "perfect" not in refused.value.sentence


def test_a_response_of_any_depth_is_refused_in_a_sentence() -> None:
    node: dict[str, Any] = {"linkId": "section-I"}
    for _ in range(5_000):
        node = {"linkId": "section-I", "item": [node]}
    with pytest.raises(InputError, match="not of this form: section-I"):
        accept_assessment(FORM, response(item=[node]), "answers.json")
