"""De-identified copies, built from an allow-list: what the profile does not name is never looked at.

A copy is a new resource. Ids and references are tokens that only the facility can undo, dates become
quarters and day offsets, codes are checked against the shape of their system, displays and texts stay behind.
"""

from __future__ import annotations

from typing import Any

import msgspec

from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.review.elements import DeidContext, Element, element_of, key_of
from io_fhir_adapter.review.profile import Profile

__all__ = ["DeidContext", "carries_modifier", "deidentify"]

Json = dict[str, Any]
_PLANS = "plans"


def deidentify(resource: Json, profile: Profile, context: DeidContext) -> Json:
    """A new, de-identified resource with the elements that the profile names and nothing else.

    Args:
        resource: R4 JSON of a type that the profile describes; it is not changed.
        profile: The allow-list.
        context: The case that the resource belongs to.

    Raises:
        ReviewError: The profile has no rules for the type, the resource belongs to another patient, carries a
            modifierExtension, or a value that the profile refuses. The message holds no value of the resource.
    """
    kind = resource.get("resourceType")
    plan = _plan_of(kind, profile) if isinstance(kind, str) else None
    if not isinstance(kind, str) or plan is None:
        raise ReviewError("the profile has no rules for the type of a resource", do="leave it out", number=20)
    reference = _own_reference(resource, kind, context)
    _inspect(resource, kind, context)
    copy: Json = {"resourceType": kind, "id": context.resource_token(reference)}
    extensions: list[Json] = []
    for element in plan:
        value = element.leaving(resource, context)
        if not value:  # nothing, or empty, which FHIR does not allow
            continue
        if element.dated:
            extensions += value
        else:
            copy[element.name] = value
    if extensions:
        copy["extension"] = extensions
    return copy


def _plan_of(kind: str, profile: Profile) -> tuple[Element, ...] | None:
    """The functions of a resource type, made once for a profile and kept with it."""
    plans: dict[str, tuple[Element, ...]] | None = profile.__dict__.get(_PLANS)
    if plans is None:
        plans = profile.__dict__[_PLANS] = {
            name: tuple(part for element, rule in rules.items() for part in element_of(name, element, rule, profile))
            for name, rules in profile.resources.items()
        }
    return plans.get(kind)


def _own_reference(resource: Json, kind: str, context: DeidContext) -> str:
    """``Type/id`` of the resource, after making sure that it is about the case's patient."""
    identity = resource.get("id")
    if not isinstance(identity, str) or not identity:
        raise ReviewError(f"a {kind} of the case has no id", do="leave it out", number=21)
    own = f"{kind}/{identity}"
    if kind == "Patient":
        about = own if context.patient.startswith("Patient/") else context.patient  # by an identifier, or a Group
    else:
        about = key_of(resource.get("subject"), "Patient")
    if about != context.patient:
        raise ReviewError(f"a {kind} belongs to another patient than the case", do="leave it out", number=22)
    return own if kind != "Patient" else context.patient


def _inspect(resource: Json, kind: str, context: DeidContext) -> None:
    """Count what stays behind without being looked at; refuse modifier extensions, which change what the rest means.

    Contained resources are counted but not looked into.
    """
    extensions = _extensions(resource, kind) if _has_extensions(resource) else 0
    dropped = context.dropped
    if extensions:
        dropped[f"{kind}.extension"] += extensions
    if resource.get("contained"):
        dropped[f"{kind}.contained"] += 1
    if resource.get("text"):
        dropped[f"{kind}.text"] += 1


def _has_extensions(resource: Json) -> bool:
    """Whether there may be an extension of either kind anywhere: few resources have one, and this look is quick."""
    try:
        written = msgspec.json.encode(resource)
    except (TypeError, ValueError):  # such as half a surrogate pair, which JSON can hold and UTF-8 cannot
        return True
    return b'"extension":' in written or b'"modifierExtension":' in written


def carries_modifier(resource: Json) -> bool:
    """Whether there is a modifierExtension, at any depth but in contained resources: it may change all the rest."""
    return _has_extensions(resource) and _modified(resource)


def _modified(node: Any) -> bool:
    if isinstance(node, list):
        return any(_modified(item) for item in node)
    if not isinstance(node, dict):
        return False
    return bool(node.get("modifierExtension")) or any(
        _modified(value) for name, value in node.items() if name != "contained"
    )


def _extensions(node: Any, kind: str) -> int:
    """How many extensions there are at any depth."""
    if isinstance(node, list):
        return sum(_extensions(item, kind) for item in node)
    if not isinstance(node, dict):
        return 0
    if node.get("modifierExtension"):
        raise ReviewError(
            f"a {kind} carries a modifierExtension, which may change its meaning", do="leave it out", number=23
        )
    found = node.get("extension")
    number = len(found) if isinstance(found, list) else bool(found)
    return number + sum(_extensions(value, kind) for name, value in node.items() if name != "contained")
