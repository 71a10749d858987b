"""The roster: whose Procedures are read from a server that wants a patient in every search."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from io_fhir_adapter.config import PatientsConfig
from io_fhir_adapter.errors import PullError
from io_fhir_adapter.fhir.references import id_of, reference_key
from io_fhir_adapter.fhir.structs import Reference
from io_fhir_adapter.pull.batches import escaped, is_literal, subject_of
from io_fhir_adapter.pull.decode import UNREADABLE, Resource
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.reading import SearchReader
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["read_roster"]

_AT_A_TIME: Final = 47  # no number at which a server may be thought to have stopped
_NESTED: Final = re.compile(r"(?:Group|List)/[A-Za-z0-9_-][A-Za-z0-9_.-]*")  # its id becomes a part of an address


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
    """Ids of the patients, sorted. Who is named in a way that leads to nobody is left out, and counted in a note.

    Raises:
        PullError: Nobody is named, or what names them cannot be read.
        TransportError: The server does not answer or refuses.
    """
    if config.origin == "csv" and config.path is not None:
        values = _from_csv(config.path, config.column)
        if config.system:
            identifiers = [(config.system, value) for value in values]
            found = await _identified(identifiers, "in the patients' file", reader, outcome)
        else:
            found = set(map(id_of, values))
    elif config.origin == "encounters":
        found = await _patients(await _from_encounters(config.query, reader), "Encounters", reader, outcome)
    else:
        kind = "Group" if config.origin == "group" else "List"
        keys = await _from_members(f"{kind}/{config.id}", client)
        found = await _patients(keys, f"members of the {kind}", reader, outcome)
    if not found:
        raise PullError(
            "no patient is named", where=f"patients from {config.origin}", do="check sources.patients", number=21
        )
    return sorted(found)


async def _from_members(name: str, client: FhirClient) -> list[str]:
    """Keys of the members of a Group or List, and of the Groups and Lists among them, each of which is read once."""
    keys: list[str] = []
    waiting = [name]
    taken = {name}
    while waiting:
        for key in await _members(waiting.pop(), client):
            if _NESTED.fullmatch(key) is None:
                keys.append(key)
            elif key not in taken:
                taken.add(key)
                waiting.append(key)
    return keys


async def _members(name: str, client: FhirClient) -> list[str]:
    kind = name.partition("/")[0]
    where = f"{client.base_url}/{kind}"

    def parse(answer: Answer) -> _Named:
        try:
            named = _DECODER.decode(answer.body)
        except UNREADABLE as exc:
            what = f"the server's {kind} cannot be read"
            raise PullError(what, where=where, do="check sources.patients.id", number=20) from exc
        if named.resourceType != kind:
            raise PullError(f"the server's answer is no {kind}", where=where, do="check sources.patients.id", number=20)
        return named

    named = await client.exchange("GET", f"{client.base_url}/{name}", parse)
    members = named.member if kind == "Group" else named.entry
    return [reference_key(one.entity or one.item, "Patient") for one in members or () if not one.deleted]


async def _from_encounters(query: str, reader: SearchReader) -> list[str]:
    """Keys of the Encounters' subjects: each patient's once, and one for each Encounter with another or none."""
    found: set[str] = set()
    others: dict[str, str] = {}

    def look(resource: Resource | None, resource_id: str) -> bool:
        key = subject_of(resource)
        if is_literal(key, "Patient"):
            found.add(key)
        else:
            others[resource_id] = key
        return False  # the Encounters themselves are read where a Procedure names them

    pairs = tuple((name, value) for name, _, value in (part.partition("=") for part in query.split("&")) if name)
    await reader.check_end("Encounter", pairs, await reader.read("Encounter", pairs, look))
    return [*found, *others.values()]


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


async def _patients(keys: Iterable[str], named: str, reader: SearchReader, outcome: SourceOutcome) -> set[str]:
    """Ids of the patients behind references; those that name them by an identifier are looked up.

    Args:
        keys: The references, as :func:`reference_key` gives them.
        named: What they stand in, for notes.
        reader: Asks the server.
        outcome: Takes notes.
    """
    found: set[str] = set()
    identifiers: set[tuple[str, str]] = set()
    left_out = 0
    for key in keys:
        kind, _, token = key.partition("?identifier=")
        system, _, value = token.partition("|")
        if is_literal(key, "Patient"):
            found.add(id_of(key))
        elif kind == "Patient" and value:
            identifiers.add((system, value))
        else:
            left_out += 1
    if left_out:
        outcome.note(f"{named} that name no patient by id or identifier are left out: {left_out:,}")
    return found | await _identified(sorted(identifiers), f"of {named}", reader, outcome)


async def _identified(
    identifiers: Sequence[tuple[str, str]], where: str, reader: SearchReader, outcome: SourceOutcome
) -> set[str]:
    """Ids of all patients who carry one of the identifiers (system and value): several records may carry the same."""
    wanted = frozenset(identifiers)
    found: dict[tuple[str, str], set[str]] = {}

    def look(resource: Resource | None, resource_id: str) -> bool:
        for identifier in getattr(resource, "identifier", None) or ():
            one = identifier.system or "", identifier.value or ""
            if one in wanted and resource_id:
                found.setdefault(one, set()).add(resource_id)
        return False

    for start in range(0, len(identifiers), _AT_A_TIME):
        part = [f"{escaped(system)}|{escaped(value)}" for system, value in identifiers[start : start + _AT_A_TIME]]
        pairs = (("identifier", ",".join(part)),)
        await reader.check_end("Patient", pairs, await reader.read("Patient", pairs, look))
    unknown = len(wanted) - len(found)
    if unknown:
        outcome.note(f"{unknown:,} of {len(wanted):,} identifiers {where} are unknown to the server")
    return {name for names in found.values() for name in names}
