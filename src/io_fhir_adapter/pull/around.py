"""Searches of one patient in a window of time: what the drawn cases' forms need, read for them and never stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import msgspec

from io_fhir_adapter.config import Config, FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, TransportError
from io_fhir_adapter.fhir.references import normalise
from io_fhir_adapter.model import Lookup
from io_fhir_adapter.pull.sources import names_at, scope_of
from io_fhir_adapter.pull.strategy import abilities_of
from io_fhir_adapter.pull.targets import fetch_of_patients, search_resources
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["Lookups", "fetch_lookups", "patient_of"]

Json = dict[str, Any]

_NOT_OFFERED: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, 405, 501})
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_NOT_UNDERSTOOD: Final = frozenset({HTTPStatus.BAD_REQUEST, 422})
_SUBJECTS: Final = ("subject", "patient", "individual")


@dataclass(slots=True)
class Lookups:
    """What searches gave.

    Attributes:
        found: The resources by source and search; of the patients that were asked for and no others, but perhaps
            others than the codes and the window say, since a server may not understand them.
        absent: Per source, the types that it does not offer, or does not let be read, and why in a few words.
    """

    found: dict[tuple[str, Lookup], list[Json]] = field(default_factory=dict, repr=False)
    absent: dict[str, dict[str, str]] = field(default_factory=dict)

    def resources_of(self, source: str) -> list[Json]:
        """Every resource that one source gave."""
        return [one for (name, _), resources in self.found.items() if name == source for one in resources]

    def of(self, source: str) -> tuple[dict[Lookup, list[Json]], Mapping[str, str]]:
        """What one source gave, and what it does not offer."""
        return (
            {lookup: resources for (name, lookup), resources in self.found.items() if name == source},
            self.absent.get(source, {}),
        )


async def fetch_lookups(config: Config, wanted: Mapping[str, Iterable[Lookup]]) -> Lookups:
    """The resources that searches find, by source.

    A source that does not offer a type, or refuses it, gives nothing of that type and the reason.

    Args:
        config: The facility's configuration.
        wanted: The searches by the name of the source.

    Raises:
        TransportError: A source does not answer.
        InputError: A file cannot be read.
    """
    result = Lookups()
    for number, source in enumerate(config.sources):
        lookups = sorted(set(wanted.get(source.name, ())), key=lambda one: (one.resource_type, one.patients, one.first))
        several, scope = scope_of(config, number)
        named = {lookup: names_at(source.name, scope, lookup.patients, several=several) for lookup in lookups}
        if not lookups:
            continue
        if isinstance(source, FhirSourceConfig):
            async with FhirClient(source, f"sources.{source.name}") as client:
                found, absent = await _from_server(client, named)
        else:
            everyone = frozenset(name for names in named.values() for name in names)
            types = frozenset(lookup.resource_type for lookup in lookups)
            gathered, present = fetch_of_patients(source, types, everyone, patient_of)
            absent = dict.fromkeys(sorted(types - present), "not offered")
            found = {
                lookup: [one for one in gathered.get(lookup.resource_type, ()) if patient_of(one) in names]
                for lookup, names in named.items()
            }
        result.absent[source.name] = absent
        result.found.update({(source.name, lookup): resources for lookup, resources in found.items()})
    return result


async def _from_server(
    client: FhirClient, named: Mapping[Lookup, Mapping[str, str]]
) -> tuple[dict[Lookup, list[Json]], dict[str, str]]:
    types = sorted({lookup.resource_type for lookup in named})
    declared = await _declared(client)
    absent = {kind: "not offered" for kind in types if declared is not None and kind not in declared}
    found: dict[Lookup, list[Json]] = {}

    async def one_type(kind: str) -> None:
        """All searches of a type one after the other, so that the first refusal spares the others."""
        for lookup, names in named.items():
            if lookup.resource_type == kind and kind not in absent and names:
                gathered, why_not = await _search(client, lookup, frozenset(names))
                if why_not:
                    absent[kind] = why_not
                found[lookup] = gathered

    await asyncio.gather(*(one_type(kind) for kind in types))
    return {lookup: found.get(lookup, []) for lookup in named}, absent


async def _declared(client: FhirClient) -> frozenset[str] | None:
    """The types that the CapabilityStatement names; None where it cannot be read or names none."""
    try:
        statement = await client.read("metadata", lambda answer: msgspec.json.decode(answer.body))
    except (AdapterError, msgspec.DecodeError):
        return None  # a statement is a hint; what the server does when asked is the answer
    abilities = abilities_of(statement)
    return frozenset(abilities.parameters) or None if abilities is not None else None


async def _search(client: FhirClient, lookup: Lookup, names: frozenset[str]) -> tuple[list[Json], str]:
    """What one search finds, and why nothing can be found where that is so.

    A server that does not understand codes or window is asked without them.
    """
    patients = (lookup.patient_parameter, ",".join(sorted(names)))
    for narrowing in dict.fromkeys((lookup.narrowing, ())):
        try:
            return await _read(client, lookup.resource_type, (patients, *narrowing), names)
        except TransportError as exc:
            if exc.status in _NOT_OFFERED:
                return [], "not offered"
            if exc.status in _REFUSED:
                return [], "refused"
            if exc.status not in _NOT_UNDERSTOOD:
                raise
    return [], "not searched by patient"


async def _read(
    client: FhirClient, kind: str, parameters: tuple[tuple[str, str], ...], names: frozenset[str]
) -> tuple[list[Json], str]:
    found = []
    async for page in search_resources(client, kind, parameters):
        for resource in page:
            about = patient_of(resource)
            if about and about not in names:  # the server did not look at the patient: do not read everybody's
                return [], "not searched by patient"
            if about and resource.get("resourceType") == kind:
                found.append(resource)
    return found, ""


def patient_of(resource: Json) -> str:
    """``Patient/…`` of whom a resource is about, empty where it names nobody."""
    for element in _SUBJECTS:
        about = resource.get(element)
        reference = about.get("reference") if isinstance(about, dict) else None
        if isinstance(reference, str):
            return normalise(reference, "Patient")
    return ""
