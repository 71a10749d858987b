"""The strings that tell who somebody is, collected from source resources, for the leak scan.

People (Patient, Practitioner, RelatedPerson, Person) give names, birth dates in usual formats and addresses; every
resource gives its ids, identifiers, phone numbers, e-mail addresses, free texts and the people that it points to. All
else that a record says in words of its own (local codes, file names, addresses on the web) is collected apart: it tells
of a person where it is the whole of a value, and could stand anywhere as a part of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from io_fhir_adapter.fhir.references import id_of, normalise

__all__ = ["date_forms", "id_forms", "identifiers_of", "texts_of", "values_of"]

Json = dict[str, Any]

_LEAST = 4
_LEAST_TEXT = 6
_LEAST_VALUE = 6
_LEAST_PLAIN_NUMBER = 6
_LEAST_PHONE_DIGITS = 7
_TEXT_ELEMENTS = frozenset(
    {
        "text", "display", "description", "comment", "title", "div",
        "valueString", "valueMarkdown", "authorString", "patientInstruction",
    }
)  # fmt: skip
_PEOPLE = frozenset({"Patient", "Practitioner", "RelatedPerson", "Person"})
_PLACES = ("Organization/", "Location/", "HealthcareService/")
_MARKUP = re.compile(r"<[^>]*>")
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T.*)?)?)?\Z")
_VOCABULARY = re.compile(r"[a-z]+([-/.][a-z]+)*\Z")  # official, problem-list-item, text/plain: words of FHIR itself
_VOCABULARIES = (
    "http://terminology.hl7.org/", "http://hl7.org/fhir/", "http://loinc.org", "http://unitsofmeasure.org",
)  # fmt: skip
_MONTHS = (
    ("january", "januar", "jan"),
    ("february", "februar", "feb"),
    ("march", "märz", "mar", "mär"),
    ("april", "apr"),
    ("may", "mai"),
    ("june", "juni", "jun"),
    ("july", "juli", "jul"),
    ("august", "aug"),
    ("september", "sep", "sept"),
    ("october", "oktober", "oct", "okt"),
    ("november", "nov"),
    ("december", "dezember", "dec", "dez"),
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


def values_of(
    resources: Iterable[Json], public: frozenset[str] = frozenset(), shapes: Iterable[re.Pattern[str]] = ()
) -> frozenset[str]:
    """Every other string of these resources that no outgoing element may have as its whole value.

    Left out are dates, plain numbers, vocabulary of FHIR itself, published texts and codes that may leave.

    Args:
        resources: Source resources as JSON.
        public: Published texts and words in lower case.
        shapes: What codes look like that may leave.
    """
    admitted = tuple(shapes)
    return frozenset(
        value
        for value in texts_of(resources)
        if len(value) >= _LEAST_VALUE
        and value.casefold() not in public
        and not (value.isdigit() or _DATE.match(value) or _VOCABULARY.match(value) or value.startswith(_VOCABULARIES))
        and not any(shape.fullmatch(value.strip()) for shape in admitted)
    )


def texts_of(documents: Iterable[Any]) -> Iterator[str]:
    """Every string in JSON documents, but the types of resources; object names are none."""
    pending = list(documents)
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            pending += [value for name, value in node.items() if name != "resourceType"]


def _of_resource(resource: Json) -> Iterator[str]:
    yield from _ids(resource)
    yield from _walk(resource)
    if resource.get("resourceType") in _PEOPLE:
        birth = resource.get("birthDate")
        if isinstance(birth, str):
            yield from date_forms(birth)
        for name in _list(resource.get("name")):
            if isinstance(name, str):
                yield name
    for contained in _list(resource.get("contained")):
        if isinstance(contained, dict):
            yield from _of_resource(contained)


def _ids(resource: Json) -> Iterator[str]:
    identity = resource.get("id")
    if not isinstance(identity, str):
        return
    yield from id_forms(str(resource.get("resourceType", "")), identity)


def id_forms(kind: str, identity: str) -> Iterator[str]:
    """An id by itself, unless it is a short number, which could be anything; and with its type."""
    if not identity.isdigit() or len(identity) >= _LEAST_PLAIN_NUMBER:
        yield identity
    if kind:
        yield f"{kind}/{identity}"


def _walk(node: Any, parent: str = "") -> Iterator[str]:
    """Identifier and telecom values, names, addresses and free texts at any depth.

    Args:
        node: What is walked.
        parent: The element that holds it.
    """
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, parent)
    if not isinstance(node, dict):
        return
    if "family" in node or "given" in node:
        yield from _name(node)
    if "postalCode" in node or "line" in node or "city" in node:
        yield from _address(node)
    for element, value in node.items():
        if isinstance(value, str):
            yield from _text(parent, element, value, node)
        elif element != "contained":
            yield from _walk(value, element)


def _text(parent: str, element: str, value: str, node: Json) -> Iterator[str]:
    if element == "value":  # of an Identifier or a ContactPoint: other values are no strings
        yield value
        if parent not in ("identifier", "valueIdentifier") and "@" not in value:
            digits = "".join(filter(str.isdigit, value))
            if len(digits) >= _LEAST_PHONE_DIGITS:
                yield digits
    elif element == "reference":
        named = normalise(value, "")
        if "?" in named:
            yield named.rpartition("|")[2]
        elif named and not named.startswith(_PLACES):
            yield from id_forms(named.partition("/")[0], id_of(named))
    elif element in _TEXT_ELEMENTS and not (element == "display" and "code" in node):
        plain = _MARKUP.sub(" ", value).strip() if element == "div" else value.strip()
        if len(plain) >= (_LEAST if parent == "name" else _LEAST_TEXT):
            yield plain


def _name(name: Json) -> Iterator[str]:
    family = name.get("family")
    given = [part for part in _list(name.get("given")) if isinstance(part, str)]
    yield from given
    if isinstance(family, str):
        yield family
        for part in given:
            yield f"{part} {family}"
            yield f"{family}, {part}"
            yield f"{family} {part}"


def _address(address: Json) -> Iterator[str]:
    """Lines, the city and the postal code with the city.

    A postal code of digits alone is no identifier by itself: procedure codes look the same.
    """
    code, city = address.get("postalCode"), address.get("city")
    yield from (line for line in _list(address.get("line")) if isinstance(line, str))
    if isinstance(city, str):
        yield city
    if isinstance(code, str):
        if not code.isdigit():
            yield code
        if isinstance(city, str):
            yield f"{code} {city}"


def date_forms(value: str) -> Iterator[str]:
    """A full birth date as people and systems write it; nothing for a partial one."""
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return
    y, m, d = f"{day.year:04d}", f"{day.month:02d}", f"{day.day:02d}"
    yield from (f"{y}{m}{d}", f"{y}{m}{d}000000", f"{d}{m}{y}")
    for mark in "-./":
        yield from (mark.join((y, m, d)), mark.join((y, str(day.month), str(day.day))))
        for first, second in ((d, m), (m, d), (str(day.day), str(day.month)), (str(day.month), str(day.day))):
            yield from (mark.join((first, second, y)), mark.join((first, second, y[2:])))
    for month in _MONTHS[day.month - 1]:
        for number in (str(day.day), d):
            yield from (f"{number} {month} {y}", f"{number}. {month} {y}", f"{month} {number}, {y}")
            yield from (f"{number}-{month}-{y}", f"{number}{month}{y}", f"{month} {number} {y}")
        yield f"{day.day}{_ordinal_ending(day.day)} {month} {y}"


def _ordinal_ending(number: int) -> str:
    return "th" if number // 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
