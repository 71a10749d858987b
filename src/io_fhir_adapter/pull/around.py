"""Searches of one patient in a window of time: what the drawn cases' forms need, read for them and never stored."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import msgspec

from io_fhir_adapter.config import Config, FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, PullError, TransportError
from io_fhir_adapter.fhir.references import normalise
from io_fhir_adapter.model import Lookup
from io_fhir_adapter.pull.decode import UNREADABLE
from io_fhir_adapter.pull.sources import names_at, scope_of
from io_fhir_adapter.pull.strategy import abilities_of
from io_fhir_adapter.pull.targets import fetch_of_patients, search_resources
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["Lookups", "fetch_lookups", "patient_of"]

Json = dict[str, Any]

_NOT_OFFERED: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, 405, 501})
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_NOT_UNDERSTOOD: Final = frozenset({HTTPStatus.BAD_REQUEST, 422})
_FORGOTTEN: Final = frozenset({HTTPStatus.GONE, HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST})  # on a later page
_RESTARTS: Final = 2
_SUBJECTS: Final = ("subject", "patient", "individual")
_DOUBTS: Final = 3
"""So many searches that find nothing, asked in another way either, are doubt enough."""
_REFUSALS: Final = 2
"""Of so many records a type has to be refused before it is taken to be refused altogether."""


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
        PullError: An answer is no searchset, or a search cannot be read to its end.
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
    searches = _Searches(client)

    async def one_type(kind: str) -> None:
        """All searches of a type one after the other, so that the first refusals spare the others."""
        wanted = {lookup: frozenset(names) for lookup, names in named.items() if lookup.resource_type == kind and names}
        refusals = _Refusals(len({name for names in wanted.values() for name in names}))
        for lookup, names in wanted.items():
            if kind not in absent:
                found[lookup] = await searches.find(lookup, names, refusals)
                if refusals.are_general:
                    absent[kind] = refusals.why

    await asyncio.gather(*(one_type(kind) for kind in types))
    return {lookup: found.get(lookup, []) for lookup in named}, absent


async def _declared(client: FhirClient) -> frozenset[str] | None:
    """The types that the CapabilityStatement names; None where it cannot be read or names none."""
    try:
        statement = await client.read("metadata", lambda answer: msgspec.json.decode(answer.body))
    except (AdapterError, *UNREADABLE):
        return None  # a statement is a hint; what the server does when asked is the answer
    abilities = abilities_of(statement)
    return frozenset(abilities.parameters) or None if abilities is not None else None


@dataclass(slots=True)
class _Refusals:
    """Whether the server refuses a type, or single records alone: one that is sealed, one that was merged away.

    Attributes:
        records: Of how many records something of the type is wanted.
        is_answered: Whether it answered for one of them, be it that there is nothing.
        records_refused: For which of them it did not.
        why: Why it did not, in a few words.
    """

    records: int
    is_answered: bool = False
    records_refused: set[str] = field(default_factory=set)
    why: str = ""

    def note(self, record: str, why_not: str) -> None:
        """Takes what became of a search: why it was refused, empty where it was answered."""
        if why_not:
            self.records_refused.add(record)
            self.why = why_not
        else:
            self.is_answered = True

    @property
    def are_general(self) -> bool:
        """Whether it is the type: then nobody else need be asked for."""
        return not self.is_answered and len(self.records_refused) >= min(_REFUSALS, self.records)


class _Searches:
    """Searches of one server, which may want patients named by their ids alone, or not take a list of codes.

    Both it shows by finding nothing. So the first searches that find nothing are asked again in another way.
    """

    def __init__(self, client: FhirClient) -> None:
        self._client = client
        self._is_bare: bool | None = None  # not known until something was found
        self._takes_codes: dict[str, bool] = {}  # by type, whether a list of them
        self._doubts: Counter[tuple[str, bool]] = Counter()  # by type and whether it was a list of codes

    async def find(self, lookup: Lookup, names: frozenset[str], refusals: _Refusals) -> list[Json]:
        """What one search finds; nothing of a record that the server refuses.

        The records of a merged patient are asked for one by one: not every server takes a list of them.
        """
        found: list[Json] = []
        for name in sorted(names - refusals.records_refused):
            if not refusals.are_general:
                gathered, why_not = await self._of(lookup, name, names)
                refusals.note(name, why_not)
                known = {str(one["id"]) for one in found if "id" in one}  # a server may give what all records hold
                found += [one for one in gathered if str(one.get("id")) not in known]
        return found

    async def _of(self, lookup: Lookup, name: str, names: frozenset[str]) -> tuple[list[Json], str]:
        kind, several = lookup.resource_type, len(lookup.codes) > 1
        for number, (is_bare, with_codes) in enumerate(self._ways(lookup)):
            found, why_not = await self._asked(lookup, name, names, is_bare=is_bare, with_codes=with_codes)
            if found:
                self._is_bare = is_bare
            if several and any(_carries(one, lookup.codes) for one in found):
                self._takes_codes.setdefault(kind, with_codes)
            if found or (why_not and number == 0):
                return found, why_not
            self._doubts[kind, several] += number == 0
        return [], ""

    def _ways(self, lookup: Lookup) -> Iterator[tuple[bool, bool]]:
        """Whether the patient is named by the bare id and whether codes are named: the usual way, then the others."""
        kind, several = lookup.resource_type, len(lookup.codes) > 1
        is_open = self._doubts[kind, several] < _DOUBTS
        bare = [self._is_bare] if self._is_bare is not None else [False, True][: 1 + is_open]
        known = self._takes_codes.get(kind) if several else True
        coded = [known] if known is not None else [True, False][: 1 + is_open]
        return ((is_bare, with_codes) for with_codes in coded for is_bare in bare)

    async def _asked(
        self, lookup: Lookup, name: str, names: frozenset[str], *, is_bare: bool, with_codes: bool
    ) -> tuple[list[Json], str]:
        """One search. A server that does not understand codes or window is asked without them."""
        patient = (lookup.patient_parameter, name.removeprefix("Patient/") if is_bare else name)
        narrowing = tuple(pair for pair in lookup.narrowing if with_codes or pair[0] != "code")
        for narrower in dict.fromkeys((narrowing, ())):
            try:
                return await _read(self._client, lookup.resource_type, (patient, *narrower), names)
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
    """One whole search, started again where the server forgot it half-way.

    Raises:
        PullError: It goes no further than its first pages.
        TransportError: The server does not answer, or refuses the search.
    """
    left = _RESTARTS
    while True:
        found: list[Json] = []
        pages = 0
        try:
            async for page in search_resources(client, kind, parameters):
                pages += 1
                for resource in page:
                    about = patient_of(resource)
                    if about and about not in names:  # the server did not look at the patient: do not read everybody's
                        return [], "not searched by patient"
                    if about and resource.get("resourceType") == kind:
                        found.append(resource)
        except TransportError as exc:
            if not pages or exc.status is None or exc.transient:
                raise
            if exc.status not in _FORGOTTEN or not left:
                raise PullError(
                    f"the server gave the first pages of a search and then refused the next one (HTTP {exc.status})",
                    where=f"{client.base_url}/{kind}",
                    do="run again; if it persists, ask the server's vendor how long a search can be read",
                    number=37,
                    transient=True,
                ) from exc
            left -= 1
        else:
            return found, ""


def _carries(resource: Json, codes: Iterable[str]) -> bool:
    """Whether a resource has one of the codes, which are written as a search names them."""
    concept = resource.get("code")
    codings = concept.get("coding") if isinstance(concept, dict) else None
    own = [one for one in codings if isinstance(one, dict)] if isinstance(codings, list) else []
    return any(code in {one.get("code"), f"{one.get('system')}|{one.get('code')}"} for one in own for code in codes)


def patient_of(resource: Json) -> str:
    """``Patient/…`` of whom a resource is about, empty where it names nobody."""
    for element in _SUBJECTS:
        about = resource.get(element)
        reference = about.get("reference") if isinstance(about, dict) else None
        if isinstance(reference, str):
            return normalise(reference, "Patient")
    return ""
