"""The entries of an incoming Bundle: whether each can be stored, what it asks for, and where its references lead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.receiver.published import is_published
from io_fhir_adapter.receiver.wire import Issue, Limits, RefusedError

__all__ = [
    "RESOURCE_TYPES",
    "EntryTarget",
    "entries_of",
    "entry_issues",
    "entry_target",
    "link_issues",
    "of_kind",
    "parse_token",
    "place_of",
    "references",
    "target_issues",
]

Entries = list[dict[str, Any]]

RESOURCE_TYPES: Final = frozenset(
    {
        "Condition",
        "Encounter",
        "Group",
        "List",
        "Measure",
        "MeasureReport",
        "Patient",
        "Procedure",
        "Provenance",
        "Questionnaire",
        "QuestionnaireResponse",
    }
)
"""The types that a submission may hold."""

_ENTRY_ELEMENTS: Final = frozenset({"fullUrl", "resource", "request"})
_BY_ID: Final = re.compile(r"([A-Za-z]{1,64})/([A-Za-z0-9.-]{1,64})")
_FULL_URL: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class EntryTarget:
    """Which stored resource an entry updates: by logical id, or by ``identifier`` or ``url`` (``system`` empty)."""

    kind: str
    by: Literal["id", "identifier", "url"]
    system: str
    value: str


def place_of(index: int) -> str:
    """The FHIRPath of an entry's resource."""
    return f"Bundle.entry[{index}].resource"


def entries_of(bundle: Mapping[str, Any], limits: Limits) -> Entries:
    """The entries of a transaction whose own elements are valid.

    Raises:
        RefusedError: 422, it is no transaction, has no entries, or elements that are not FHIR; 413, it has too many.
    """
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction":
        raise RefusedError(422, Issue("invalid", "send one Bundle of type transaction", "Bundle.type"))
    entries = bundle.get("entry")
    if not isinstance(entries, list) or not entries:
        raise RefusedError(422, Issue("required", "the Bundle has no entries", "Bundle.entry"))
    if len(entries) > limits.entries:
        raise RefusedError(413, Issue("too-long", f"the Bundle has more than {limits.entries} entries", "Bundle.entry"))
    shell = {name: value for name, value in bundle.items() if name != "entry"}
    problems = resource_problems(shell, frozenset({"Bundle"}))
    if problems:
        raise RefusedError(422, *(Issue("structure", problem.words, problem.path) for problem in problems))
    return entries


def entry_issues(entries: list[Any]) -> Iterator[Issue]:
    """What is no valid FHIR R4 in the entries, or no request that is taken here."""
    for index, entry in enumerate(entries):
        place = f"Bundle.entry[{index}]"
        if not isinstance(entry, dict) or entry.keys() != _ENTRY_ELEMENTS:
            yield Issue("structure", "an entry has fullUrl, resource and request, and nothing else", place)
            continue
        full_url = entry["fullUrl"]
        if not isinstance(full_url, str) or not _FULL_URL.fullmatch(full_url):
            yield Issue("value", "must be a urn:uuid in lower case", f"{place}.fullUrl")
        known = is_published(entry["resource"])  # the largest by far, and the same every time
        for problem in () if known else resource_problems(entry["resource"], RESOURCE_TYPES):
            path = problem.path.partition(".")[2]
            yield Issue("structure", problem.words, f"{place}.resource.{path}" if path else f"{place}.resource")
        request = entry["request"]
        if not isinstance(request, dict) or request.keys() != {"method", "url"} or request["method"] != "PUT":
            yield Issue("not-supported", "the one request accepted is PUT with a url", f"{place}.request")
        elif not isinstance(request["url"], str):
            yield Issue("value", "must be a string", f"{place}.request.url")


def entry_target(url: str) -> EntryTarget:
    """What ``Type/id``, ``Type?identifier=system|value`` or ``Type?url=…`` asks for.

    Raises:
        RefusedError: 422, the request asks for something else.
    """
    by_id = _BY_ID.fullmatch(url)
    if by_id:
        return EntryTarget(by_id.group(1), "id", "", by_id.group(2))
    kind, _, query = url.partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    if len(parameters) == 1 and kind in RESOURCE_TYPES:
        name, text = parameters[0]
        if name == "url" and text:
            return EntryTarget(kind, "url", "", text)
        system, value = parse_token(text)
        if name == "identifier" and system and value:
            return EntryTarget(kind, "identifier", system, value)
    raise RefusedError(
        422,
        Issue("not-supported", "a request names Type/id, Type?identifier=system|value or Type?url=", "Bundle.entry"),
    )


def parse_token(text: str) -> tuple[str | None, str]:
    """System and value of a token search, ``None`` where no system is asked for; unescapes FHIR's backslashes."""
    parts = [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\)\|", text, maxsplit=1)]
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def target_issues(entries: Entries, targets: tuple[EntryTarget, ...]) -> Iterator[Issue]:
    """The resource must be what its request says, or sending it again would store it twice."""
    for index, (entry, target) in enumerate(zip(entries, targets, strict=True)):
        resource = entry["resource"]
        if target.kind != resource["resourceType"]:
            yield Issue("invalid", "the request is about another resource type", f"Bundle.entry[{index}].request.url")
        elif target.by == "id" and resource.get("id") != target.value:
            yield Issue("invalid", "the id is not that of the request", f"{place_of(index)}.id")
        elif target.by != "id" and "id" in resource:
            yield Issue("invalid", "the receiver gives the id", f"{place_of(index)}.id")
        elif target.by == "url" and resource.get("url") != target.value:
            yield Issue("invalid", "the url is not that of the request", f"{place_of(index)}.url")
        elif target.by == "identifier" and not any(
            item.get("system") == target.system and item.get("value") == target.value for item in _identifiers(resource)
        ):
            yield Issue("invalid", "the identifier of the request is missing", f"{place_of(index)}.identifier")
    if len(set(targets)) != len(targets):
        yield Issue("duplicate", "two entries update the same resource", "Bundle.entry")


def _identifiers(resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = resource.get("identifier", [])
    return given if isinstance(given, list) else [given]


def references(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every literal reference within ``value``, with its FHIRPath."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from references(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "reference" and isinstance(item, str):
                yield item, f"{place}.reference"
            else:
                yield from references(item, f"{place}.{name}")


def link_issues(entries: Entries) -> Iterator[Issue]:
    """Every reference leads to an entry of the Bundle: a submission can be judged from itself alone."""
    urls = {entry["fullUrl"] for entry in entries}
    if len(urls) != len(entries):
        yield Issue("duplicate", "two entries have the same fullUrl", "Bundle.entry")
    for index, entry in enumerate(entries):
        for reference, place in references(entry["resource"], place_of(index)):
            if reference not in urls:
                yield Issue("not-found", "the reference leads to no entry of the Bundle", place)


def of_kind(entries: Entries, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """Index and entry of every entry of a type."""
    return [(index, entry) for index, entry in enumerate(entries) if entry["resource"]["resourceType"] == kind]
