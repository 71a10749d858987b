"""Answers to the standards self-assessment, taken from a file: what does not fit is named by its linkId."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from io_fhir_adapter.errors import InputError
from io_fhir_adapter.review.completing import accept
from io_fhir_adapter.review.forms import canonical, items

__all__ = ["accept_assessment"]

Json = dict[str, Any]

_LINK: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAMED: Final = 5


def accept_assessment(questionnaire: Json, posted: Any, where: str) -> Json:
    """A clean QuestionnaireResponse, with the form's own words and only what the form asks for.

    Args:
        questionnaire: The form.
        posted: Any parsed JSON.
        where: Its file, for messages.

    Raises:
        InputError: It is no answer to this form, or holds items that the form does not have.
        ReviewError: Answers are not of their item's type; names linkIds, never values.
    """
    if not isinstance(posted, dict) or posted.get("resourceType") != "QuestionnaireResponse":
        raise InputError(
            "the file holds no QuestionnaireResponse", where=where, do="complete the exported form", number=22
        )
    named = posted.get("questionnaire")
    if not isinstance(named, str) or named.split("|")[0] != questionnaire["url"]:
        raise InputError(
            "the answers are to another form", where=where, do=f"they must name {questionnaire['url']}", number=23
        )
    known = _places(questionnaire)
    strange = list(dict.fromkeys(link for link, above in _links(posted) if known.get(link) != above))
    if strange:
        shown = ", ".join(strange[:_NAMED]) + (" …" if len(strange) > _NAMED else "")
        raise InputError(
            f"items are not of this form: {shown}", where=where, do="complete the form as it was exported", number=24
        )
    head = {"resourceType": "QuestionnaireResponse", "questionnaire": canonical(questionnaire)}
    clean = accept(questionnaire, posted, head)
    if posted.get("status") == "completed":
        clean["status"] = "completed"
    return clean


def _places(questionnaire: Json) -> dict[str, str]:
    """Every linkId of a form with the one that it stands below, which is empty at the top."""
    tops = {item["linkId"]: "" for item in questionnaire["item"]}
    return tops | {inner["linkId"]: item["linkId"] for item in items(questionnaire) for inner in item.get("item", ())}


def _links(response: Json) -> Iterator[tuple[str, str]]:
    """The same of a response, however deep; what is no linkId, or holds more than a name, is not repeated."""
    nodes: list[tuple[Any, str]] = [(response, "")]
    while nodes:
        node, above = nodes.pop(0)
        below = node.get("item") if isinstance(node, dict) else None
        for item in below if isinstance(below, list) else [below] if below else []:
            link = item.get("linkId") if isinstance(item, dict) else None
            name = link if isinstance(link, str) and _LINK.fullmatch(link) else "(no linkId)"
            yield name, above
            if isinstance(item, dict):
                answers = item.get("answer")
                nodes += [(inner, name) for inner in (item, *(answers if isinstance(answers, list) else []))]
