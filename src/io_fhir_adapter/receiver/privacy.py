"""What a case resource must not hold: the structural part, first cut.

Only what can be told from the structure is checked here: elements that carry persons, places and free text. It does
not replace the sender's allow-list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from io_fhir_adapter.canonical_urls import BASE, PATIENT_TOKEN
from io_fhir_adapter.receiver.wire import Issue

__all__ = ["privacy_issues"]

_PATIENT: Final = frozenset(
    {"resourceType", "meta", "extension", "identifier", "active", "gender", "deceasedBoolean", "_birthDate"}
)
_FORBIDDEN: Final[Mapping[str, frozenset[str]]] = {
    "Procedure": frozenset({"performer", "recorder", "asserter", "location", "note", "report"}),
    "Condition": frozenset({"recorder", "asserter", "note"}),
    "Encounter": frozenset(
        {"participant", "location", "serviceProvider", "hospitalization", "account", "appointment", "episodeOfCare"}
    ),
    "QuestionnaireResponse": frozenset({"author", "source", "partOf", "basedOn"}),
}
_REFERENCE: Final = frozenset({"reference", "type"})
_FREE: Final = frozenset({"contained", "valueAttachment", "valueAnnotation", "valueHumanName", "valueAddress"})


def privacy_issues(resource: Mapping[str, Any], place: str) -> Iterator[Issue]:
    """The issues of one case resource; nothing for resources that hold no case.

    Args:
        resource: A valid resource.
        place: Its FHIRPath, such as ``Bundle.entry[3].resource``.
    """
    kind = resource["resourceType"]
    if "text" in resource:
        yield Issue("business-rule", "narrative is not accepted", f"{place}.text")
    if "contained" in resource:
        yield Issue("business-rule", "contained resources are not accepted", f"{place}.contained")
    if kind == "Patient":
        yield from _patient(resource, place)
    elif kind in _FORBIDDEN:
        for name in sorted(_FORBIDDEN[kind] & resource.keys()):
            yield _refused(f"{place}.{name}")
        yield from _identifiers(resource.get("identifier", []), f"{place}.identifier")
    else:
        return
    for name, value in resource.items():
        if name not in ("identifier", "meta"):
            yield from _nested(value, f"{place}.{name}")


def _refused(place: str) -> Issue:
    return Issue("business-rule", "this element can identify a person and is not accepted", place)


def _patient(resource: Mapping[str, Any], place: str) -> Iterator[Issue]:
    for name in sorted(resource.keys() - _PATIENT):
        if name not in ("text", "contained"):
            yield _refused(f"{place}.{name}")
    identifiers = resource.get("identifier", [])
    if (
        len(identifiers) != 1
        or identifiers[0].keys() != {"system", "value"}
        or identifiers[0]["system"] != PATIENT_TOKEN
    ):
        yield Issue("business-rule", "a patient carries one identifier, the token of the case", f"{place}.identifier")


def _identifiers(identifiers: Any, place: str) -> Iterator[Issue]:
    """A case's resources carry identifiers of our own making only."""
    for identifier in identifiers if isinstance(identifiers, list) else [identifiers]:
        if identifier.keys() != {"system", "value"} or not identifier["system"].startswith(f"{BASE}/"):
            yield Issue("business-rule", "an identifier of the hospital is not accepted", place)


def _nested(value: Any, place: str) -> Iterator[Issue]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nested(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        if "reference" in value and not value.keys() <= _REFERENCE:
            yield _refused(place)
        for name, item in value.items():
            if name in _FREE or name == "identifier":
                yield _refused(f"{place}.{name}")
            else:
                yield from _nested(item, f"{place}.{name}")
