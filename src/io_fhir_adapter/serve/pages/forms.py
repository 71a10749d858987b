"""The form as pages show it: to LHC-Forms without what fills it, and to readers as questions and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.review.forms import INITIAL_EXPRESSION, VARIABLE, answer_variables, items, option_for

__all__ = ["Line", "Section", "for_display", "sections"]

Json = dict[str, Any]
_FILLING: Final = frozenset(
    {VARIABLE, INITIAL_EXPRESSION, "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-launchContext"}
)


@dataclass(frozen=True, slots=True)
class Line:
    """One question that has an answer.

    Attributes:
        link_id: The item's linkId.
        text: The question.
        values: Its answers in words; for a boolean ``yes`` or ``no``.
        plain: Whether an answer is a text of the reviewer's own.
    """

    link_id: str
    text: str
    values: tuple[str, ...]
    plain: bool


@dataclass(frozen=True, slots=True)
class Section:
    """The answered questions of one group."""

    title: str
    lines: tuple[Line, ...]


def for_display(questionnaire: Json) -> Json:
    """The form for LHC-Forms: searches and expressions that fill it were evaluated here and are not given out."""
    return _without_filling(questionnaire, frozenset(name for name, _ in answer_variables(questionnaire)))


def _without_filling(node: Json, live: frozenset[str]) -> Json:
    made = dict(node)
    if "extension" in node:
        made["extension"] = [one for one in node["extension"] if one.get("url") not in _FILLING or _is_live(one, live)]
    if "item" in node:
        made["item"] = [_without_filling(item, live) for item in node["item"]]
    return made


def _is_live(extension: Json, live: frozenset[str]) -> bool:
    """Whether it is a variable that goes by the answers, which other expressions in the browser may read."""
    return extension.get("url") == VARIABLE and extension.get("valueExpression", {}).get("name") in live


def sections(questionnaire: Json, response: Json, yes_no: Mapping[bool, str]) -> tuple[Section, ...]:
    """What a response says, in the order of the form; groups without an answer are left out.

    Args:
        questionnaire: The form.
        response: The QuestionnaireResponse.
        yes_no: The words for true and false.
    """
    given = {item["linkId"]: item["answer"] for item in _answered(response)}
    found = []
    for group in questionnaire.get("item", ()):
        asked = [group, *items(group)]
        lines = tuple(_line(item, given[item["linkId"]], yes_no) for item in asked if item.get("linkId") in given)
        if lines:
            found.append(Section(str(group.get("text", group.get("linkId", ""))), lines))
    return tuple(found)


def _answered(node: Json) -> Iterator[Json]:
    for item in node.get("item", ()):
        if item.get("answer"):
            yield item
        yield from _answered(item)
        for answer in item.get("answer", ()):
            yield from _answered(answer)


def _line(item: Json, answers: list[Json], yes_no: Mapping[bool, str]) -> Line:
    plain = any("valueString" in answer for answer in answers) and not item.get("readOnly")
    return Line(
        item["linkId"], str(item.get("text", item["linkId"])), tuple(_word(item, a, yes_no) for a in answers), plain
    )


def _word(item: Json, answer: Json, yes_no: Mapping[bool, str]) -> str:
    value = next((value for name, value in answer.items() if name.startswith("value")), "")
    if isinstance(value, bool):
        return yes_no[value]
    if isinstance(value, dict):
        if "value" in value:
            return f"{value['value']} {value.get('unit') or value.get('code') or ''}".rstrip()
        option = option_for(item, value["code"], value.get("system", "")) if "code" in value else None
        return str((option or value).get("display") or value.get("code") or "")
    return str(value)
