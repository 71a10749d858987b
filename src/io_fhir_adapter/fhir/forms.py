"""A Questionnaire and what was answered to it, as readers see them: groups, questions, answers in words."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "COMPARISONS",
    "Line",
    "Section",
    "answer_sections",
    "answered_items",
    "enabled",
    "extensions",
    "items",
    "option_for",
    "sections",
]

Json = dict[str, Any]

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
"""The operators of enableWhen that compare; ``exists`` is the one beside them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One question.

    Attributes:
        link_id: The item's linkId.
        text: The question.
        values: Its answers in words; for a boolean ``yes`` or ``no``; none where it was left open.
        plain: Whether an answer is a text of the reviewer's own.
    """

    link_id: str
    text: str
    values: tuple[str, ...]
    plain: bool


@dataclass(frozen=True, slots=True)
class Section:
    """The questions of one group."""

    title: str
    lines: tuple[Line, ...]


def items(node: Json) -> Iterator[Json]:
    """All items below a Questionnaire, QuestionnaireResponse or item, parents before their children."""
    for item in node.get("item", ()):
        yield item
        yield from items(item)


def extensions(node: Json, url: str) -> list[Json]:
    """The extensions of that URL on an element."""
    return [extension for extension in node.get("extension", ()) if extension.get("url") == url]


def option_for(item: Json, code: str, system: str = "") -> Json | None:
    """The item's own answer option of that code (and system, where given) as a new Coding."""
    for option in item.get("answerOption", ()):
        coding = option.get("valueCoding", {})
        if coding.get("code") == code and system in ("", coding.get("system")):
            return {name: coding[name] for name in ("system", "version", "code", "display") if name in coding}
    return None


def enabled(item: Json, answers: Mapping[str, list[Any]]) -> bool:
    """Whether an item's own ``enableWhen`` holds; its parents are the caller's to check.

    Args:
        item: The Questionnaire item.
        answers: Answered linkIds to their values as in JSON (a Coding as an object).
    """
    conditions = item.get("enableWhen", ())
    if not conditions:
        return True
    results = (_holds(condition, answers.get(condition["question"], [])) for condition in conditions)
    return any(results) if item.get("enableBehavior") == "any" else all(results)


def _holds(condition: Json, values: list[Any]) -> bool:
    expected = next((value for name, value in condition.items() if name.startswith("answer")), None)
    if condition["operator"] == "exists":
        return bool(values) is expected
    compare = COMPARISONS.get(condition["operator"])
    if compare is None:  # another body's form that came with a submission: what cannot be read hides nothing
        return True
    return any(_compares(compare, value, expected) for value in values)


def _compares(compare: Callable[[Any, Any], bool], value: Any, expected: Any) -> bool:
    if isinstance(value, dict) and isinstance(expected, dict):
        names = ("system", "code") if "code" in expected else ("value",)
        return compare([value.get(name) for name in names], [expected.get(name) for name in names])
    return type(value) is type(expected) and compare(value, expected)


def sections(
    questionnaire: Json, response: Json, yes_no: Mapping[bool, str], *, unanswered: bool = False
) -> tuple[Section, ...]:
    """What a response says, in the order of the form; groups without a line are left out.

    Args:
        questionnaire: The form.
        response: The QuestionnaireResponse.
        yes_no: The words for true and false.
        unanswered: Whether questions without an answer are there as well, but for those that the answers rule out.
    """
    given = {item["linkId"]: item["answer"] for item in answered_items(response)}
    said = {link: [_value(answer) for answer in answers] for link, answers in given.items()}
    found = []
    for group in questionnaire.get("item", ()):
        asked = [group, *items(group)]
        lines = tuple(
            _line(item, given.get(item["linkId"], []), yes_no)
            for item in asked
            if item.get("linkId") in given
            or (unanswered and item.get("type") not in ("group", "display") and enabled(item, said))
        )
        if lines:
            found.append(Section(str(group.get("text", group.get("linkId", ""))), lines))
    return tuple(found)


def answer_sections(response: Json, yes_no: Mapping[bool, str]) -> tuple[Section, ...]:
    """What a response says in its own order and by linkId, for where its form is not known."""
    lines = tuple(_line(item, item["answer"], yes_no) for item in answered_items(response))
    return (Section("", lines),) if lines else ()


def answered_items(node: Json) -> Iterator[Json]:
    """The items of a QuestionnaireResponse that have an answer, at any depth."""
    for item in node.get("item", ()):
        if item.get("answer"):
            yield item
        yield from answered_items(item)
        for answer in item.get("answer", ()):
            yield from answered_items(answer)


def _line(item: Json, answers: list[Json], yes_no: Mapping[bool, str]) -> Line:
    plain = any("valueString" in answer for answer in answers) and not item.get("readOnly")
    return Line(
        item["linkId"], str(item.get("text", item["linkId"])), tuple(_word(item, a, yes_no) for a in answers), plain
    )


def _value(answer: Json) -> Any:
    return next((value for name, value in answer.items() if name.startswith("value")), "")


def _word(item: Json, answer: Json, yes_no: Mapping[bool, str]) -> str:
    value = _value(answer)
    if isinstance(value, bool):
        return yes_no[value]
    if isinstance(value, dict):
        if "value" in value:
            return f"{value['value']} {value.get('unit') or value.get('code') or ''}".rstrip()
        option = option_for(item, value["code"], value.get("system", "")) if "code" in value else None
        return str((option or value).get("display") or value.get("code") or "")
    return str(value)
