"""What of a completed form may leave: built anew from the form's own items, like everything else that leaves.

Codings and strings are the item's own options, codings with the form's displays; texts that a person typed stay local,
or wait for a person's approval where the profile says that a body asks for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from io_fhir_adapter.review.forms import items, option_for
from io_fhir_adapter.review.leaks import LeakScanner
from io_fhir_adapter.review.profile import AnswerRule

__all__ = ["Released", "release_answers", "text_digest"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Released:
    """A form as it may leave, and what of it does not.

    Attributes:
        response: The QuestionnaireResponse that leaves.
        local: linkIds of texts that stay local.
        held: linkIds of texts that wait for approval, to their digests.
        leaking: linkIds of texts that hold an identifier of a person, and so never leave.
    """

    response: Json
    local: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    leaking: tuple[str, ...] = ()


def text_digest(text: str) -> str:
    """What an approval of a text is about: this very text and no other."""
    return hashlib.sha256(text.encode()).hexdigest()


def release_answers(
    response: Json,
    questionnaire: Json,
    rule: AnswerRule,
    scanner: LeakScanner,
    approved: Iterable[str] = (),
) -> Released:
    """The form with the answers that may leave and nothing else.

    Args:
        response: The case's QuestionnaireResponse; it is not changed.
        questionnaire: The form that it answers.
        rule: The profile's rule for answers.
        scanner: Knows the identifiers of the people involved.
        approved: Digests of texts that a person approved.
    """
    releasing = _Releasing(
        {item["linkId"]: item for item in items(questionnaire)},
        rule,
        scanner,
        frozenset(approved),
        str(response.get("identifier", {}).get("value", "")),
    )
    made = {name: value for name, value in response.items() if name in rule.elements}
    below = releasing.below(response)
    if below:
        made["item"] = below
    return Released(made, tuple(releasing.local), releasing.held, tuple(releasing.leaking))


class _Releasing:
    """The state of releasing one form."""

    def __init__(
        self, known: Mapping[str, Json], rule: AnswerRule, scanner: LeakScanner, approved: frozenset[str], name: str
    ) -> None:
        self.known = known
        self.rule = rule
        self.scanner = scanner
        self.approved = approved
        self.name = name
        self.local: list[str] = []
        self.held: dict[str, str] = {}
        self.leaking: list[str] = []

    def below(self, node: Json) -> list[Json]:
        return [made for item in node.get("item", ()) if (made := self.one(item)) is not None]

    def one(self, item: Json) -> Json | None:
        asked = self.known.get(item.get("linkId", ""))
        if asked is None:
            return None
        answers = []
        for answer in item.get("answer", ()):
            value = self.value(asked, answer)
            if value is not None:
                inner = self.below(answer)
                answers.append({**value, "item": inner} if inner else value)
        inner = self.below(item)
        made: Json = {"linkId": asked["linkId"]}
        if answers:
            made["answer"] = answers
        if inner:
            made["item"] = inner
        return made if len(made) > 1 else None

    def value(self, asked: Json, answer: Json) -> Json | None:
        """The value of one answer as it leaves."""
        kind = next((name for name in answer if name.startswith("value")), "")
        value = answer.get(kind)
        if kind not in self.rule.values:
            return None
        if kind == "valueCoding" and isinstance(value, dict):
            option = option_for(asked, str(value.get("code")), str(value.get("system") or ""))
            return {kind: option} if option is not None else None
        if kind == "valueQuantity" and isinstance(value, dict):
            return _quantity(asked, value)
        if kind == "valueString" and isinstance(value, str):
            own = value == self.name or any(value == one.get(kind) for one in asked.get("answerOption", ()))
            return {kind: value} if own or self.may_leave(asked["linkId"], value) else None
        return {kind: value} if isinstance(value, bool | int | float) else None

    def may_leave(self, link: str, text: str) -> bool:
        """Whether a text that somebody typed leaves."""
        if self.rule.text == "local":
            self.local.append(link)
            return False
        if self.scanner.hits(text):
            self.leaking.append(link)
            return False
        if text_digest(text) not in self.approved:
            self.held[link] = text_digest(text)
            return False
        return True


def _quantity(asked: Json, value: Json) -> Json | None:
    """A number with the unit as the form writes it."""
    number = value.get("value")
    if not isinstance(number, int | float) or isinstance(number, bool):
        return None
    for extension in asked.get("extension", ()):
        unit = extension.get("valueCoding", {})
        if unit.get("code") and unit["code"] == value.get("code") and unit.get("system") == value.get("system"):
            made = {"value": number, "unit": unit.get("display"), "system": unit["system"], "code": unit["code"]}
            return {"valueQuantity": {name: part for name, part in made.items() if part is not None}}
    return None
