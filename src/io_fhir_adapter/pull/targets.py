"""Fetching whole resources for a few: what the drawn cases' forms need, read when they are needed, never stored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from io_fhir_adapter.config import FilesSourceConfig
from io_fhir_adapter.errors import InputError, PullError
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["fetch_by_reference", "fetch_from_files"]

Json = dict[str, Any]
_BATCH = 50


async def fetch_by_reference(client: FhirClient, references: Iterable[str]) -> dict[str, Json]:
    """Whole resources by ``Type/id``, read in batches by ``_id``; those the server does not have are absent."""
    by_type: dict[str, list[str]] = {}
    for reference in sorted(set(references)):
        by_type.setdefault(reference.partition("/")[0], []).append(id_of(reference))
    found: dict[str, Json] = {}
    for resource_type, ids in by_type.items():
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            params = {"_id": ",".join(batch), "_count": str(_BATCH)}
            url: str | None = None
            while True:
                answer = await (client.get(url) if url else client.get(resource_type, params))
                bundle = _searchset(answer.body, f"{client.base_url}/{resource_type}")
                for entry in bundle.get("entry", ()):
                    resource = entry.get("resource", {})
                    if resource.get("resourceType") == resource_type and resource.get("id") in batch:
                        found[f"{resource_type}/{resource['id']}"] = resource
                link = next((item["url"] for item in bundle.get("link", ()) if item.get("relation") == "next"), None)
                if not link or all(f"{resource_type}/{i}" in found for i in batch):
                    break
                url = client.resolve(link, base=answer.url)
    return found


def _searchset(body: bytes, where: str) -> Json:
    try:
        bundle = json.loads(body)
    except ValueError as exc:
        raise PullError("the server sent a page that is no JSON", where=where, number=2) from exc
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise PullError("the server answered a search with something else than a Bundle", where=where, number=2)
    return bundle


def fetch_from_files(config: FilesSourceConfig, references: Iterable[str]) -> dict[str, Json]:
    """Whole resources by ``Type/id`` out of a files source."""
    wanted = frozenset(references)
    found: dict[str, Json] = {}
    for source in find_inputs(config.paths):
        if source.path is None:
            continue
        for resource in _all_in(source.path.read_bytes(), source.name):
            reference = f"{resource.get('resourceType')}/{resource.get('id')}"
            if reference in wanted:
                found[reference] = resource
    return found


def _all_in(data: bytes, name: str) -> Sequence[Json]:
    try:
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as exc:
        raise InputError("the gzip data is damaged", where=name, do="fetch the file again", number=2) from exc
    try:
        documents = [json.loads(text)]
    except ValueError:
        documents = []
        for line in text.splitlines():
            try:
                documents.append(json.loads(line))
            except ValueError:
                continue  # the pull has quarantined it
    resources: list[Json] = []
    for document in documents:
        resources += _open(document)
    return resources


def _open(document: Any) -> list[Json]:
    if not isinstance(document, Mapping):
        return []
    if document.get("resourceType") == "Bundle":
        return [item for entry in document.get("entry", ()) for item in _open(entry.get("resource"))]
    return [dict(document)]
