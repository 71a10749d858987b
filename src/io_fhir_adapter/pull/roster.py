"""The roster: whose Procedures are read from a server that wants a patient in every search."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from io_fhir_adapter.config import PatientsConfig
from io_fhir_adapter.errors import PullError
from io_fhir_adapter.fhir.references import id_of, reference_key
from io_fhir_adapter.fhir.structs import Reference
from io_fhir_adapter.pull.batches import is_literal, subject_of
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.reading import SearchReader
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["read_roster"]

_AT_A_TIME: Final = 50


class _Member(msgspec.Struct, gc=False):
    entity: Reference | None = None
    item: Reference | None = None
    deleted: bool | None = None


class _Named(msgspec.Struct, gc=False):
    """A Group or a List, as far as it names patients."""

    resourceType: str = ""
    member: list[_Member] | None = None
    entry: list[_Member] | None = None


_DECODER: Final = msgspec.json.Decoder(_Named)


async def read_roster(
    config: PatientsConfig, client: FhirClient, reader: SearchReader, outcome: SourceOutcome
) -> list[str]:
    """Ids of the patients, sorted.

    Raises:
        PullError: Nobody is named, or what names them cannot be read.
        TransportError: The server does not answer or refuses.
    """
    if config.origin == "csv" and config.path is not None:
        named = _from_csv(config.path, config.column)
        found = await _identified(config.system, named, reader, outcome) if config.system else set(map(id_of, named))
    elif config.origin == "encounters":
        found = await _from_encounters(config.query, reader)
    else:
        kind = "Group" if config.origin == "group" else "List"
        found = await _from_members(f"{client.base_url}/{kind}/{config.id}", kind, client)
    if not found:
        raise PullError(
            "no patient is named", where=f"patients from {config.origin}", do="check sources.patients", number=21
        )
    return sorted(found)


async def _from_members(url: str, kind: str, client: FhirClient) -> set[str]:
    def parse(answer: Answer) -> _Named:
        try:
            named = _DECODER.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            what = f"the server's {kind} cannot be read"
            raise PullError(what, where=url, do="check sources.patients.id", number=20) from exc
        if named.resourceType != kind:
            raise PullError(f"the server's answer is no {kind}", where=url, do="check sources.patients.id", number=20)
        return named

    named = await client.exchange("GET", url, parse)
    members = named.member if kind == "Group" else named.entry
    keys = [reference_key(one.entity or one.item, "Patient") for one in members or () if not one.deleted]
    return {id_of(key) for key in keys if is_literal(key, "Patient")}


async def _from_encounters(query: str, reader: SearchReader) -> set[str]:
    found: set[str] = set()

    def look(resource: Resource | None, _: str) -> bool:
        key = subject_of(resource)
        if is_literal(key, "Patient"):
            found.add(id_of(key))
        return False  # the Encounters themselves are read where a Procedure names them

    pairs = tuple((name, value) for name, _, value in (part.partition("=") for part in query.split("&")) if name)
    await reader.read("Encounter", pairs, look)
    return found


def _from_csv(path: Path, column: str | None) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if column is None:
                rows = [row[0].strip() for row in csv.reader(file) if row and not row[0].startswith("#")]
            else:
                reader = csv.DictReader(file)
                if column not in (reader.fieldnames or ()):
                    raise PullError(
                        "the column is not in the first line of the file",
                        where=str(path), do="check sources.patients.column", number=20,
                    )  # fmt: skip
                rows = [(row[column] or "").strip() for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        what = "the file that names the patients cannot be read"
        raise PullError(what, where=str(path), do="check the path, and that it is UTF-8", number=20) from exc
    return [value for value in dict.fromkeys(rows) if value]


async def _identified(system: str, values: Iterable[str], reader: SearchReader, outcome: SourceOutcome) -> set[str]:
    """Ids of the patients who carry one of the identifiers."""
    wanted = list(values)
    found: dict[str, str] = {}

    def look(resource: Resource | None, resource_id: str) -> bool:
        for identifier in getattr(resource, "identifier", None) or ():
            if identifier.system == system and identifier.value:
                found[identifier.value] = resource_id
        return False

    for start in range(0, len(wanted), _AT_A_TIME):
        part = [f"{system}|{value}".replace(",", "\\,") for value in wanted[start : start + _AT_A_TIME]]
        await reader.read("Patient", (("identifier", ",".join(part)),), look)
    unknown = len(set(wanted) - found.keys())
    if unknown:
        outcome.note(f"{unknown:,} of {len(wanted):,} identifiers in the patients' file are unknown to the server")
    return {found[value] for value in wanted if value in found}
