"""The strings that tell who somebody is, collected from source resources, for the leak scan.

People (Patient, Practitioner, RelatedPerson, Person) give names, birth dates in usual formats and addresses; every
resource gives its ids, identifiers, phone numbers, e-mail addresses and free texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

__all__ = ["identifiers_of"]

Json = dict[str, Any]

_LEAST = 4
_LEAST_TEXT = 6
_LEAST_PLAIN_NUMBER = 6
_LEAST_PHONE_DIGITS = 7
_TEXT_ELEMENTS = frozenset(
    {"text", "display", "description", "comment", "title", "div", "valueString", "valueMarkdown"}
)
_PEOPLE = frozenset({"Patient", "Practitioner", "RelatedPerson", "Person"})
_MARKUP = re.compile(r"<[^>]*>")
_MONTHS = (
    ("january", "januar"),
    ("february", "februar"),
    ("march", "märz"),
    ("april", "april"),
    ("may", "mai"),
    ("june", "juni"),
    ("july", "juli"),
    ("august", "august"),
    ("september", "september"),
    ("october", "oktober"),
    ("november", "november"),
    ("december", "dezember"),
)


def identifiers_of(resources: Iterable[Json], public: frozenset[str] = frozenset()) -> frozenset[str]:
    """Everything in these resources that no outgoing byte may hold.

    Args:
        resources: Source resources as JSON, contained ones are looked into as well.
        public: Published words in lower case (of the Questionnaire, the category titles); an identifier that equals
            one of them, such as the family name "Other", cannot be told from it and is left out.

    Returns:
        Strings of at least four characters (free texts: six), as they stand in the source and in usual variants.
    """
    found: set[str] = set()
    for resource in resources:
        found.update(_of_resource(resource))
    stripped = (" ".join(value.split()) for value in found)
    return frozenset(value for value in stripped if len(value) >= _LEAST and value.casefold() not in public)


def _of_resource(resource: Json) -> Iterator[str]:
    yield from _ids(resource)
    yield from _walk(resource)
    if resource.get("resourceType") in _PEOPLE:
        yield from _of_person(resource)
    for contained in _list(resource.get("contained")):
        if isinstance(contained, dict):
            yield from _of_resource(contained)


def _of_person(resource: Json) -> Iterator[str]:
    for name in _list(resource.get("name")):
        yield from _name(name)
    for address in _list(resource.get("address")):
        yield from _address(address)
    for contact in _list(resource.get("contact")):
        if isinstance(contact, dict):
            yield from _name(contact.get("name"))
            yield from _address(contact.get("address"))
    birth = resource.get("birthDate")
    if isinstance(birth, str):
        yield from _date_forms(birth)


def _ids(resource: Json) -> Iterator[str]:
    identity = resource.get("id")
    if not isinstance(identity, str):
        return
    if not identity.isdigit() or len(identity) >= _LEAST_PLAIN_NUMBER:
        yield identity
    if isinstance(resource.get("resourceType"), str):
        yield f"{resource['resourceType']}/{identity}"


def _walk(node: Any, parent: str = "") -> Iterator[str]:
    """Identifier and telecom values and free texts, at any depth; ``parent`` is the element that holds the node."""
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, parent)
    if not isinstance(node, dict):
        return
    for element, value in node.items():
        if isinstance(value, str):
            yield from _text(parent, element, value, node)
        elif element != "contained":
            yield from _walk(value, element)


def _text(parent: str, element: str, value: str, node: Json) -> Iterator[str]:
    if element == "value" and parent in ("identifier", "telecom"):
        yield value
        if parent == "telecom" and "@" not in value:
            digits = "".join(filter(str.isdigit, value))
            if len(digits) >= _LEAST_PHONE_DIGITS:
                yield digits
    elif element in _TEXT_ELEMENTS and not (element == "display" and "code" in node):
        plain = _MARKUP.sub(" ", value).strip() if element == "div" else value.strip()
        if len(plain) >= _LEAST_TEXT:
            yield plain


def _name(name: Any) -> Iterator[str]:
    if isinstance(name, str):
        yield name
    if not isinstance(name, dict):
        return
    family = name.get("family")
    given = [part for part in _list(name.get("given")) if isinstance(part, str)]
    text = name.get("text")
    if isinstance(text, str):
        yield text
    yield from given
    if isinstance(family, str):
        yield family
        for part in given:
            yield f"{part} {family}"
            yield f"{family}, {part}"
            yield f"{family} {part}"


def _address(address: Any) -> Iterator[str]:
    """Lines, the whole text, the city and the postal code with the city.

    A postal code of digits alone is no identifier by itself: procedure codes look the same.
    """
    if not isinstance(address, dict):
        return
    code, city, text = address.get("postalCode"), address.get("city"), address.get("text")
    yield from (line for line in _list(address.get("line")) if isinstance(line, str))
    yield from (value for value in (city, text) if isinstance(value, str))
    if isinstance(code, str):
        if not code.isdigit():
            yield code
        if isinstance(city, str):
            yield f"{code} {city}"


def _date_forms(value: str) -> Iterator[str]:
    """A full birth date as people and systems write it; nothing for a partial one."""
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return
    y, m, d = f"{day.year:04d}", f"{day.month:02d}", f"{day.day:02d}"
    yield f"{y}{m}{d}"
    for mark in "-./":
        yield mark.join((y, m, d))
        for first, second in ((d, m), (m, d), (str(day.day), str(day.month)), (str(day.month), str(day.day))):
            yield mark.join((first, second, y))
    for month in _MONTHS[day.month - 1]:
        for number in (str(day.day), d):
            yield from (f"{number} {month} {y}", f"{number}. {month} {y}", f"{month} {number}, {y}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
