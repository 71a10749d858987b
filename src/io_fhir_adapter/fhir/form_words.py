"""The case-review form in the language of the page: for showing it, and for nothing else.

Answers are codes and know no language. What is posted is put into the form's own words again by
:func:`io_fhir_adapter.review.completing.accept`; translations are never kept, sent, or known to the leak scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from io_fhir_adapter.fhir.forms import extensions, items, option_for
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.strict_yaml import load_yaml

__all__ = ["FormWords", "category_title", "form_in", "form_words", "response_in"]

Json = dict[str, Any]
_TRANSLATION: Final = "http://hl7.org/fhir/StructureDefinition/translation"
_CATEGORY: Final = "proc.category"
_TRANSLATED: Final = ("de",)
"""Languages that the shipped form is translated into."""


@dataclass(frozen=True, slots=True)
class FormWords:
    """One form in one language.

    Attributes:
        url: The form's canonical URL.
        version: Its version; another version may ask something else.
        items: linkId to the item's text.
        options: linkId to code to the option's display.
        common: Code to display, for options of items that have none of their own.
    """

    url: str
    version: str
    items: Mapping[str, str]
    options: Mapping[str, Mapping[str, str]]
    common: Mapping[str, str]

    def option(self, link_id: str, code: str) -> str | None:
        """What an option is called, None where it is not translated."""
        return self.options.get(link_id, {}).get(code) or self.common.get(code)


@cache
def form_words(language: str) -> FormWords | None:
    """The shipped form in a language, None where there is no translation."""
    if language not in _TRANSLATED:
        return None
    path = shipped_path("mappings", "questionnaires", f"io-case-review.{language}.yaml")
    read = load_yaml(path.read_text(encoding="utf-8"))
    return FormWords(read["questionnaire"], str(read["version"]), read["items"], read["options"], read["common"])


def category_title(code: str, title: str, language: str) -> str:
    """The title of a category in a language; the given one where it is not translated."""
    words = form_words(language)
    return words.options[_CATEGORY].get(code, title) if words is not None else title


def form_in(questionnaire: Json, language: str) -> Json:
    """The form in a language: its own translations first, else the shipped ones where it is the shipped form.

    Args:
        questionnaire: The form; it is left as it is.
        language: Such as ``de``.
    """
    words = form_words(language)
    if words is not None and (words.url, words.version) != (questionnaire.get("url"), questionnaire.get("version")):
        words = None
    return _node_in(questionnaire, language, words)


def response_in(shown: Json, response: Json) -> Json:
    """A response with the displays of the form as it is shown.

    Args:
        shown: The form in the language of the page.
        response: The QuestionnaireResponse; it is left as it is.
    """
    return _answers_in({item["linkId"]: item for item in items(shown)}, response)


def _node_in(node: Json, language: str, words: FormWords | None) -> Json:
    made = dict(node)
    link = str(node.get("linkId", ""))
    text = _own(node.get("_text"), language) or (words.items.get(link) if words is not None else None)
    if text and "text" in node:
        made["text"] = text
    if "answerOption" in node:
        made["answerOption"] = [_option_in(option, link, language, words) for option in node["answerOption"]]
    if "item" in node:
        made["item"] = [_node_in(item, language, words) for item in node["item"]]
    return made


def _option_in(option: Json, link: str, language: str, words: FormWords | None) -> Json:
    """An option in the language; one without a code is known by its display alone and stays."""
    coding = option.get("valueCoding", {})
    code = coding.get("code")
    if code is None:
        return option
    display = _own(coding.get("_display"), language) or (words.option(link, code) if words is not None else None)
    return {**option, "valueCoding": {**coding, "display": display}} if display else option


def _own(element: Json | None, language: str) -> str:
    """The text that a FHIR translation extension gives for a language, empty where none does."""
    for one in extensions(element or {}, _TRANSLATION):
        parts = {part.get("url"): part for part in one.get("extension", ())}
        said = str(parts.get("lang", {}).get("valueCode", ""))
        content = parts.get("content", {})
        if said.lower().split("-")[0] == language:
            return str(content.get("valueString") or content.get("valueMarkdown") or "")
    return ""


def _answers_in(asked: Mapping[str, Json], node: Json) -> Json:
    made = dict(node)
    if "item" in node:
        made["item"] = [_answers_in(asked, item) for item in node["item"]]
    if "answer" in node:
        item = asked.get(node.get("linkId", ""), {})
        made["answer"] = [_answer_in(asked, item, answer) for answer in node["answer"]]
    return made


def _answer_in(asked: Mapping[str, Json], item: Json, answer: Json) -> Json:
    made = _answers_in(asked, answer)
    coding = answer.get("valueCoding", {})
    option = option_for(item, coding["code"], coding.get("system", "")) if coding.get("code") else None
    return {**made, "valueCoding": {**coding, **option}} if option is not None else made
