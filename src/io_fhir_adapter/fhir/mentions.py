"""Where a Procedure or Encounter says that it belongs: the references and codes that a site's scope can name.

Names of elements are R4's, whatever the version they were read in. Displays and texts are never taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar, cast

from io_fhir_adapter.fhir.references import normalise
from io_fhir_adapter.fhir.structs import CodeableConcept, Encounter, Procedure, Reference
from io_fhir_adapter.model import Mention

__all__ = ["encounter_mentions", "procedure_mentions"]

_Element = TypeVar("_Element")
_NONE: tuple[Mention, ...] = ()
_BY_IDENTIFIER = "?identifier="
_PERFORMS = frozenset({"PPRF", "SPRF"})  # HL7 v3 ParticipationType: primary and secondary performer
_NOT_YET = frozenset({"planned", "reserved"})


def procedure_mentions(procedure: Procedure) -> tuple[Mention, ...]:
    """Of ``performer`` (who, for whom, as what), ``location`` and ``category``; each once, sorted."""
    if procedure.performer is None and procedure.location is None and procedure.category is None:
        return _NONE
    found: set[Mention] = set()
    for performer in procedure.performer or ():
        _refer(found, "performer.actor", performer.actor, "Practitioner")
        _refer(found, "performer.onBehalfOf", performer.onBehalfOf, "Organization")
        _code(found, "performer.function", performer.function)
        _code(found, "performer.function", performer.role)
    for place in _each(procedure.location):
        _refer(found, "location", place, "Location")
    for category in _each(procedure.category):
        _code(found, "category", category)
    return _ordered(found)


def encounter_mentions(encounter: Encounter) -> tuple[Mention, ...]:
    """Of ``serviceProvider``, ``serviceType``, ``location`` and ``participant``; each once, sorted.

    A place that was only planned is none, and of the participants only who performs: who admits or attends tells
    nothing of a Procedure.
    """
    found: set[Mention] = set()
    _refer(found, "serviceProvider", encounter.serviceProvider, "Organization")
    services = encounter.serviceType
    if isinstance(services, list):
        for service in services:
            _code(found, "serviceType", service.concept)
            _refer(found, "serviceType", service.reference, "HealthcareService")
    else:
        _code(found, "serviceType", services)
    for place in encounter.location or ():
        if place.status not in _NOT_YET:
            _refer(found, "location.location", place.location, "Location")
    for participant in encounter.participant or ():
        codes = {coding.code for concept in participant.type or () for coding in concept.coding or ()}
        if codes & _PERFORMS:
            _refer(found, "participant", participant.individual or participant.actor, "Practitioner")
    return _ordered(found)


def _ordered(found: set[Mention]) -> tuple[Mention, ...]:
    return tuple(sorted(found)) if len(found) > 1 else tuple(found)


def _each(element: _Element | Sequence[_Element] | None) -> Sequence[_Element]:
    """An element that repeats in some versions only, as a sequence."""
    if element is None:
        return ()
    return cast(list[_Element], element) if isinstance(element, list) else (cast(_Element, element),)


def _refer(found: set[Mention], element: str, reference: Reference | None, resource_type: str) -> None:
    """Adds the literal reference and the identifier, of which a Reference may have both."""
    if reference is None:
        return
    if reference.reference:
        literal = _literal(element, reference.reference, resource_type)
        if literal is not None:
            found.add(literal)
    if reference.identifier is not None and reference.identifier.value:
        found.add(Mention(element, f"{reference.identifier.system or ''}|{reference.identifier.value}"))


@lru_cache(maxsize=4_096)  # a hospital has few performers and places, and names them again and again
def _literal(element: str, reference: str, resource_type: str) -> Mention | None:
    target = normalise(reference, resource_type)
    if _BY_IDENTIFIER in target:
        token = target.partition(_BY_IDENTIFIER)[2]
        return Mention(element, token if "|" in token else f"|{token}")
    return Mention(element, target) if target else None


def _code(found: set[Mention], element: str, concept: CodeableConcept | None) -> None:
    if concept is None:
        return
    for coding in concept.coding or ():
        if coding.code:
            found.add(_token(element, coding.system or "", coding.code))


@lru_cache(maxsize=4_096)
def _token(element: str, system: str, code: str) -> Mention:
    return Mention(element, f"{system}|{code}")
