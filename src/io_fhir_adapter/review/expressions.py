"""FHIRPath in Questionnaires: checked when loaded, parsed once, evaluated on one case."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from io_fhir_adapter.errors import MappingError, ReviewError

__all__ = [
    "FHIRPATH",
    "FHIR_QUERY",
    "VARIABLE",
    "NamedExpression",
    "check_expression",
    "evaluate",
    "evaluate_variable",
    "named_expressions",
    "plain",
    "variables_of",
]

FHIRPATH: Final = "text/fhirpath"
FHIR_QUERY: Final = "application/x-fhir-query"
VARIABLE: Final = "http://hl7.org/fhir/StructureDefinition/variable"

_READ = re.compile(r"%(?:`([^`]+)`|([A-Za-z_][A-Za-z0-9_-]*))")
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'")


class NamedExpression(NamedTuple):
    """A variable of a Questionnaire: name, expression, and the language that it is written in."""

    name: str
    text: str
    language: str


def named_expressions(questionnaire: Mapping[str, Any]) -> Iterator[NamedExpression]:
    """The variables of a Questionnaire (SDC ``variable``), in order; without a language they are FHIRPath."""
    for extension in questionnaire.get("extension", ()):
        value = extension.get("valueExpression", {}) if extension.get("url") == VARIABLE else {}
        if value.get("name") and value.get("expression"):
            yield NamedExpression(value["name"], value["expression"], value.get("language", FHIRPATH))


def check_expression(expression: str, where: str) -> None:
    """Refuse text that is not one whole FHIRPath expression.

    Args:
        expression: The FHIRPath text.
        where: What to name in the error, such as the file and the linkId.

    Raises:
        MappingError: It is not valid FHIRPath.
    """
    from io_fhir_adapter.review.fhirpath import parsed  # noqa: PLC0415 - the parser, for who loads a form

    fault = parsed(expression).fault
    if fault is not None:
        raise MappingError(
            f"a FHIRPath expression is not valid at character {fault + 1}",
            where=where,
            do="correct the expression in the Questionnaire",
            number=40,
        )


def _run(expression: str, environment: Mapping[str, Any], *, raw: bool) -> list[Any]:
    from io_fhir_adapter.review.fhirpath import applied  # noqa: PLC0415 - the evaluator, for who fills a form

    try:
        result = applied(expression, environment, raw=raw)
    except Exception:  # noqa: BLE001 - the library raises bare Exceptions
        # Their text repeats the data, so it is not chained.
        raise ReviewError("an expression of the Questionnaire cannot be evaluated on this record", number=10) from None
    return result if isinstance(result, list) else [result]


def evaluate(expression: str, environment: Mapping[str, Any]) -> list[Any]:
    """The collection, as plain JSON values, that an expression gives where ``environment`` holds its ``%variables``.

    Raises:
        ReviewError: The expression cannot be evaluated on this record. The message holds nothing of the record.
    """
    return _run(expression, environment, raw=False)


def evaluate_variable(expression: str, environment: Mapping[str, Any]) -> list[Any]:
    """As :func:`evaluate`, for values that other expressions go on from: they keep their place in the resource.

    Without it ``%facts.value`` would not find ``valueCode``, since plain JSON does not say what it is part of.
    """
    return _run(expression, environment, raw=True)


def plain(value: Any) -> Any:
    """The JSON value behind a value of :func:`evaluate_variable`."""
    return getattr(value, "data", value)


def variables_of(expression: str) -> tuple[str, ...]:
    """The names of the variables that an expression reads, in order, each once."""
    found = _READ.findall(_LITERAL.sub("''", expression))
    return tuple(dict.fromkeys(quoted or plain for quoted, plain in found))
