"""Questionnaires as we use them: loaded, checked, walked, and asked what is enabled.

The form is data: a body's own R4 Questionnaire takes the place of the shipped one without a change of code.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.review.expressions import check_expression
from io_fhir_adapter.shipped import shipped_path

__all__ = [
    "INITIAL_EXPRESSION",
    "VARIABLE",
    "canonical",
    "enabled",
    "expression_of",
    "extensions",
    "items",
    "load_questionnaire",
    "option_for",
    "public_words",
    "questions",
    "variables",
]

INITIAL_EXPRESSION: Final = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-initialExpression"
VARIABLE: Final = "http://hl7.org/fhir/StructureDefinition/variable"
_WORD = re.compile(r"\w+")
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}

Json = dict[str, Any]


def load_questionnaire(path: Path | None = None) -> Json:
    """Read a Questionnaire, the shipped case review where no path is given, and check what we rely on.

    Raises:
        MappingError: It cannot be read, is no Questionnaire with url, version and items, repeats a linkId, asks
            after a linkId that is not there, or holds FHIRPath that is not valid.
    """
    source = path if path is not None else shipped_path("mappings", "questionnaires", "io-case-review.json")
    try:
        questionnaire = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise MappingError("the Questionnaire cannot be read as JSON", where=str(source), number=41) from exc
    if not isinstance(questionnaire, dict) or questionnaire.get("resourceType") != "Questionnaire":
        raise MappingError("the file holds no FHIR Questionnaire", where=str(source), number=42)
    for element in ("url", "version", "item"):
        if not questionnaire.get(element):
            raise MappingError(f"the Questionnaire has no {element}", where=str(source), number=43)
    _check_items(questionnaire, str(source))
    return questionnaire


def _check_items(questionnaire: Json, where: str) -> None:
    links: set[str] = set()
    for item in items(questionnaire):
        link = item.get("linkId")
        if not isinstance(link, str) or not link or link in links:
            raise MappingError(
                f"a linkId is missing or repeated ({link!r})", where=where, do="give each item its own", number=44
            )
        links.add(link)
        expression = expression_of(item)
        if expression is not None:
            check_expression(expression, f"{where}, item {link}")
    for item in items(questionnaire):
        for condition in item.get("enableWhen", ()):
            if condition.get("question") not in links or condition.get("operator") not in {"exists", *_COMPARE}:
                raise MappingError(
                    "an enableWhen names no item or no operator of this Questionnaire",
                    where=f"{where}, item {item['linkId']}",
                    number=45,
                )
    for name, expression in variables(questionnaire):
        check_expression(expression, f"{where}, variable {name}")


def items(node: Json) -> Iterator[Json]:
    """All items below a Questionnaire, QuestionnaireResponse or item, parents before their children."""
    for item in node.get("item", ()):
        yield item
        yield from items(item)


def questions(questionnaire: Json) -> Iterator[Json]:
    """All items that ask for an answer: neither groups nor display texts."""
    return (item for item in items(questionnaire) if item.get("type") not in ("group", "display"))


def canonical(questionnaire: Json) -> str:
    """The canonical reference with version, as a QuestionnaireResponse names its form."""
    return f"{questionnaire['url']}|{questionnaire['version']}"


def extensions(node: Json, url: str) -> list[Json]:
    """The extensions of that URL on an element."""
    return [extension for extension in node.get("extension", ()) if extension.get("url") == url]


def expression_of(item: Json) -> str | None:
    """The FHIRPath text of an item's SDC initialExpression, if it has one."""
    for extension in extensions(item, INITIAL_EXPRESSION):
        expression = extension.get("valueExpression", {})
        if expression.get("language") == "text/fhirpath" and expression.get("expression"):
            return str(expression["expression"])
    return None


def variables(questionnaire: Json) -> list[tuple[str, str]]:
    """The form's FHIRPath variables in order: name and expression."""
    found = [extension.get("valueExpression", {}) for extension in extensions(questionnaire, VARIABLE)]
    return [(value["name"], value["expression"]) for value in found if value.get("name") and value.get("expression")]


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
    compare = _COMPARE[condition["operator"]]
    return any(_compares(compare, value, expected) for value in values)


def _compares(compare: Callable[[Any, Any], bool], value: Any, expected: Any) -> bool:
    if isinstance(value, dict) and isinstance(expected, dict):
        names = ("system", "code") if "code" in expected else ("value",)
        return compare([value.get(name) for name in names], [expected.get(name) for name in names])
    return type(value) is type(expected) and compare(value, expected)


def public_words(questionnaire: Json) -> frozenset[str]:
    """All texts, codes and displays of the form, whole and word by word, in lower case.

    They are published, so that a patient's name that equals one of them cannot be told from the form itself.
    """
    texts: set[str] = set()
    for item in items(questionnaire):
        texts.update(str(item[name]) for name in ("linkId", "text", "prefix") if name in item)
        for option in item.get("answerOption", ()):
            texts.update(str(value) for value in option.get("valueCoding", {}).values())
            if "valueString" in option:
                texts.add(str(option["valueString"]))
    words = {word for text in texts for word in _WORD.findall(text)}
    return frozenset(text.casefold() for text in texts | words)
