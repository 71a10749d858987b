"""What a person posts of a case's form, taken anew: only what the form asks for, in the form's own words.

Nothing of the posted document is kept but linkIds and values that the form admits. Identifier, subject and form are
those of the pre-filled response whatever was posted; texts, displays, extensions and tags are left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.canonical_urls import ABSENCE_OF
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.enabling import answered_values, asked_items, enabled_only, response_items
from io_fhir_adapter.review.typed import NotTaken, same_answer, typed

__all__ = ["OpenItem", "accept", "completeness"]

Json = dict[str, Any]

_MANY: Final = 50
"""A repeated item has no more answers than that."""
_HEAD: Final = ("resourceType", "identifier", "questionnaire", "subject")
_HIDDEN: Final = "http://hl7.org/fhir/StructureDefinition/questionnaire-hidden"
_FREE: Final = frozenset({"string", "text", "url", "attachment", "reference"})


@dataclass(frozen=True, slots=True)
class OpenItem:
    """A question that a person still has to answer.

    Attributes:
        link_id: The item's linkId.
        text: Its text in the form.
        group: Text of the outermost group that it stands in, empty where it stands in none.
    """

    link_id: str
    text: str
    group: str


def accept(questionnaire: Json, posted: Any, prefilled: Json) -> Json:
    """A clean QuestionnaireResponse out of what a browser posted.

    Args:
        questionnaire: The form.
        posted: Any parsed JSON.
        prefilled: The case's pre-filled response: whose identifier, subject, form and read-only answers these are.

    Returns:
        A response in progress that holds only linkIds, types and options of the form, and answers of enabled items.

    Raises:
        ReviewError: It is no answer to this form, or answers are not of their item's type; names linkIds, never values.
    """
    if not isinstance(posted, dict) or posted.get("resourceType") != "QuestionnaireResponse":
        raise ReviewError("what was posted is no QuestionnaireResponse", do="load the case again", number=31)
    taking = _Taking(_answers_by_link(prefilled))
    below = taking.below(questionnaire, posted)
    if taking.strange:
        raise ReviewError(
            f"{taking.strange} of the posted items are not of this form", do="load the case again", number=31
        )
    if taking.problems:
        named = "; ".join(f"{link} {why}" for link, why in taking.problems.items())
        raise ReviewError(f"some answers cannot be taken: {named}", do="correct them", number=32)
    below = enabled_only(questionnaire, below)
    made: Json = {name: prefilled[name] for name in _HEAD if name in prefilled}
    made["status"] = "in-progress"
    return {**made, "item": below} if below else made


def completeness(questionnaire: Json, response: Json) -> tuple[OpenItem, ...]:
    """The enabled questions with neither an answer nor a reason why there is none, in the form's order.

    A free text is asked for only where the form requires it, and nothing that a person cannot write into.
    """
    answers = answered_values(response)
    reasons = {
        str(extension.get("valueString"))
        for item in forms.questions(questionnaire)
        if item["linkId"] in answers
        for extension in forms.extensions(item, ABSENCE_OF)
    }
    asked = asked_items(questionnaire, response, unsure=False)
    return tuple(_open_below(questionnaire, asked, answers, answers.keys() | reasons, ""))


class _Taking:
    """The state of taking one posted form."""

    def __init__(self, ours: Mapping[str, list[Json]]) -> None:
        self.ours = ours
        self.problems: dict[str, str] = {}
        self.strange = 0

    def below(self, asked: Json, *posted: Json) -> list[Json]:
        """The clean items below one item of the form, out of what was posted below it."""
        children = asked.get("item", ())
        nodes: dict[str, list[Json]] = {child["linkId"]: [] for child in children}
        for node in (one for part in posted for one in _as_list(part.get("item"))):
            link = node.get("linkId") if isinstance(node, dict) else None
            if isinstance(link, str) and link in nodes:
                nodes[link].append(node)
            else:
                self.strange += 1
        return [made for child in children for made in self.item(child, nodes[child["linkId"]])]

    def item(self, asked: Json, nodes: list[Json]) -> list[Json]:
        """The clean items for one item of the form; several only of a repeated group."""
        link, kind = asked["linkId"], asked["type"]
        if len(nodes) > (_MANY if kind == "group" and asked.get("repeats") else 1):
            self.problems[link] = "stands there more than once"
            return []
        if kind == "display":
            return []
        if kind == "group":
            if not nodes:  # what only the adapter answers is there whatever was posted
                nodes = [{}]
            return [{"linkId": link, "item": inner} for node in nodes if (inner := self.below(asked, node))]
        return self.question(asked, nodes[0] if nodes else {})

    def question(self, asked: Json, node: Json) -> list[Json]:
        link = asked["linkId"]
        posted = _as_list(node.get("answer"))
        values = self.ours.get(link, []) if asked.get("readOnly") else self.values(asked, posted)
        if not values:
            return []
        answers = [dict(value) for value in values]
        for number, answer in enumerate(answers):
            inside = posted[number] if number < len(posted) and isinstance(posted[number], dict) else {}
            inner = self.below(asked, inside) if number else self.below(asked, inside, {"item": node.get("item")})
            if inner:
                answer["item"] = inner
        return [{"linkId": link, "answer": answers}]

    def values(self, asked: Json, posted: list[Any]) -> list[Json]:
        """The clean answers of one question, without their own items."""
        if len(posted) > (_MANY if asked.get("repeats") else 1):
            self.problems[asked["linkId"]] = "has more answers than the form takes"
            return []
        made: list[Json] = []
        for answer in posted:
            try:
                value = typed(asked, answer)
            except NotTaken as exc:
                self.problems[asked["linkId"]] = str(exc)
                return []
            if value is not None:
                made.append(value)
        if any(same_answer(one, other) for at, one in enumerate(made) for other in made[:at]):
            self.problems[asked["linkId"]] = "has the same answer twice"
            return []
        return made


def _open_below(
    node: Json, asked: frozenset[str], answers: Mapping[str, list[Any]], done: frozenset[str] | set[str], group: str
) -> Iterator[OpenItem]:
    for item in node.get("item", ()):
        if item["linkId"] not in asked or _hidden(item):
            continue
        link, kind = item["linkId"], item["type"]
        if kind not in ("group", "display"):
            if link not in done and _to_answer(item):
                yield OpenItem(link, str(item.get("text", "")), group)
            if link not in answers:
                continue  # its own items are asked only with its answer
        inside = group or (str(item.get("text", "")) if kind == "group" else "")
        yield from _open_below(item, asked, answers, done, inside)


def _to_answer(item: Json) -> bool:
    if item.get("readOnly") or forms.extensions(item, ABSENCE_OF):
        return False
    return bool(item.get("required")) or item["type"] not in _FREE


def _hidden(item: Json) -> bool:
    return any(extension.get("valueBoolean") is True for extension in forms.extensions(item, _HIDDEN))


def _answers_by_link(response: Json) -> dict[str, list[Json]]:
    """The answers of a response of ours by linkId, without their own items."""
    return {
        item["linkId"]: [{name: value for name, value in answer.items() if name != "item"} for answer in item["answer"]]
        for item in response_items(response)
        if "answer" in item
    }


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
