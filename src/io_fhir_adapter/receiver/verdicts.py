"""What the body says of a submission, as a Task for its facility: received, accepted, correction asked, rejected.

There is one Task for each submission, made when it is stored and found by the submission's identifier. Each verdict is
a new version of it; what was said before stays to be read. This is this project's proposal.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import sqlalchemy as sa

from io_fhir_adapter.canonical_urls import FACILITY_SYSTEM, SUBMISSION_SYSTEM, VERDICT_CODES, VERDICT_TASK
from io_fhir_adapter.receiver.entries import EntryTarget
from io_fhir_adapter.receiver.journal import append, verdict_link
from io_fhir_adapter.receiver.resources import find_target, newest, put_resource
from io_fhir_adapter.receiver.schema import RESOURCES, SUBMISSIONS, VERDICTS
from io_fhir_adapter.receiver.wire import Issue, RefusedError

__all__ = ["NOTE_LENGTH", "STATUS_OF", "Given", "Verdict", "give_verdict", "open_task", "verdicts_of", "withdraw_task"]

Json = dict[str, Any]
Verdict = Literal["accepted", "correction-asked", "rejected"]
"""What the body can say; ``received`` and ``withdrawn`` come about by what the facility does."""

STATUS_OF: Final = {
    "received": "in-progress",
    "accepted": "completed",
    "correction-asked": "on-hold",
    "rejected": "rejected",
    "withdrawn": "cancelled",
}
"""Business status to Task.status."""
NOTE_LENGTH: Final = 4_000
"""A note may have so many characters."""

_GIVEN: Final = ("accepted", "correction-asked", "rejected")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Given:
    """A verdict that was given: what, the body's words, who of the body said it, and when."""

    verdict: str
    note: str
    by: str
    at: str


class _Store(Protocol):
    def now(self) -> str: ...

    def writing(self) -> AbstractContextManager[sa.Connection]: ...

    def reading(self) -> AbstractContextManager[sa.Connection]: ...


def open_task(connection: sa.Connection, facility: str, identifier: str, now: str) -> None:
    """Makes the Task of a submission that was stored, where it has none.

    Args:
        connection: The transaction that stores it.
        facility: Whose it is.
        identifier: The submission's identifier.
        now: The instant of receipt.
    """
    target = EntryTarget("Task", "identifier", VERDICT_TASK, identifier)
    id_, new = find_target(connection, target, facility)
    if new:
        task = {
            "resourceType": "Task",
            "identifier": [{"system": VERDICT_TASK, "value": identifier}],
            "status": STATUS_OF["received"],
            "businessStatus": {"coding": [{"system": VERDICT_CODES, "code": "received"}]},
            "intent": "order",
            "code": {"coding": [{"system": VERDICT_CODES, "code": "verdict"}]},
            "focus": {"type": "Bundle", "identifier": {"system": SUBMISSION_SYSTEM, "value": identifier}},
            "authoredOn": now,
            "lastModified": now,
            "owner": {"type": "Organization", "identifier": {"system": FACILITY_SYSTEM, "value": facility}},
        }
        put_resource(connection, task, ("Task", id_), True, facility, now)


def withdraw_task(connection: sa.Connection, facility: str, identifier: str, now: str) -> None:
    """Says in the Task of a submission that the facility took it back."""
    _change(connection, facility, identifier, "withdrawn", "", now)


def give_verdict(store: _Store, identifier: str, verdict: str, note: str, by: str) -> None:
    """Says what the body decided on a submission; a later verdict follows an earlier one and takes nothing away.

    Args:
        store: The receiver's store.
        identifier: The submission's identifier.
        verdict: One of :data:`Verdict`.
        note: The body's words to the facility, may be empty.
        by: Who of the body says so; kept here and not told to the facility.

    Raises:
        RefusedError: 404, there is no such submission; 422, it was withdrawn, the verdict is none, the note is too long
            or holds control characters, or nobody is named.
    """
    if verdict not in _GIVEN or not by or len(note) > NOTE_LENGTH or _CONTROL.search(note):
        words = "give one of the verdicts, in the name of somebody, with a note of plain text"
        raise RefusedError(422, Issue("value", words, "Task"))
    with store.writing() as connection:
        facility = connection.execute(
            sa.select(SUBMISSIONS.c.facility).where(SUBMISSIONS.c.identifier == identifier)
        ).scalar_one_or_none()
        if facility is None:
            raise RefusedError(404, Issue("not-found", "there is no such submission", "Task.focus"))
        now = store.now()
        _change(connection, facility, identifier, verdict, note, now)
        here = sa.and_(VERDICTS.c.facility == facility, VERDICTS.c.identifier == identifier)
        number = connection.execute(sa.select(sa.func.count()).select_from(VERDICTS).where(here)).scalar_one() + 1
        row = {"facility": facility, "identifier": identifier, "number": number, "verdict": verdict, "note": note}
        row |= {"given_by": by, "at": now}
        connection.execute(sa.insert(VERDICTS).values(row))
        append(connection, now, "verdict", verdict_link(row))


def verdicts_of(store: _Store, identifier: str) -> list[Given]:
    """The verdicts given on a submission, in order."""
    query = sa.select(VERDICTS).where(VERDICTS.c.identifier == identifier).order_by(VERDICTS.c.number)
    with store.reading() as connection:
        return [Given(row.verdict, row.note, row.given_by, row.at) for row in connection.execute(query)]


def _change(connection: sa.Connection, facility: str, identifier: str, state: str, note: str, now: str) -> None:
    open_task(connection, facility, identifier, now)  # it may have been stored before there were such Tasks
    id_, _ = find_target(connection, EntryTarget("Task", "identifier", VERDICT_TASK, identifier), facility)
    stored = connection.execute(newest().where(RESOURCES.c.kind == "Task", RESOURCES.c.id == id_)).one()
    task: Json = {"resourceType": "Task", **stored.content}
    if task["businessStatus"]["coding"][0]["code"] == "withdrawn":
        raise RefusedError(422, Issue("conflict", "the submission was withdrawn before", "Bundle.entry"))
    task["status"] = STATUS_OF[state]
    task["businessStatus"] = {"coding": [{"system": VERDICT_CODES, "code": state}]}
    task["lastModified"] = now
    if note:
        task["note"] = [*task.get("note", []), {"time": now, "text": note}]
    put_resource(connection, task, ("Task", id_), False, facility, now)
