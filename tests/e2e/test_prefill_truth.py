"""The forms of the drawn cases against what the synthetic hospital knows to be true, item by item."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from io_fhir_adapter.canonical_urls import ABSENCE_OF
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.telling import telling_items
from io_fhir_adapter.sandbox.clinical_records import CLINICAL_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import World

    from io_fhir_adapter.sandbox.truth import Answer

pytestmark = pytest.mark.xdist_group("demo")
FORM = forms.load_questionnaire()
LEAST_SHARE = 0.6
OWN = {"case.no", "case.pseudonym"}


@dataclass(frozen=True)
class Filled:
    """One case of the first night: its form's answers as they left, what is true, and what stayed in the ledger."""

    answers: dict[str, list[Any]]
    prefilled: dict[str, list[Any]]
    truth: dict[str, Answer]
    sources: dict[str, str]
    missing: dict[str, str]

    @property
    def wrong(self) -> list[str]:
        """Answered items of which the hospital knows another truth."""
        known = {link: values for link, values in self.prefilled.items() if link in self.truth}
        return [link for link, values in known.items() if plain(values) != self.truth[link]]

    @property
    def share(self) -> float:
        """The share of the enabled items that are answered and right on the form that a reviewer opens."""
        right = [link for link in self.prefilled if link in OWN or (link in self.truth and link not in self.wrong)]
        asked = [
            item["linkId"]
            for item in forms.questions(FORM)
            if not forms.extensions(item, ABSENCE_OF) and forms.enabled(item, self.prefilled)
        ]
        return len(right) / len(asked)


REPEATING = ("guidance-", "prior-", "unplanned-", "none")


def plain(values: list[Any]) -> Answer:
    """Answers as the hospital's truth writes them."""
    if len(values) > 1 or (isinstance(values[0], dict) and values[0].get("code", "").startswith(REPEATING)):
        return tuple(sorted(value["code"] for value in values))
    value = values[0]
    if isinstance(value, dict):
        return (value["value"], value["code"]) if "value" in value else str(value["code"])
    return value  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def filled(world: World) -> list[Filled]:
    with sqlite3.connect(world.first_ledger) as connection:
        rows = connection.execute("SELECT number, patient, date, sources, missing, response FROM cases").fetchall()
    by_number = {number: rest for number, *rest in rows}
    truths = {(case.patient, case.date): dict(case.answers) for case in world.hospital.cases}
    return [_filled(response, by_number, truths) for response in responses(world)]


def responses(world: World) -> Iterator[dict[str, Any]]:
    for entry in world.first.json("submission.json")["entry"]:
        if entry["resource"]["resourceType"] == "QuestionnaireResponse":
            yield entry["resource"]


def _filled(response: dict[str, Any], by_number: dict[int, Any], truths: dict[Any, dict[str, Answer]]) -> Filled:
    answers = answered(response)
    patient, day, sources, missing, kept = by_number[answers["case.no"][0]]
    truth = truths[patient, day]
    return Filled(answers, answered(json.loads(kept)), truth, json.loads(sources), json.loads(missing))


def answered(response: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        item["linkId"]: [next(value for name, value in answer.items() if name.startswith("value")) for answer in found]
        for item in forms.items(response)
        if (found := item.get("answer"))
    }


def test_of_each_case_most_items_are_filled_and_right(filled: list[Filled]) -> None:
    assert len(filled) == 30
    shares = sorted(case.share for case in filled)
    assert shares[0] >= LEAST_SHARE, shares
    assert sum(shares) / len(shares) >= 0.68


def test_what_leaves_was_filled_in_but_for_what_makes_a_case_rare(filled: list[Filled]) -> None:
    telling = {link for link, said in telling_items(FORM).items() if said}
    for case in filled:
        assert {link: case.prefilled[link] for link in case.answers} == case.answers
        assert case.prefilled.keys() - case.answers.keys() <= telling


def test_hardly_any_answer_is_wrong(filled: list[Filled]) -> None:
    wrong = Counter(link for case in filled for link in case.wrong)
    assert sum(wrong.values()) <= 0.01 * sum(len(case.answers) for case in filled), wrong


def test_answers_come_from_every_kind_of_record(filled: list[Filled]) -> None:
    read = {name.partition("/")[0] for case in filled for text in case.sources.values() for name in text.split()}
    assert {"Patient", "Procedure", "Encounter", "Condition"} <= read
    assert set(CLINICAL_TYPES) - {"AdverseEvent"} <= read
    answered = Counter(link for case in filled for link in case.answers)
    for link in ("dx.ecog", "plan.imaging", "deliv.contrast", "out.report", "fu.imaging", "fu.response", "fu.visit"):
        assert answered[link] >= 15, link


def test_every_open_item_has_its_reason(filled: list[Filled]) -> None:
    for case in filled:
        assert all(case.missing.values())
        assert case.missing["plan.allergy"] == "not offered by this source: AllergyIntolerance"
        assert case.missing["rev.complete"] == "for the reviewer to answer"


def test_answers_are_codes_numbers_with_unit_booleans_and_offsets(filled: list[Filled]) -> None:
    kinds = {item["linkId"]: item["type"] for item in forms.questions(FORM)}
    options = {
        item["linkId"]: {option["valueCoding"]["code"] for option in item.get("answerOption", ())}
        for item in forms.questions(FORM)
    }
    for case in filled:
        for link, values in case.answers.items():
            for value in values:
                match kinds[link]:
                    case "choice":
                        assert value["code"] in options[link]
                    case "integer":
                        assert -400 < value < 4000
                    case "quantity":
                        assert set(value) == {"value", "unit", "system", "code"}
                    case "boolean":
                        assert isinstance(value, bool)
                    case kind:
                        assert (kind, link) == ("string", "case.pseudonym")


def test_nothing_of_the_clinical_records_leaves_but_answers(world: World) -> None:
    kinds = Counter(entry["resource"]["resourceType"] for entry in world.first.json("submission.json")["entry"])
    assert not set(kinds) & set(CLINICAL_TYPES)
