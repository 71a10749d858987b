"""Questionnaires as we use them: loaded, checked, walked, and asked what is enabled.

The form is data: a body's own R4 Questionnaire takes the place of the shipped one without a change of code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.fhir.forms import COMPARISONS, enabled, extensions, items, option_for
from io_fhir_adapter.review.expressions import FHIRPATH, VARIABLE, check_expression, named_expressions, variables_of
from io_fhir_adapter.review.queries import record_queries
from io_fhir_adapter.review.value_sets import with_options
from io_fhir_adapter.shipped import shipped_path

__all__ = [
    "CALCULATED_EXPRESSION",
    "ENABLE_WHEN_EXPRESSION",
    "INITIAL_EXPRESSION",
    "VARIABLE",
    "answer_variables",
    "canonical",
    "enabled",
    "expression_of",
    "extensions",
    "items",
    "load_questionnaire",
    "option_for",
    "parse_questionnaire",
    "public_words",
    "questions",
    "variables",
]

_SDC: Final = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-"
INITIAL_EXPRESSION: Final = f"{_SDC}initialExpression"
ENABLE_WHEN_EXPRESSION: Final = f"{_SDC}enableWhenExpression"
CALCULATED_EXPRESSION: Final = f"{_SDC}calculatedExpression"
OF_ANSWERS: Final = frozenset({"resource", "context", "questionnaire", "ucum"})
"""What expressions read that go by the answers alone."""
_WORD = re.compile(r"\w+")
Json = dict[str, Any]


def load_questionnaire(path: Path | None = None) -> Json:
    """Read a Questionnaire, the shipped case review where no path is given, and check what we rely on.

    Raises:
        MappingError: As :func:`parse_questionnaire`, or the file cannot be read.
    """
    source = path if path is not None else shipped_path("mappings", "questionnaires", "io-case-review.json")
    try:
        data = source.read_bytes()
    except OSError as exc:
        raise MappingError("the Questionnaire cannot be read as JSON", where=str(source), number=41) from exc
    return parse_questionnaire(data, str(source))


def parse_questionnaire(data: bytes, where: str) -> Json:
    """A Questionnaire out of its JSON, checked for what we rely on; of a Bundle its first.

    Answers of a ValueSet that it contains, or that lies in the same Bundle, become options of its items.

    Args:
        data: The JSON.
        where: Its file or address, for messages.

    Raises:
        MappingError: It is no JSON, no Questionnaire with url, version and items, repeats a linkId, asks after a
            linkId that is not there, or holds FHIRPath or a search that is not valid.
    """
    try:
        found = json.loads(data)
    except ValueError as exc:
        raise MappingError("the Questionnaire cannot be read as JSON", where=where, number=41) from exc
    questionnaire = _first_in(found)
    if questionnaire is None:
        raise MappingError("the file holds no FHIR Questionnaire", where=where, number=42)
    for element in ("url", "version", "item"):
        if not questionnaire.get(element):
            raise MappingError(f"the Questionnaire has no {element}", where=where, number=43)
    questionnaire = with_options(questionnaire, _resources_of(found))
    _check_items(questionnaire, where)
    record_queries(questionnaire, where)
    return questionnaire


def _resources_of(found: Json) -> Iterator[Json]:
    """What lies in a Bundle, at any depth."""
    if found.get("resourceType") == "Bundle":
        entries = found.get("entry")
        for entry in entries if isinstance(entries, list) else ():
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if isinstance(resource, dict):
                yield resource
                yield from _resources_of(resource)


def _first_in(found: Any) -> Json | None:
    """The Questionnaire itself, or the first of a Bundle; None where there is none."""
    if not isinstance(found, dict):
        return None
    if found.get("resourceType") == "Bundle":
        entries = [entry for entry in found.get("entry") or () if isinstance(entry, dict)]
        inner = [_first_in(entry.get("resource")) for entry in entries]
        return next((one for one in inner if one is not None), None)
    return found if found.get("resourceType") == "Questionnaire" else None


def _check_items(questionnaire: Json, where: str) -> None:
    links: set[str] = set()
    live = {*OF_ANSWERS, *(name for name, _ in answer_variables(questionnaire))}
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
        _check_live(item, live, f"{where}, item {link}")
        if item.get("type") == "choice" and not item.get("answerOption"):
            raise MappingError(
                "a choice has no answerOption, and no ValueSet at hand that lists its answers",
                where=f"{where}, item {link}",
                do="list the options in the Questionnaire, or in a ValueSet that it contains",
                number=47,
            )
    for item in items(questionnaire):
        for condition in item.get("enableWhen", ()):
            if condition.get("question") not in links or condition.get("operator") not in {"exists", *COMPARISONS}:
                raise MappingError(
                    "an enableWhen names no item or no operator of this Questionnaire",
                    where=f"{where}, item {item['linkId']}",
                    number=45,
                )
    for name, expression in variables(questionnaire):
        check_expression(expression, f"{where}, variable {name}")


def _check_live(item: Json, live: Collection[str], where: str) -> None:
    """Refuses an expression that is evaluated while a person fills the form and reads what only pre-filling has."""
    for url in (ENABLE_WHEN_EXPRESSION, CALCULATED_EXPRESSION):
        if not extensions(item, url):
            continue
        expression = expression_of(item, url)
        if expression is None:
            raise MappingError(
                "an enableWhenExpression or calculatedExpression is not FHIRPath",
                where=where,
                do="write it in text/fhirpath",
                number=48,
            )
        check_expression(expression, where)
        foreign = [name for name in variables_of(expression) if name not in live]
        if foreign:
            raise MappingError(
                f"an expression that goes by the answers reads %{foreign[0]}, which only pre-filling has",
                where=where,
                do="let it read %resource, or variables that read nothing else",
                number=49,
            )


def questions(questionnaire: Json) -> Iterator[Json]:
    """All items that ask for an answer: neither groups nor display texts."""
    return (item for item in items(questionnaire) if item.get("type") not in ("group", "display"))


def canonical(questionnaire: Json) -> str:
    """The canonical reference with version, as a QuestionnaireResponse names its form."""
    return f"{questionnaire['url']}|{questionnaire['version']}"


def expression_of(item: Json, url: str = INITIAL_EXPRESSION) -> str | None:
    """The FHIRPath text of an item's SDC initialExpression, or of another of its expressions, if it has one."""
    for extension in extensions(item, url):
        expression = extension.get("valueExpression", {})
        if expression.get("language") == "text/fhirpath" and expression.get("expression"):
            return str(expression["expression"])
    return None


def variables(questionnaire: Json) -> list[tuple[str, str]]:
    """The form's FHIRPath variables in order: name and expression."""
    return [(one.name, one.text) for one in named_expressions(questionnaire) if one.language == FHIRPATH]


def answer_variables(questionnaire: Json) -> list[tuple[str, str]]:
    """Those of :func:`variables` that read nothing but what is answered, themselves and by others."""
    found: list[tuple[str, str]] = []
    for name, text in variables(questionnaire):
        if set(variables_of(text)) <= {*OF_ANSWERS, *(known for known, _ in found)}:
            found.append((name, text))
    return found


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
