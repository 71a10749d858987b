"""Resources with a unique string in every element that FHIR R4 allows, made from the definitions.

The models of fhir.resources say which elements there are; each element that can hold text gets a canary of its own, to
a bounded depth: identifiers, names, notes, displays, file names, URLs, contained resources, extensions on elements and
on primitive values. Of alternatives (value[x]) a variant takes one each; enough variants take all.
"""

from __future__ import annotations

import base64
import typing
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from zlib import crc32

from fhir.resources.R4B import get_fhir_model_class

__all__ = ["PULLED", "Canary", "Garden", "without_modifiers"]

PULLED = (
    "Patient", "Procedure", "Condition", "Encounter", "Practitioner", "RelatedPerson", "Observation",
    "DiagnosticReport", "ImagingStudy", "MedicationAdministration", "Consent", "AdverseEvent", "DocumentReference",
)  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwx"
_PLAIN: dict[str, Any] = {
    "Boolean": True, "Integer": 3, "PositiveInt": 3, "UnsignedInt": 3, "Decimal": 1.5, "Date": "2025-03-02",
    "DateTime": "2025-03-02T10:00:00+01:00", "Instant": "2025-03-02T10:00:00+01:00", "Time": "10:00:00",
}  # fmt: skip
_CONTAINED = ("Practitioner", "Organization", "Binary")


@dataclass(frozen=True)
class Canary:
    """One planted string: where it stands, the value of the element, and what is unique about it."""

    path: str
    value: str
    token: str


@dataclass
class Garden:
    """Makes resources and remembers every canary that it planted.

    Attributes:
        depth: How many elements deep to go.
        variant: Which of the alternatives to take.
        start: Where to begin counting, so that gardens do not share canaries.
    """

    depth: int = 3
    variant: int = 0
    start: int = 0
    planted: list[Canary] = field(default_factory=list)

    def resource(self, kind: str) -> dict[str, Any]:
        """One resource of that type."""
        made = self._object(kind, kind, self.depth)
        return {"resourceType": kind, **made}

    def _object(self, kind: str, path: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        groups: dict[str, list[str]] = {}
        elements = _elements(kind)
        for name, element in elements.items():
            if element.group:
                groups.setdefault(element.group, []).append(name)
        for name, element in elements.items():
            if element.group:
                options = groups[element.group]
                where = f"{path}.{element.group}"
                if options[(self.variant + crc32(where.encode())) % len(options)] != name:
                    continue
            value = self._value(element, f"{path}.{name}", depth)
            if value is None:
                continue
            made[name] = [value] if element.many else value
            if element.primitive and element.extends and depth > 0:
                extra = {
                    "id": self._text("String", f"{path}._{name}.id"),
                    "extension": [self._extension(f"{path}._{name}.extension")],
                }
                made[f"_{name}"] = [extra] if element.many else extra
        return made

    def _value(self, element: _Element, path: str, depth: int) -> Any:
        if element.codes:
            return element.codes[0]
        if element.primitive:
            plain = _PLAIN.get(element.kind)
            return plain if plain is not None else self._text(element.kind, path)
        if element.kind == "Resource":
            return self._contained(path) if path.endswith(".contained") and path.count(".") == 1 else None
        if element.kind == "Extension":
            return self._extension(path) if depth > 0 else None
        if element.kind in ("Meta", "Narrative") or depth > 0 or element.required:
            return self._object(element.kind, path, max(depth - 1, 0)) or None
        return None

    def _contained(self, path: str) -> dict[str, Any]:
        kind = _CONTAINED[self.variant % len(_CONTAINED)]
        return {"resourceType": kind, **self._object(kind, f"{path}.{kind}", 1)}

    def _extension(self, path: str) -> dict[str, Any]:
        made = {"url": self._text("Uri", f"{path}.url")}
        options = [name for name, element in _elements("Extension").items() if element.group]
        name = options[(self.variant + crc32(path.encode())) % len(options)]
        value = self._value(_elements("Extension")[name], f"{path}.{name}", 1)
        return {**made, name: value} if value is not None else made

    def _text(self, kind: str, path: str) -> str:
        token = self._token()
        value = {
            "Uri": f"https://canary.example/{token}",
            "Url": f"https://canary.example/files/{token}.pdf",
            "Canonical": f"https://canary.example/Definition/{token}|1",
            "Xhtml": f'<div xmlns="http://www.w3.org/1999/xhtml">{token}</div>',
            "Markdown": f"**seen** {token}",
        }.get(kind, token)
        if kind == "Oid":
            token = f"999.{len(self.planted) + self.start + 1_000_000}"
            value = f"urn:oid:2.{token}"
        if kind == "UuidVersion":
            token = str(uuid.UUID(int=len(self.planted) + self.start + (7 << 100), version=4))
            value = f"urn:uuid:{token}"
        if kind == "Base64Binary":
            token = value = base64.b64encode(token.encode()).decode()
        self.planted.append(Canary(path, value, token))
        return value

    def _token(self) -> str:
        number, letters = len(self.planted) + self.start, []
        for _ in range(8):
            number, place = divmod(number, len(_LETTERS))
            letters.append(_LETTERS[place])
        return f"zyx{''.join(letters)}9"


@dataclass(frozen=True)
class _Element:
    kind: str
    many: bool
    primitive: bool
    extends: bool
    group: str
    required: bool
    codes: tuple[str, ...]


@cache
def _elements(kind: str) -> dict[str, _Element]:
    """The elements of a type, by their names in JSON."""
    fields = get_fhir_model_class(kind).model_fields
    return dict(_described(fields))


def _described(fields: dict[str, Any]) -> Iterator[tuple[str, _Element]]:
    aliases = {found.alias for found in fields.values()}
    for found in fields.values():
        name = found.alias or ""
        extra = found.json_schema_extra if isinstance(found.json_schema_extra, dict) else {}
        if name in ("fhir_comments", "resourceType", "resource_type") or name.startswith("_"):
            continue
        type_name, many, primitive = _unwrapped(found.annotation, found.metadata)
        if type_name:
            codes = tuple(str(code) for code in extra.get("enum_values", ()))
            needed = any(map(extra.get, ("element_required", "one_of_many_required"))) or found.is_required()
            group = str(extra.get("one_of_many", ""))
            yield name, _Element(type_name, many, primitive, f"_{name}" in aliases, group, needed, codes)


def _unwrapped(annotation: Any, metadata: list[Any]) -> tuple[str, bool, bool]:
    """FHIR type, whether it repeats, and whether it is primitive."""
    many = False
    marks = [type(mark).__name__ for mark in metadata]
    while True:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            marks += [type(mark).__name__ for mark in annotation.__metadata__]
            annotation = arguments[0]
        elif origin is list:
            many, annotation = True, arguments[0]
        elif arguments:
            annotation = next(argument for argument in arguments if argument is not type(None))
        else:
            break
    if marks:
        return marks[0], many, True
    name = getattr(annotation, "__name__", "")
    if name.endswith("Type"):
        return name.removesuffix("Type"), many, False
    return ("Boolean" if annotation is bool else "", many, True)


def without_modifiers(node: Any) -> Any:
    """The same without modifier extensions, which stop a resource."""
    if isinstance(node, dict):
        return {name: without_modifiers(value) for name, value in node.items() if name != "modifierExtension"}
    return [without_modifiers(value) for value in node] if isinstance(node, list) else node
