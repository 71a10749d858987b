"""Which way to read a server: what it says that it can do, what it does when asked, and what follows from both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

import msgspec

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, PullError, TransportError
from io_fhir_adapter.pull.decode import UNREADABLE
from io_fhir_adapter.pull.searchset import parse_searchset
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["Abilities", "Choice", "abilities_of", "choose", "objects_in"]

Way = Literal["search", "bulk", "patient"]
_NO: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, 405, 422, 501})
"""What servers answer that want a patient in every search, or do not search at all."""
_JSON: Final = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a CapabilityStatement says.

    Attributes:
        version: FHIR version, empty where it does not say.
        software: Name of the software, empty where it does not say.
        parameters: Search parameters by resource type.
        exports: At which levels it says that it exports: ``system``, ``group``, ``patient``.
    """

    version: str = ""
    software: str = ""
    parameters: dict[str, frozenset[str]] = field(default_factory=dict)
    exports: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    """The way that was chosen.

    Attributes:
        way: ``search``, ``bulk`` or ``patient``.
        why: In one plain sentence.
        do: What to configure so that it can work, empty where nothing is missing.
    """

    way: Way
    why: str
    do: str = ""


def abilities_of(statement: Any) -> Abilities | None:
    """What a CapabilityStatement says; None where it is none. Whatever has another shape than FHIR says is left out."""
    if not isinstance(statement, dict) or statement.get("resourceType") != "CapabilityStatement":
        return None
    parameters: dict[str, frozenset[str]] = {}
    exports: set[str] = set()
    for rest in objects_in(statement.get("rest")):
        if _exports(rest):
            exports.add("system")
        for resource in objects_in(rest.get("resource")):
            kind = str(resource.get("type", ""))
            parameters[kind] = frozenset(str(one.get("name", "")) for one in objects_in(resource.get("searchParam")))
            if _exports(resource) and kind in {"Group", "Patient"}:
                exports.add(kind.lower())
    software = statement.get("software")
    name = str(software.get("name", "")) if isinstance(software, dict) else ""
    return Abilities(str(statement.get("fhirVersion", "")), name, parameters, frozenset(exports))


def objects_in(value: Any) -> Iterable[dict[str, Any]]:
    """The objects in what ought to be a list of them; what has another shape than FHIR says is left out."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _exports(node: dict[str, Any]) -> bool:
    """Whether an operation is an export, by its name or by the definition it points to."""
    texts = [f"{one.get('name', '')} {one.get('definition', '')}".lower() for one in objects_in(node.get("operation"))]
    return any("export" in text for text in texts)


async def choose(config: FhirSourceConfig, client: FhirClient) -> Choice:
    """The way to read a source: what is configured, or for ``auto`` the first that the server allows.

    A search finds changes of one night with a handful of requests, so it comes first; then an export; then patient
    by patient.

    Raises:
        PullError: The server allows no way that is configured.
        TransportError: It does not answer at all.
    """
    if config.strategy != "auto":
        return Choice(config.strategy, "as configured")
    refusal = await _probe(client, config.since)
    if not refusal:
        return Choice("search", "the server searches the Procedures of everyone")
    abilities = await _declared(client)
    level = config.bulk.level
    if level in abilities.exports or "bulk" in config.model_fields_set:
        said = "says that it exports" if level in abilities.exports else "is configured to export"
        return Choice(
            "bulk", f"the server refuses to search the Procedures of everyone ({refusal}) and {said} ({level})"
        )
    if config.patients is not None:
        return Choice("patient", f"the server refuses to search the Procedures of everyone ({refusal})")
    group = "group" in abilities.exports
    do = "name a Group to export under bulk, or " if group else ""
    raise PullError(
        f"the server refuses to search the Procedures of everyone ({refusal})",
        where=f"source {config.name}",
        do=f"{do}say under patients whose Procedures to read, and check the scopes of the sign-in",
        number=22,
    )


async def _probe(client: FhirClient, since: str | None) -> str:
    """Empty where the server searches the Procedures of everyone, else what it answers."""
    date = f"&date=ge{since}" if since else ""
    url = f"{client.base_url}/Procedure?_count=1"

    def parse(answer: Answer) -> None:
        parse_searchset(answer, url, "Procedure")

    for asked in dict.fromkeys((url + date, url)):
        try:
            await client.exchange("GET", asked, parse)
        except TransportError as exc:
            if exc.status not in _NO:
                raise
            refusal = f"HTTP {exc.status}"
        else:
            return ""
    return refusal


async def _declared(client: FhirClient) -> Abilities:
    """What the CapabilityStatement says; nothing where it cannot be read."""
    try:
        statement = await client.exchange(
            "GET", f"{client.base_url}/metadata", lambda answer: _JSON.decode(answer.body)
        )
    except (AdapterError, *UNREADABLE):
        return Abilities()  # a statement is a hint; what the server does when asked is the answer
    return abilities_of(statement) or Abilities()
