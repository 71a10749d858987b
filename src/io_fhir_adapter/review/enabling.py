"""Which items of a form are asked: its ``enableWhen``, and the SDC ``enableWhenExpression``, on what is answered.

A browser evaluates the same conditions while a person fills the form. Both go by the answers alone: an expression may
read ``%resource``, ``%context`` and ``%questionnaire``, and variables of the form that read nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.expressions import evaluate, evaluate_variable, variables_of

__all__ = ["answered_values", "asked_items", "enabled_only", "response_items"]

Json = dict[str, Any]


def answered_values(response: Json) -> dict[str, list[Any]]:
    """Answered linkIds to their values as in JSON, as enableWhen reads them."""
    found: dict[str, list[Any]] = {}
    for item in response_items(response):
        for answer in item.get("answer", ()):
            value = next((value for name, value in answer.items() if name.startswith("value")), None)
            found.setdefault(item["linkId"], []).append(value)
    return found


def response_items(node: Json) -> Iterator[Json]:
    """All items of a QuestionnaireResponse, those below answers included, parents before their children."""
    for item in node.get("item", ()):
        yield item
        yield from response_items(item)
        for answer in item.get("answer", ()):
            yield from response_items(answer)


def asked_items(questionnaire: Json, response: Json, *, unsure: bool = True) -> frozenset[str]:
    """linkIds of all items that are enabled, and whose parents are, with the answers of a response.

    Args:
        questionnaire: The form.
        response: What is answered.
        unsure: Whether items are among them whose expression cannot be evaluated: an answer to one is kept, but none
            is demanded, since a browser may not show it.
    """
    answers = answered_values(response)
    expressions = {
        item["linkId"]: text
        for item in forms.items(questionnaire)
        if (text := forms.expression_of(item, forms.ENABLE_WHEN_EXPRESSION)) is not None
    }
    environment = _environment(questionnaire, response) if expressions else {}
    found: set[str] = set()

    def walk(node: Json) -> None:
        for item in node.get("item", ()):
            if forms.enabled(item, answers) and _holds(expressions.get(item["linkId"]), environment, unsure):
                found.add(item["linkId"])
                walk(item)

    walk(questionnaire)
    return frozenset(found)


def enabled_only(questionnaire: Json, items: list[Json]) -> list[Json]:
    """The items of a response without the answers of disabled ones, and of those that this disables in turn."""
    kept = items
    asked_before: frozenset[str] | None = None
    rounds = sum(1 for _ in forms.items(questionnaire)) + 1
    while True:
        asked = asked_items(questionnaire, {"resourceType": "QuestionnaireResponse", "item": kept})
        if asked == asked_before:
            return kept
        # conditions that contradict each other have no end: from then on nothing comes back
        source, rounds = (items if rounds > 0 else kept), rounds - 1
        kept, asked_before = _only(source, asked), asked


def _environment(questionnaire: Json, response: Json) -> dict[str, Any]:
    """What the expressions may read."""
    environment: dict[str, Any] = dict.fromkeys(("resource", "context"), response)
    environment |= {"questionnaire": questionnaire, "ucum": "http://unitsofmeasure.org"}
    for name, text in forms.answer_variables(questionnaire):
        with suppress(ReviewError):  # what reads it cannot be evaluated either
            environment[name] = evaluate_variable(text, environment)
    return environment


def _holds(expression: str | None, environment: Mapping[str, Any], unsure: bool) -> bool:
    """What an item's expression says; ``unsure`` where it cannot be evaluated."""
    if expression is None:
        return True
    if not environment.keys() >= set(variables_of(expression)):
        return unsure
    try:
        said = evaluate(expression, environment)
    except ReviewError:
        return unsure
    return said == [True] if said in ([], [True], [False]) else unsure


def _only(items: list[Json], asked: frozenset[str]) -> list[Json]:
    kept: list[Json] = []
    for item in items:
        if item["linkId"] not in asked:
            continue
        made: Json = {"linkId": item["linkId"]}
        if "answer" in item:
            made["answer"] = [_answer_only(answer, asked) for answer in item["answer"]]
        inner = _only(item.get("item", []), asked)
        if inner:
            made["item"] = inner
        if len(made) > 1:
            kept.append(made)
    return kept


def _answer_only(answer: Json, asked: frozenset[str]) -> Json:
    made = {name: value for name, value in answer.items() if name != "item"}
    inner = _only(answer.get("item", []), asked)
    return {**made, "item": inner} if inner else made
