"""Is a resource valid FHIR R4? fhir.resources' R4B models, made strict where they are lenient.

The models let pass what the standard forbids: codes outside a required value set, nulls, empty arrays,
numbers as strings. They also raise exceptions of every kind on hostile input. Here each fault becomes a
:class:`Problem` that names the element and never its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import BaseModel, ValidationError

__all__ = ["Problem", "resource_problems"]

_MAX_PROBLEMS = 20
_OPEN_ENDED = frozenset({"+", "etc."})

_WORDS = {
    "extra_forbidden": "is not an element of this type",
    "model_field_validation.missing": "is required and missing",
    "missing": "is required and missing",
    "string_type": "must be a string",
    "list_type": "must be an array",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than_equal": "is too small",
    "string_pattern_mismatch": "has a form that its type does not allow",
}


@dataclass(frozen=True)
class Problem:
    """One fault of a resource: ``path`` such as ``Patient.name[0].given``, ``words`` without any content."""

    path: str
    words: str


def resource_problems(resource: object, allowed: frozenset[str]) -> tuple[Problem, ...]:
    """What makes ``resource`` (a parsed JSON value) invalid R4, the first twenty faults; empty when valid.

    Args:
        resource: The parsed JSON value, which may be anything.
        allowed: The resource types that are accepted here.
    """
    if not isinstance(resource, dict):
        return (Problem("resource", "must be a JSON object"),)
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or kind not in allowed:
        return (Problem("resource.resourceType", f"must be one of {', '.join(sorted(allowed))}"),)
    problems = list(_empty_elements(resource, kind))
    problems += _model_problems(resource, kind)
    return tuple(problems[:_MAX_PROBLEMS])


def _model_problems(resource: Mapping[str, Any], kind: str) -> list[Problem]:
    try:
        model = get_fhir_model_class(kind).model_validate(resource)
    except ValidationError as exc:
        return [
            Problem(_path(kind, error["loc"]), _WORDS.get(error["type"], "does not follow the rules of its type"))
            for error in exc.errors(include_input=False, include_url=False, include_context=False)
        ]
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, LookupError):
        # The models look into nested values before they check their types.
        return [Problem(kind, "holds something that is not FHIR R4")]
    return list(_lenient_spots(model, resource, kind))


def _path(kind: str, loc: tuple[int | str, ...]) -> str:
    text = kind
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{_element_name(part)}"
    return text


def _element_name(name: str) -> str:
    """A name from the input is echoed only where it looks like a FHIR element."""
    return name if name.isascii() and name.lstrip("_").isalnum() and len(name) <= 40 else "?"


def _empty_elements(value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, dict):
        if not value:
            yield Problem(path, "must not be empty")
        for name, item in value.items():
            yield from _empty_elements(item, f"{path}.{_element_name(name)}")
    elif isinstance(value, list):
        if not value:
            yield Problem(path, "must not be empty")
        for index, item in enumerate(value):
            yield from _empty_elements(item, f"{path}[{index}]")
    elif value is None or value == "":
        yield Problem(path, "must not be empty")


def _lenient_spots(model: BaseModel, raw: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """What the models let pass: codes outside a required value set, and numbers or booleans given as strings.

    Value sets that the models know only in part end with ``+`` or ``etc.`` and are not checked.
    """
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        alias = field.alias or name
        if value is None or alias not in raw:
            continue
        here = f"{path}.{alias}"
        extra = field.json_schema_extra
        codes = extra.get("enum_values") if isinstance(extra, dict) else None
        if isinstance(value, str) and isinstance(codes, list) and not {value, *_OPEN_ENDED} & {*codes}:
            yield Problem(here, "is not one of the codes that the standard allows")
        given = raw[alias]
        if isinstance(value, list) and isinstance(given, list):
            for index, (item, source) in enumerate(zip(value, given, strict=False)):
                yield from _lenient_value(item, source, f"{here}[{index}]")
        else:
            yield from _lenient_value(value, given, here)


def _lenient_value(value: Any, given: Any, here: str) -> Iterator[Problem]:
    if isinstance(value, BaseModel):
        if isinstance(given, Mapping):
            yield from _lenient_spots(value, given, here)
    elif isinstance(value, bool) != isinstance(given, bool):
        yield Problem(here, "must be true or false" if isinstance(value, bool) else "must not be true or false")
    elif isinstance(value, int | float | Decimal) and not isinstance(given, int | float | Decimal):
        yield Problem(here, "must be a number")
