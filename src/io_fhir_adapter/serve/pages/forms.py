"""A form as LHC-Forms is given it, without what fills it; what its page says, and what its script posts."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from io_fhir_adapter.review.forms import INITIAL_EXPRESSION, VARIABLE, answer_variables
from io_fhir_adapter.serve.language import texts

__all__ = ["FORM_POLICY", "Posted", "for_display", "script_words"]

Json = dict[str, Any]
FORM_POLICY: Final = {"style-src": "'self' 'nonce-{nonce}'"}
"""LHC-Forms puts styles into the page, and marks them with the nonce that it finds there; it needs nothing else."""
_SCRIPT: Final = "case.js."
_LABELS: Final = "case.lforms."
_FILLING: Final = frozenset(
    {VARIABLE, INITIAL_EXPRESSION, "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-launchContext"}
)


class Posted(BaseModel):
    """What the script of a page with a form posts: the revision that it shows, and the form's QuestionnaireResponse."""

    revision: int
    answers: Json


def script_words(language: str, own: str = "") -> dict[str, dict[str, str]]:
    """What the script of a page with a form says, and LHC-Forms' own labels in the language of the page.

    Args:
        language: Such as ``de``.
        own: Where the words are that the page has of its own, such as ``standards.js.``.
    """
    said, english = texts(language), texts("en")
    words = {key.removeprefix(_SCRIPT): text for key, text in said.items() if key.startswith(_SCRIPT)}
    if own:
        words |= {key.removeprefix(own): text for key, text in said.items() if key.startswith(own)}
    labels = {text: said[key] for key, text in english.items() if key.startswith(_LABELS) and said[key] != text}
    return {"words": words, "labels": labels}


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
