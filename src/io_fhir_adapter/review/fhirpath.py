"""FHIRPath as the library parses and evaluates it; :mod:`.expressions` imports this where it is needed, not before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from antlr4 import CommonTokenStream, InputStream, ParserRuleContext  # type: ignore[import-untyped]
from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]
from fhirpathpy import apply_parsed_path
from fhirpathpy.models import models
from fhirpathpy.parser.ASTPathListener import has_node_type_text
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

__all__ = ["Parsed", "applied", "parsed"]

_R4: Any = models["r4"]
_END_OF_INPUT = -1


class _Strict(ErrorListener):  # type: ignore[misc]
    """Remembers where the parser met errors; the library's own listener lets them pass and guesses on."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[int] = []

    def syntaxError(self, *details: Any) -> None:  # noqa: N802 - the name that the parser calls
        """Called by the parser with recogniser, symbol, line, column, message and exception."""
        self.columns.append(int(details[3]))


class Parsed(NamedTuple):
    """A text read as FHIRPath.

    Attributes:
        fault: The column of the first thing that is not FHIRPath; None where it is one whole expression.
        tree: What the library evaluates; empty where there is a fault.
    """

    fault: int | None
    tree: dict[str, Any]


@lru_cache(maxsize=1024)
def parsed(expression: str) -> Parsed:
    """A text read as FHIRPath, each once."""
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
        return Parsed(strict.columns[0], {})
    return Parsed(None, {"children": [_branch(whole)[0]]})


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


def applied(expression: str, environment: Mapping[str, Any], *, raw: bool) -> Any:
    """What a valid expression gives, as the library does; it raises bare exceptions whose text repeats the data."""
    tree = parsed(expression).tree
    return apply_parsed_path({}, tree, environment, _R4, {"returnRawData": raw})  # type: ignore[no-untyped-call]
