"""What the receiver keeps: resources with their versions, and every accepted submission whole.

A submission is stored in one database transaction or not at all. Nothing that was stored is deleted: a newer submission
makes new versions, a withdrawal is noted beside what it withdraws, and all that was taken is bound in a hash chain.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from io_fhir_adapter.canonical_urls import FRAME_SYSTEM
from io_fhir_adapter.receiver.checks import Submission, Withdrawal
from io_fhir_adapter.receiver.draws import NONCES, Announcement, check_nonce, draw_task, nonce_given
from io_fhir_adapter.receiver.entries import EntryTarget
from io_fhir_adapter.receiver.journal import (
    append,
    last_digest,
    store_problems,
    submission_link,
    withdrawal_link,
)
from io_fhir_adapter.receiver.resources import (
    EntryResult,
    StoredResource,
    any_version,
    find_target,
    newest,
    owned,
    put_resource,
    resolved,
    stored_resource,
)
from io_fhir_adapter.receiver.schema import (
    KEYS,
    META,
    RESOURCES,
    SEALS,
    SUBMISSIONS,
    VERSIONS,
    WITHDRAWALS,
    WRITES,
    in_memory,
    open_database,
)
from io_fhir_adapter.receiver.verdicts import open_task, withdraw_task
from io_fhir_adapter.receiver.wire import Issue, RefusedError

__all__ = ["EntryResult", "ReceiverStore", "StoredResource", "StoredSubmission"]

_NONCE_BYTES = 32


@dataclass(frozen=True)
class StoredSubmission:
    """An accepted submission: see :class:`io_fhir_adapter.receiver.checks.Submission`; ``times`` it was received.

    ``signed`` and ``kid`` say what was found of its signature, ``replaces`` which earlier ones it corrects, and
    ``withdrawn`` gives the reason where the facility took it back, else it is empty.
    """

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
    signed: str
    kid: str
    replaces: tuple[str, ...]
    withdrawn: str


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

    def accept(self, taken: Submission | Withdrawal) -> tuple[EntryResult, ...]:
        """Store a submission or a withdrawal, all or nothing, and say what became of each entry.

        The same one again (same facility, same identifier) changes nothing, even where a later one has changed the
        resources since: it gets the results of the first time.

        Raises:
            RefusedError: 412 more than one stored resource matches; 403 the resource is another facility's; 422 two
                entries are the same stored resource, another nonce was given, what it corrects or withdraws is not
                here, or was withdrawn with another statement already.
        """
        with self.writing() as connection:
            again = _again(connection, SUBMISSIONS if isinstance(taken, Submission) else WITHDRAWALS, taken)
            if again is not None:
                return again
            if isinstance(taken, Withdrawal):
                return self._withdraw(connection, taken)
            return self._accept(connection, taken)

    def _accept(self, connection: sa.Connection, submission: Submission) -> tuple[EntryResult, ...]:
        if submission.nonce is not None:
            check_nonce(connection, submission.facility, submission.nonce)
        _check_replaced(connection, submission)
        now = self.now()
        results = _put_entries(connection, submission, now)
        row = {
            "facility": submission.facility,
            "identifier": submission.identifier,
            "programme": submission.programme,
            "period_start": submission.period_start,
            "period_end": submission.period_end,
            "populations": [list(population) for population in submission.populations],
            "cases": submission.cases,
            "received": now,
            "times": 1,
            "results": _kept(results),
            "bundle": submission.bundle,
        }
        number = connection.execute(sa.insert(SUBMISSIONS).values(row)).inserted_primary_key
        seal = {"signed": submission.seal.signed, "kid": submission.seal.kid, "replaces": list(submission.replaces)}
        connection.execute(sa.insert(SEALS).values(number=number[0] if number else None, **seal))
        open_task(connection, submission.facility, submission.identifier, now)
        append(connection, now, "submission", submission_link(row, seal))
        return results

    def _withdraw(self, connection: sa.Connection, withdrawal: Withdrawal) -> tuple[EntryResult, ...]:
        known = connection.execute(
            sa.select(SUBMISSIONS.c.programme).where(
                SUBMISSIONS.c.facility == withdrawal.facility, SUBMISSIONS.c.identifier == withdrawal.withdrawn
            )
        ).scalar_one_or_none()
        if known != withdrawal.programme:
            place = "Bundle.entry[0].resource.target"
            raise RefusedError(422, Issue("not-found", "no such submission was accepted here", place))
        now = self.now()
        withdraw_task(connection, withdrawal.facility, withdrawal.withdrawn, now)
        results = _put_entries(connection, withdrawal, now)
        row = {
            "facility": withdrawal.facility,
            "withdrawn": withdrawal.withdrawn,
            "identifier": withdrawal.identifier,
            "reason": withdrawal.reason,
            "signed": withdrawal.seal.signed,
            "kid": withdrawal.seal.kid,
            "received": now,
            "times": 1,
            "results": _kept(results),
            "bundle": withdrawal.bundle,
        }
        connection.execute(sa.insert(WITHDRAWALS).values(row))
        append(connection, now, "withdrawal", withdrawal_link(row))
        return results

    def announce(self, announcement: Announcement) -> tuple[StoredResource, bool]:
        """Note an announced frame and make the Task with its nonce.

        Returns:
            The Group as it is stored, and whether it is new. A frame that is known stays as it is.
        """
        facility, frame = announcement.facility, announcement.frame
        with self.writing() as connection:
            id_, new = find_target(connection, EntryTarget("Group", "identifier", FRAME_SYSTEM, frame), facility)
            now = self.now()
            if new:
                put_resource(connection, announcement.group, ("Group", id_), True, facility, now)
            if nonce_given(connection, facility, frame) is None:
                nonce, task = secrets.token_hex(_NONCE_BYTES), str(uuid.uuid4())
                put_resource(connection, draw_task(announcement, id_, nonce, now), ("Task", task), True, facility, now)
                row = {"facility": facility, "frame": frame, "nonce": nonce, "task": task}
                connection.execute(sa.insert(NONCES).values(row))
            group = newest().where(RESOURCES.c.kind == "Group", RESOURCES.c.id == id_)
            return stored_resource(connection.execute(group).one()), new

    def read(self, kind: str, id_: str, facility: str | None, version: int | None = None) -> StoredResource | None:
        """One resource, its newest version unless another is named; of any facility where ``facility`` is None."""
        query = newest().where(RESOURCES.c.kind == kind, RESOURCES.c.id == id_)
        if version is not None:
            query = any_version().where(RESOURCES.c.kind == kind, RESOURCES.c.id == id_, VERSIONS.c.version == version)
        with self.reading() as connection:
            row = connection.execute(owned(query, facility)).one_or_none()
        return None if row is None else stored_resource(row)

    def search(
        self, kind: str, by: str, system: str | None, value: str, facility: str | None, limit: int = 100
    ) -> list[StoredResource]:
        """The resources with that identifier (``by="identifier"``) or canonical URL (``by="url"``), by id.

        ``system`` None means any system.
        """
        matching = sa.select(KEYS.c.id).where(KEYS.c.kind == kind, KEYS.c.by == by, KEYS.c.value == value)
        if system is not None:
            matching = matching.where(KEYS.c.system == system)
        query = newest().where(RESOURCES.c.kind == kind, RESOURCES.c.id.in_(matching))
        with self.reading() as connection:
            rows = connection.execute(owned(query, facility).order_by(RESOURCES.c.id).limit(limit)).all()
        return [stored_resource(row) for row in rows]

    def submissions(self, facility: str | None = None) -> list[StoredSubmission]:
        """All accepted submissions, or one facility's, in the order of receipt; withdrawn ones too."""
        said = sa.and_(
            WITHDRAWALS.c.facility == SUBMISSIONS.c.facility, WITHDRAWALS.c.withdrawn == SUBMISSIONS.c.identifier
        )
        query = (
            sa.select(
                SUBMISSIONS, SEALS.c.signed, SEALS.c.kid, SEALS.c.replaces, WITHDRAWALS.c.reason.label("withdrawn")
            )
            .outerjoin(SEALS, SEALS.c.number == SUBMISSIONS.c.number)
            .outerjoin(WITHDRAWALS, said)
        )
        if facility is not None:
            query = query.where(SUBMISSIONS.c.facility == facility)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(SUBMISSIONS.c.number)).mappings().all()
        return [_submission_of(row) for row in rows]

    def problems(self) -> list[str]:
        """What in the store is not as it was taken; empty where all is. See :func:`.journal.store_problems`."""
        with self.reading() as connection:
            return list(store_problems(connection))

    def last_link(self) -> tuple[int, str]:
        """Number and digest of the chain's last link, for the body to note down; 0 where nothing was taken yet."""
        with self.reading() as connection:
            return last_digest(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to look with."""
        with self._lock, self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection in a transaction that ends with it: kept, or taken back where an error leaves it.

        There is one such transaction at a time, in all processes: what is looked up in it stays true until its end.
        """
        options = {WRITES: True}
        with self._lock, self._engine.connect().execution_options(**options) as connection, connection.begin():
            if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
                connection.exec_driver_sql("LOCK TABLE chain IN SHARE ROW EXCLUSIVE MODE")
            yield connection


def _again(
    connection: sa.Connection, table: sa.Table, taken: Submission | Withdrawal
) -> tuple[EntryResult, ...] | None:
    """The results of the first time, where it was taken before; the time is counted."""
    here = sa.and_(table.c.facility == taken.facility, table.c.identifier == taken.identifier)
    results = connection.execute(sa.select(table.c.results).where(here)).scalar_one_or_none()
    if results is None:
        return None
    connection.execute(sa.update(table).where(here).values(times=table.c.times + 1))
    return tuple(EntryResult(200, *result) for result in results)


def _check_replaced(connection: sa.Connection, submission: Submission) -> None:
    """What is corrected must be here: an earlier submission of the facility for the same programme and period."""
    for identifier in submission.replaces:
        found = connection.execute(
            sa.select(SUBMISSIONS.c.number).where(
                SUBMISSIONS.c.facility == submission.facility,
                SUBMISSIONS.c.identifier == identifier,
                SUBMISSIONS.c.programme == submission.programme,
                SUBMISSIONS.c.period_start == submission.period_start,
                SUBMISSIONS.c.period_end == submission.period_end,
            )
        ).first()
        if found is None:
            words = "what it corrects was not accepted here for this programme and period"
            raise RefusedError(422, Issue("not-found", words, "Bundle.entry"))


def _put_entries(connection: sa.Connection, taken: Submission | Withdrawal, now: str) -> tuple[EntryResult, ...]:
    """Create or update what the entries bring."""
    entries = taken.bundle["entry"]
    found = [find_target(connection, target, taken.facility, index) for index, target in enumerate(taken.targets)]
    places = [(target.kind, id_) for target, (id_, _) in zip(taken.targets, found, strict=True)]
    if len(set(places)) != len(places):
        raise RefusedError(422, Issue("duplicate", "two entries update the same resource", "Bundle.entry"))
    links = {entry["fullUrl"]: f"{kind}/{id_}" for entry, (kind, id_) in zip(entries, places, strict=True)}
    return tuple(
        put_resource(connection, resolved(entry["resource"], links), place, new, taken.facility, now)
        for entry, place, (_, new) in zip(entries, places, found, strict=True)
    )


def _kept(results: tuple[EntryResult, ...]) -> list[list[Any]]:
    return [[result.kind, result.id, result.version, result.updated] for result in results]


def _submission_of(row: Mapping[Any, Any]) -> StoredSubmission:
    values = {name: row[name] for name in StoredSubmission.__dataclass_fields__}
    values["populations"] = tuple((code, count) for code, count in row["populations"])
    values["replaces"] = tuple(row["replaces"] or ())
    values |= {"signed": row["signed"] or "none", "kid": row["kid"] or "", "withdrawn": row["withdrawn"] or ""}
    return StoredSubmission(**values)
