"""What the receiver keeps: resources with their versions, and every accepted submission whole.

A submission is stored in one database transaction or not at all.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from io_fhir_adapter.canonical_urls import FRAME_SYSTEM
from io_fhir_adapter.receiver.checks import EntryTarget, Submission, references
from io_fhir_adapter.receiver.draws import NONCES, Announcement, check_nonce, draw_task, nonce_given
from io_fhir_adapter.receiver.schema import (
    KEYS,
    META,
    RESOURCES,
    SUBMISSIONS,
    VERSIONS,
    WRITES,
    in_memory,
    open_database,
)
from io_fhir_adapter.receiver.wire import Issue, RefusedError
from io_fhir_adapter.trust.canonical import digest

__all__ = ["EntryResult", "ReceiverStore", "StoredResource", "StoredSubmission"]

_NONCE_BYTES = 32


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


@dataclass(frozen=True)
class StoredSubmission:
    """An accepted submission: see :class:`io_fhir_adapter.receiver.checks.Submission`; ``times`` it was received."""

    number: int
    facility: str
    identifier: str
    programme: str
    period_start: str
    period_end: str
    populations: tuple[tuple[str, int], ...]
    cases: int
    received: str
    times: int
    bundle: dict[str, Any]


class ReceiverStore:
    """The receiver's database.

    Args:
        url: SQLAlchemy URL; in memory by default, gone when closed.
        clock: The time of receipt, aware.
    """

    def __init__(self, url: str = "sqlite://", clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock: contextlib.AbstractContextManager[Any] = (
            threading.RLock() if in_memory(url) else contextlib.nullcontext()
        )
        self._engine = open_database(url)
        with self._engine.begin() as connection:
            META.create_all(connection)
            NONCES.metadata.create_all(connection)

    def close(self) -> None:
        """Give the database back."""
        self._engine.dispose()

    def now(self) -> str:
        """The present instant as FHIR writes it."""
        return self._clock().isoformat(timespec="milliseconds")

    def accept(self, submission: Submission) -> tuple[EntryResult, ...]:
        """Store a submission, all or nothing, and say what became of each entry.

        The same submission again (same facility, same identifier) changes nothing, even where a later one has
        changed the resources since: it gets the results of the first time.

        Raises:
            RefusedError: 412 more than one stored resource matches; 403 the resource is another facility's;
                422 a reference leads nowhere, two entries are the same stored resource, or another nonce was given.
        """
        with self._writing() as connection:
            known = connection.execute(
                sa.select(SUBMISSIONS.c.number, SUBMISSIONS.c.results).where(
                    SUBMISSIONS.c.facility == submission.facility,
                    SUBMISSIONS.c.identifier == submission.identifier,
                )
            ).one_or_none()
            if known is not None:
                connection.execute(
                    sa.update(SUBMISSIONS)
                    .where(SUBMISSIONS.c.number == known.number)
                    .values(times=SUBMISSIONS.c.times + 1)
                )
                return tuple(EntryResult(200, *result) for result in known.results)
            if submission.nonce is not None:
                check_nonce(connection, submission.facility, submission.nonce)
            results = self._store(connection, submission)
            connection.execute(
                sa.insert(SUBMISSIONS).values(
                    facility=submission.facility,
                    identifier=submission.identifier,
                    programme=submission.programme,
                    period_start=submission.period_start,
                    period_end=submission.period_end,
                    populations=[list(population) for population in submission.populations],
                    cases=submission.cases,
                    received=self.now(),
                    times=1,
                    results=[[result.kind, result.id, result.version, result.updated] for result in results],
                    bundle=submission.bundle,
                )
            )
            return results

    def announce(self, announcement: Announcement) -> tuple[StoredResource, bool]:
        """Takes note of a frame and gives its one nonce, in a Task of the same facility.

        Returns:
            The Group as it is stored, and whether it is new. A frame that is known stays as it is.
        """
        facility, frame = announcement.facility, announcement.frame
        with self._writing() as connection:
            id_, new = _find(connection, EntryTarget("Group", "identifier", FRAME_SYSTEM, frame), facility, 0)
            now = self.now()
            if new:
                _put(connection, announcement.group, ("Group", id_), True, facility, now)
            if nonce_given(connection, facility, frame) is None:
                nonce, task = secrets.token_hex(_NONCE_BYTES), str(uuid.uuid4())
                _put(connection, draw_task(announcement, id_, nonce, now), ("Task", task), True, facility, now)
                row = {"facility": facility, "frame": frame, "nonce": nonce, "task": task}
                connection.execute(sa.insert(NONCES).values(row))
            group = _newest().where(RESOURCES.c.kind == "Group", RESOURCES.c.id == id_)
            return _stored(connection.execute(group).one()), new

    def read(self, kind: str, id_: str, facility: str | None, version: int | None = None) -> StoredResource | None:
        """One resource, its newest version unless another is named; of any facility where ``facility`` is None."""
        query = _newest().where(RESOURCES.c.kind == kind, RESOURCES.c.id == id_)
        if version is not None:
            query = _any_version().where(RESOURCES.c.kind == kind, RESOURCES.c.id == id_, VERSIONS.c.version == version)
        with self._reading() as connection:
            row = connection.execute(_owned(query, facility)).one_or_none()
        return None if row is None else _stored(row)

    def search(
        self, kind: str, by: str, system: str | None, value: str, facility: str | None, limit: int = 100
    ) -> list[StoredResource]:
        """The resources with that identifier (``by="identifier"``) or canonical URL (``by="url"``), by id.

        ``system`` None means any system.
        """
        matching = sa.select(KEYS.c.id).where(KEYS.c.kind == kind, KEYS.c.by == by, KEYS.c.value == value)
        if system is not None:
            matching = matching.where(KEYS.c.system == system)
        query = _newest().where(RESOURCES.c.kind == kind, RESOURCES.c.id.in_(matching))
        with self._reading() as connection:
            rows = connection.execute(_owned(query, facility).order_by(RESOURCES.c.id).limit(limit)).all()
        return [_stored(row) for row in rows]

    def submissions(self, facility: str | None = None) -> list[StoredSubmission]:
        """All accepted submissions, or one facility's, in the order of receipt."""
        names = [name for name in StoredSubmission.__dataclass_fields__ if name != "populations"]
        query = sa.select(SUBMISSIONS.c.populations, *(SUBMISSIONS.c[name] for name in names))
        if facility is not None:
            query = query.where(SUBMISSIONS.c.facility == facility)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(SUBMISSIONS.c.number)).mappings().all()
        return [
            StoredSubmission(**{**row, "populations": tuple((code, count) for code, count in row["populations"])})
            for row in rows
        ]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._lock, self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        options = {WRITES: True}
        with self._lock, self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def _store(self, connection: sa.Connection, submission: Submission) -> tuple[EntryResult, ...]:
        entries = submission.bundle["entry"]
        found = [
            _find(connection, target, submission.facility, index) for index, target in enumerate(submission.targets)
        ]
        places = [(target.kind, id_) for target, (id_, _) in zip(submission.targets, found, strict=True)]
        if len(set(places)) != len(places):
            raise RefusedError(422, Issue("duplicate", "two entries update the same resource", "Bundle.entry"))
        links = {entry["fullUrl"]: f"{kind}/{id_}" for entry, (kind, id_) in zip(entries, places, strict=True)}
        _check_links(connection, entries, links, submission.facility)
        now = self.now()
        return tuple(
            _put(connection, _resolved(entry["resource"], links), place, new, submission.facility, now)
            for entry, place, (_, new) in zip(entries, places, found, strict=True)
        )


def _any_version() -> sa.Select[Any]:
    return sa.select(VERSIONS).join(
        RESOURCES, sa.and_(RESOURCES.c.kind == VERSIONS.c.kind, RESOURCES.c.id == VERSIONS.c.id)
    )


def _newest() -> sa.Select[Any]:
    return _any_version().where(RESOURCES.c.version == VERSIONS.c.version)


def _owned(query: sa.Select[Any], facility: str | None) -> sa.Select[Any]:
    return query if facility is None else query.where(RESOURCES.c.facility == facility)


def _stored(row: sa.Row[Any]) -> StoredResource:
    content = dict(row.content)
    meta = {**content.pop("meta", {}), "versionId": str(row.version), "lastUpdated": row.updated}
    served = {"resourceType": row.kind, "id": row.id, "meta": meta, **content}
    return StoredResource(row.kind, row.id, row.version, row.updated, served)


def _find(connection: sa.Connection, target: EntryTarget, facility: str, index: int) -> tuple[str, bool]:
    """The id that an entry will have, and whether it is new. Only the facility's own resources can match."""
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


def _check_links(
    connection: sa.Connection, entries: list[dict[str, Any]], links: Mapping[str, str], facility: str
) -> None:
    """References to what is stored already must lead to the facility's own resources."""
    inside = set(links.values())
    for index, entry in enumerate(entries):
        for reference, place in references(entry["resource"], f"Bundle.entry[{index}].resource"):
            if reference in links or reference in inside:
                continue
            kind, _, id_ = reference.partition("/")
            found = connection.execute(
                sa.select(RESOURCES.c.id).where(
                    RESOURCES.c.kind == kind, RESOURCES.c.id == id_, RESOURCES.c.facility == facility
                )
            ).first()
            if found is None:
                raise RefusedError(422, Issue("not-found", "the reference leads to nothing stored", place))


def _resolved(value: Any, links: Mapping[str, str]) -> Any:
    """A copy of ``value`` whose references to full URLs name the stored resources."""
    if isinstance(value, list):
        return [_resolved(item, links) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: links.get(item, item) if name == "reference" and isinstance(item, str) else _resolved(item, links)
        for name, item in value.items()
    }


def _put(
    connection: sa.Connection, resource: dict[str, Any], place: tuple[str, str], new: bool, facility: str, now: str
) -> EntryResult:
    """Create or update one resource; the same content makes no new version."""
    kind, id_ = place
    content = {name: value for name, value in resource.items() if name not in ("resourceType", "id", "meta")}
    meta = {name: value for name, value in resource.get("meta", {}).items() if name not in ("versionId", "lastUpdated")}
    if meta:
        content["meta"] = meta
    said = digest(content)
    here = sa.and_(RESOURCES.c.kind == kind, RESOURCES.c.id == id_)
    if new:
        version = 1
        row = {"kind": kind, "id": id_, "facility": facility, "version": version, "digest": said}
        connection.execute(sa.insert(RESOURCES).values(row))
    else:
        stored = connection.execute(_newest().add_columns(RESOURCES.c.digest).where(here)).one()
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
