"""FHIRPath in Questionnaires: checked when loaded, parsed once, evaluated on one case."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from antlr4 import CommonTokenStream, InputStream, ParserRuleContext  # type: ignore[import-untyped]
from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]
from fhirpathpy import apply_parsed_path
from fhirpathpy.models import models
from fhirpathpy.parser.ASTPathListener import has_node_type_text
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

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
_R4: Any = models["r4"]
_END_OF_INPUT = -1


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


class _Strict(ErrorListener):  # type: ignore[misc]
    """Remembers where the parser met errors; the library's own listener lets them pass and guesses on."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[int] = []

    def syntaxError(self, *details: Any) -> None:  # noqa: N802 - the name that the parser calls
        """Called by the parser with recogniser, symbol, line, column, message and exception."""
        self.columns.append(int(details[3]))


class _Parsed(NamedTuple):
    """A text read as FHIRPath.

    Attributes:
        fault: The column of the first thing that is not FHIRPath; None where it is one whole expression.
        tree: What the library evaluates; empty where there is a fault.
    """

    fault: int | None
    tree: dict[str, Any]


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> _Parsed:
    strict = _Strict()
    lexer = FHIRPathLexer(InputStream(expression))
    lexer.removeErrorListeners()
    lexer.addErrorListener(strict)
    tokens = CommonTokenStream(lexer)
    parser = FHIRPathParser(tokens)
    parser.removeErrorListeners()
    parser.addErrorListener(strict)
    whole = parser.expression()
    if tokens.LA(1) != _END_OF_INPUT:
        strict.columns.append(tokens.LT(1).column)
    if strict.columns:
        return _Parsed(strict.columns[0], {})
    return _Parsed(None, {"children": [_branch(whole)[0]]})


def _branch(rule: Any) -> tuple[dict[str, Any], str]:
    """A rule of the grammar as the library's evaluator takes it, and its text.

    The library's own walk asks every rule for its text anew, down to the last leaf: most of the time of a first form.
    """
    kind = type(rule).__name__.removesuffix("Context")
    node: dict[str, Any] = {"type": kind, "terminalNodeText": []}
    text, below = "", []
    for child in rule.getChildren():
        if isinstance(child, ParserRuleContext):
            branch, words = _branch(child)
            below.append(branch)
        else:
            words = child.getText()
            node["terminalNodeText"].append(words)
        text += words
    if below:
        node["children"] = below
    if has_node_type_text(kind):  # type: ignore[no-untyped-call]
        node["text"] = text
    return node, text


def check_expression(expression: str, where: str) -> None:
    """Refuse text that is not one whole FHIRPath expression.

    Args:
        expression: The FHIRPath text.
        where: What to name in the error, such as the file and the linkId.

    Raises:
        MappingError: It is not valid FHIRPath.
    """
    fault = _parsed(expression).fault
    if fault is not None:
        raise MappingError(
            f"a FHIRPath expression is not valid at character {fault + 1}",
            where=where,
            do="correct the expression in the Questionnaire",
            number=40,
        )


def _run(expression: str, environment: Mapping[str, Any], *, raw: bool) -> list[Any]:
    try:
        tree = _parsed(expression).tree
        result = apply_parsed_path({}, tree, environment, _R4, {"returnRawData": raw})  # type: ignore[no-untyped-call]
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
