"""Fetching whole resources for a few: what the drawn cases' forms need, read when they are needed, never stored."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from io_fhir_adapter.config import FilesSourceConfig
from io_fhir_adapter.errors import InputError, TransportError
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.fhir.structs import Bundle, Header
from io_fhir_adapter.pull.decode import UNREADABLE, has_resource
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.pull.searchset import Page, search_pages, searchset_of
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["fetch_by_reference", "fetch_from_files", "fetch_of_patients", "search_resources"]

Json = dict[str, Any]
_BATCH = 50
_DEEPEST: Final = 60  # levels
_LITERAL: Final = re.compile(r"[A-Za-z]+/[^/?,]+")
_READABLE: Final = re.compile(r"[A-Za-z]+/[A-Za-z0-9_-][A-Za-z0-9_.-]*")  # ids as FHIR writes them, for a path
_HEADER: Final = msgspec.json.Decoder(Header)
_BUNDLE: Final = msgspec.json.Decoder(Bundle)


async def fetch_by_reference(client: FhirClient, references: Iterable[str]) -> dict[str, Json]:
    """Whole resources by ``Type/id``, read in batches by ``_id``; those the server does not have are absent.

    What a batch did not bring is asked for by itself, since not every server takes lists. A reference that names its
    target by an identifier cannot be read so and is absent too.

    Raises:
        PullError: An answer is no searchset.
        TransportError: The server does not answer, or refuses searches.
    """
    by_type: dict[str, list[str]] = {}
    for reference in sorted(set(references)):
        if _LITERAL.fullmatch(reference):
            by_type.setdefault(reference.partition("/")[0], []).append(id_of(reference))
    found: dict[str, Json] = {}
    for resource_type, ids in by_type.items():
        for start in range(0, len(ids), _BATCH):
            wanted = {f"{resource_type}/{resource_id}" for resource_id in ids[start : start + _BATCH]}
            params = {"_id": ",".join(ids[start : start + _BATCH]), "_count": str(_BATCH)}
            async for page in search_pages(client, resource_type, params, _page):
                for resource in page.items:
                    reference = f"{resource.get('resourceType')}/{resource.get('id')}"
                    if reference in wanted:
                        found[reference] = resource
                if wanted <= found.keys():
                    break
            for reference in sorted(wanted - found.keys()):
                single = await _read(client, reference)
                if single is not None:
                    found[reference] = single
    return found


async def _read(client: FhirClient, reference: str) -> Json | None:
    """One resource by its id, None where the server does not have it or does not let it be read so."""
    if not _READABLE.fullmatch(reference):
        return None
    try:
        resource = await client.read(reference, lambda answer: _whole(answer.body))
    except TransportError as exc:
        if exc.transient or exc.status is None:
            raise
        return None
    is_it = resource is not None and f"{resource.get('resourceType')}/{resource.get('id')}" == reference
    return resource if is_it else None


def _whole(data: bytes | msgspec.Raw) -> Json | None:
    """A resource with all its elements; None for what is none, or is nested deeper than any."""
    resource = _parsed(data)
    return resource if resource is not None and _is_flat(resource) else None


def _parsed(data: bytes | msgspec.Raw) -> Json | None:
    """The same, however deep.

    A byte in another encoding, which the pull did not look at, becomes a question mark: no text leaves anyway.
    """
    try:
        found = json.loads(bytes(data).decode("utf-8", "replace"), strict=False, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_flat(resource: Json) -> bool:
    """Whether it is nested no deeper than what goes through it can follow."""
    level: list[Any] = [resource]
    for _ in range(_DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [child for children in inner for child in children]
        if not level:
            return True
    return False


async def search_resources(
    client: FhirClient, resource_type: str, params: Iterable[tuple[str, str]]
) -> AsyncIterator[list[Json]]:
    """Whole resources that a search finds, page by page; a parameter may be given more than once."""
    async for page in search_pages(client, resource_type, tuple(params), _page):
        yield list(page.items)


def _page(answer: Answer, where: str) -> Page[Json]:
    bundle = searchset_of(answer, where)
    resources = [_whole(entry.resource) for entry in bundle.entry or () if has_resource(entry)]
    link = next((link.url for link in bundle.link or () if link.relation == "next" and link.url), "")
    return Page([resource for resource in resources if resource is not None], bundle.total, link, answer.url)


def fetch_from_files(config: FilesSourceConfig, references: Iterable[str]) -> dict[str, Json]:
    """Whole resources by ``Type/id`` out of a files source; of several versions the newest, else the last.

    Raises:
        InputError: A file cannot be read.
    """
    wanted = frozenset(references)
    found: dict[str, Json] = {}
    for source in find_inputs(config.paths):
        if source.path is None:
            continue
        for raw in _documents(source.path, source.name):
            for reference, resource in _wanted_in(raw, wanted):
                if reference not in found or not _is_newer(found[reference], resource):
                    found[reference] = resource
    return found


def fetch_of_patients(
    config: FilesSourceConfig, types: Collection[str], patients: Collection[str], patient_of: Callable[[Json], str]
) -> tuple[dict[str, list[Json]], frozenset[str]]:
    """Whole resources of some types about some patients out of a files source; of several versions the newest.

    Args:
        config: The source.
        types: The resource types.
        patients: References as the files write them.
        patient_of: Gives the reference of whom a resource is about.

    Returns:
        The resources by type, and the types of which the files hold any, whoever they are about.

    Raises:
        InputError: A file cannot be read.
    """
    found: dict[str, dict[str, Json]] = {kind: {} for kind in types}
    present: set[str] = set()
    for source in find_inputs(config.paths):
        if source.path is None:
            continue
        for raw in _documents(source.path, source.name):
            for kind, data in _of_types(raw, types):
                present.add(kind)
                resource = _parsed(data)
                if resource is None or patient_of(resource) not in patients or not _is_flat(resource):
                    continue
                name = str(resource.get("id"))
                if name not in found[kind] or not _is_newer(found[kind][name], resource):
                    found[kind][name] = resource
    return {kind: list(by_id.values()) for kind, by_id in found.items()}, frozenset(present)


def _of_types(data: bytes | msgspec.Raw, types: Collection[str]) -> Iterator[tuple[str, bytes | msgspec.Raw]]:
    header = _header(data)
    if header is None:
        return
    if header.resourceType == "Bundle":
        for entry in _entries(data):
            yield from _of_types(entry, types)
    elif header.resourceType in types:
        yield header.resourceType, data


def _documents(path: Path, name: str) -> Iterator[bytes]:
    """The file as one document, or line by line where it is NDJSON."""
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            first = file.readline()
            second = file.readline()
            if second and _header(first) is None:  # a document over several lines, or lines of which one is broken
                whole = first + second + file.read()
                yield from [whole] if _header(whole) is not None else whole.splitlines()
                return
            yield first
            yield second
            yield from file
    except (OSError, EOFError, zlib.error) as exc:
        raise InputError("the file cannot be read", where=name, do="fetch it again", number=2) from exc


def _header(data: bytes | msgspec.Raw) -> Header | None:
    try:
        return _HEADER.decode(data)
    except UNREADABLE:
        return None  # the pull has quarantined it


def _entries(data: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The resources of a Bundle."""
    try:
        return [entry.resource for entry in _BUNDLE.decode(data).entry or () if has_resource(entry)]
    except UNREADABLE:
        return []


def _wanted_in(data: bytes | msgspec.Raw, wanted: Collection[str]) -> Iterator[tuple[str, Json]]:
    header = _header(data)
    if header is None:
        return
    if header.resourceType == "Bundle":
        for entry in _entries(data):
            yield from _wanted_in(entry, wanted)
        return
    reference = f"{header.resourceType}/{header.id}"
    if reference in wanted and (resource := _whole(data)) is not None:
        yield reference, resource


def _is_newer(first: Json, second: Json) -> bool:
    try:
        versions = [datetime.fromisoformat(resource["meta"]["lastUpdated"]) for resource in (first, second)]
        return versions[0] > versions[1]
    except (KeyError, TypeError, ValueError):
        return False
