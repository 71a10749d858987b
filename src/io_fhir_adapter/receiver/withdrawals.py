"""Taking a submission back: one Provenance that nullifies it, with the reason; nothing is deleted by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM, WITHDRAWAL_REASON
from io_fhir_adapter.receiver.wire import Issue

__all__ = ["is_withdrawal", "withdrawal_issues", "withdrawn_by"]

Json = Mapping[str, Any]
_NULLIFY: Final = "NULLIFY"
_PLACE: Final = "Bundle.entry[0].resource"


def is_withdrawal(entries: list[dict[str, Any]]) -> bool:
    """Whether valid entries are those of a withdrawal: a single Provenance."""
    return len(entries) == 1 and entries[0]["resource"]["resourceType"] == "Provenance"


def withdrawn_by(statement: Json) -> tuple[str, str]:
    """Identifier of the submission that a Provenance takes back, and the code of the reason.

    Only for one in which :func:`withdrawal_issues` finds nothing wrong.
    """
    return statement["target"][0]["identifier"]["value"], _codes(statement["reason"], WITHDRAWAL_REASON)[0]


def withdrawal_issues(statement: Json) -> Iterator[Issue]:
    """What keeps a valid Provenance from being a withdrawal."""
    targets = statement.get("target", [])
    named = targets[0].get("identifier", {}) if len(targets) == 1 and "reference" not in targets[0] else {}
    if named.get("system") != SUBMISSION_SYSTEM or not named.get("value"):
        yield Issue("business-rule", "name the one submission to be withdrawn", f"{_PLACE}.target")
    if [coding.get("code") for coding in statement.get("activity", {}).get("coding", [])] != [_NULLIFY]:
        yield Issue("business-rule", "a withdrawal is the activity NULLIFY", f"{_PLACE}.activity")
    if len(_codes(statement.get("reason", []), WITHDRAWAL_REASON)) != 1 or len(statement["reason"]) != 1:
        yield Issue("business-rule", "give one reason from the list", f"{_PLACE}.reason")
    if "entity" in statement:
        yield Issue("business-rule", "a withdrawal rests on nothing", f"{_PLACE}.entity")


def _codes(concepts: list[dict[str, Any]], system: str) -> list[str]:
    return [
        str(coding.get("code"))
        for concept in concepts
        for coding in concept.get("coding", [])
        if coding.get("system") == system
    ]
