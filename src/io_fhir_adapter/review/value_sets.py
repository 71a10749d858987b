"""Answers that a Questionnaire takes from a ValueSet, written into its items as options.

A body's form may list its answers once, in a ValueSet that it contains or that comes with it in one Bundle. A ValueSet
from elsewhere is not looked up: a form must work where no terminology server does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["listed_codings", "with_options"]

Json = dict[str, Any]


def with_options(questionnaire: Json, companions: Iterator[Json]) -> Json:
    """The same form with an ``answerOption`` for each listed code, where its ``answerValueSet`` is at hand.

    Args:
        questionnaire: An R4 Questionnaire; it is not changed.
        companions: Resources that came with it.

    Returns:
        The form; an item whose ValueSet is not at hand, or does not list its codes, stays as it is.
    """
    known = {f"#{one.get('id')}": one for one in _value_sets(questionnaire.get("contained"))}
    for one in _value_sets([*companions]):
        known[str(one.get("url"))] = known[f"{one.get('url')}|{one.get('version')}"] = one
    return _below(questionnaire, known) if known else questionnaire


def _value_sets(resources: Any) -> Iterator[Json]:
    return (one for one in _objects(resources) if one.get("resourceType") == "ValueSet")


def _objects(found: Any) -> Iterator[Json]:
    """The JSON objects of a list; nothing of anything else."""
    return (one for one in (found if isinstance(found, list) else ()) if isinstance(one, dict))


def _below(node: Json, known: Mapping[str, Json]) -> Json:
    """A copy of a Questionnaire or item with the options in the items below it."""
    inner = node.get("item")
    made = {**node, "item": [_below(item, known) for item in inner]} if isinstance(inner, list) else dict(node)
    codings = listed_codings(known.get(str(node.get("answerValueSet")), {}))
    if codings and not node.get("answerOption"):
        made["answerOption"] = [{"valueCoding": coding} for coding in codings]
        del made["answerValueSet"]
    return made


def listed_codings(value_set: Json) -> list[Json]:
    """The codings of a ValueSet: of its expansion, or of its own list where that is all that it says; else none."""
    expansion = value_set.get("expansion")
    if isinstance(expansion, dict):
        return [*_expanded(expansion.get("contains"))]
    compose = value_set.get("compose")
    if not isinstance(compose, dict) or compose.get("exclude"):
        return []
    included = [*_objects(compose.get("include"))]
    if any(not one.get("concept") or one.get("filter") or one.get("valueSet") for one in included):
        return []
    return [
        _coding({**concept, "system": one.get("system")}) for one in included for concept in _objects(one["concept"])
    ]


def _expanded(contains: Any) -> Iterator[Json]:
    for one in _objects(contains):
        if one.get("code") and not one.get("abstract") and not one.get("inactive"):
            yield _coding(one)
        yield from _expanded(one.get("contains"))


def _coding(one: Json) -> Json:
    return {name: one[name] for name in ("system", "version", "code", "display") if one.get(name)}
