"""Single resources in the receiver's database: found, put, versioned, read back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from io_fhir_adapter.receiver.entries import EntryTarget
from io_fhir_adapter.receiver.schema import KEYS, RESOURCES, VERSIONS
from io_fhir_adapter.receiver.wire import Issue, RefusedError
from io_fhir_adapter.trust.canonical import digest

__all__ = [
    "EntryResult",
    "StoredResource",
    "any_version",
    "content_of",
    "find_target",
    "newest",
    "owned",
    "put_resource",
    "resolved",
    "stored_resource",
]


@dataclass(frozen=True)
class EntryResult:
    """What became of one entry: 201 where it was created, 200 where it was there."""

    status: int
    kind: str
    id: str
    version: int
    updated: str


@dataclass(frozen=True)
class StoredResource:
    """One version of a stored resource; ``content`` has id and meta as served."""

    kind: str
    id: str
    version: int
    updated: str
    content: dict[str, Any]


def any_version() -> sa.Select[Any]:
    """Every version of every resource."""
    return sa.select(VERSIONS).join(
        RESOURCES, sa.and_(RESOURCES.c.kind == VERSIONS.c.kind, RESOURCES.c.id == VERSIONS.c.id)
    )


def newest() -> sa.Select[Any]:
    """The newest version of every resource."""
    return any_version().where(RESOURCES.c.version == VERSIONS.c.version)


def owned(query: sa.Select[Any], facility: str | None) -> sa.Select[Any]:
    """Only what belongs to a facility, where one is named."""
    return query if facility is None else query.where(RESOURCES.c.facility == facility)


def stored_resource(row: sa.Row[Any]) -> StoredResource:
    """A row of :func:`any_version` as it is served."""
    content = dict(row.content)
    meta = {**content.pop("meta", {}), "versionId": str(row.version), "lastUpdated": row.updated}
    served = {"resourceType": row.kind, "id": row.id, "meta": meta, **content}
    return StoredResource(row.kind, row.id, row.version, row.updated, served)


def find_target(connection: sa.Connection, target: EntryTarget, facility: str, index: int = 0) -> tuple[str, bool]:
    """The id that an entry will have, and whether it is new. Only the facility's own resources can match.

    Raises:
        RefusedError: 403, the id is another facility's; 412, more than one resource matches.
    """
    if target.by == "id":
        owner = connection.execute(
            sa.select(RESOURCES.c.facility).where(RESOURCES.c.kind == target.kind, RESOURCES.c.id == target.value)
        ).scalar_one_or_none()
        if owner not in (None, facility):
            place = f"Bundle.entry[{index}].request.url"
            raise RefusedError(403, Issue("forbidden", "this id belongs to another facility", place))
        return target.value, owner is None
    ids: Sequence[str] = (
        connection.execute(
            sa.select(KEYS.c.id).where(
                KEYS.c.value == target.value,
                KEYS.c.kind == target.kind,
                KEYS.c.by == target.by,
                KEYS.c.system == target.system,
                KEYS.c.facility == facility,
            )
        )
        .scalars()
        .all()
    )
    if len(ids) > 1:
        place = f"Bundle.entry[{index}].request.url"
        raise RefusedError(412, Issue("multiple-matches", "more than one stored resource matches", place))
    return (ids[0], False) if ids else (str(uuid.uuid4()), True)


def resolved(value: Any, links: Mapping[str, str]) -> Any:
    """A copy of ``value`` whose references to full URLs name the stored resources."""
    if isinstance(value, list):
        return [resolved(item, links) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: links.get(item, item) if name == "reference" and isinstance(item, str) else resolved(item, links)
        for name, item in value.items()
    }


def content_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resource is kept as its content: all but what the receiver gives it."""
    content = {name: value for name, value in resource.items() if name not in ("resourceType", "id", "meta")}
    meta = {name: value for name, value in resource.get("meta", {}).items() if name not in ("versionId", "lastUpdated")}
    return {**content, "meta": meta} if meta else content


def put_resource(
    connection: sa.Connection, resource: dict[str, Any], place: tuple[str, str], new: bool, facility: str, now: str
) -> EntryResult:
    """Create or update one resource; the same content makes no new version.

    Args:
        connection: A transaction that writes.
        resource: Its content, with ``resourceType``.
        place: Type and id.
        new: Whether it is not there yet.
        facility: Whose it is.
        now: The instant of the change.
    """
    kind, id_ = place
    content = content_of(resource)
    said = digest(content)
    here = sa.and_(RESOURCES.c.kind == kind, RESOURCES.c.id == id_)
    if new:
        version = 1
        row = {"kind": kind, "id": id_, "facility": facility, "version": version, "digest": said}
        connection.execute(sa.insert(RESOURCES).values(row))
    else:
        stored = connection.execute(newest().add_columns(RESOURCES.c.digest).where(here)).one()
        if stored.digest == said:
            return EntryResult(200, kind, id_, stored.version, stored.updated)
        version = stored.version + 1
        connection.execute(sa.update(RESOURCES).where(here).values(version=version, digest=said))
        connection.execute(sa.delete(KEYS).where(KEYS.c.kind == kind, KEYS.c.id == id_))
    connection.execute(sa.insert(VERSIONS).values(kind=kind, id=id_, version=version, updated=now, content=content))
    keys = _keys_of(resource)
    if keys:
        rows = [
            {"kind": kind, "id": id_, "by": by, "system": system, "value": value, "facility": facility}
            for by, system, value in sorted(keys)
        ]
        connection.execute(sa.insert(KEYS), rows)
    return EntryResult(201 if new else 200, kind, id_, version, now)


def _keys_of(resource: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """What a resource can be found by: its identifiers and its canonical URL."""
    given = resource.get("identifier", [])
    keys = {
        ("identifier", item.get("system", ""), item["value"])
        for item in (given if isinstance(given, list) else [given])
        if item.get("value")
    }
    if isinstance(resource.get("url"), str):
        keys.add(("url", "", resource["url"]))
    return keys
