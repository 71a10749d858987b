"""Asking what the accreditation body says of a submission that its system accepted.

The body says it with a Task that is found by the submission's identifier and changes as the body makes up its mind.
That a body does so is this project's proposal: an endpoint that has no such thing is noted once and asked again after a
month. Nothing here raises for what happens between here and the endpoint, so that a night goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM, VERDICT_CODES, VERDICT_TASK
from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.errors import AdapterError, SubmitError
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.ledger.verdicts import STATES, BodyVerdict, latest_verdict, put_asked, put_verdict, to_ask
from io_fhir_adapter.submit.asking import NotOfferedError, checked
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.trust.canonical import canonical_json

__all__ = ["Polled", "poll_verdicts"]

Json = dict[str, Any]

_NOT_OFFERED: Final = "verdicts not offered"
_AGAIN: Final = timedelta(days=30)
_STATUS: Final = {
    "received": ("requested", "received", "accepted", "in-progress"),
    "correction-asked": ("on-hold",),
    "accepted": ("completed",),
    "rejected": ("rejected",),
    "withdrawn": ("cancelled", "completed", "rejected"),
}
"""The Task's status that goes with what it says; one that contradicts it is not believed."""


@dataclass(frozen=True, slots=True)
class Polled:
    """What came of asking.

    Attributes:
        news: What the body said since it was last asked.
        note: Why it could not be asked, or that its endpoint offers no verdicts; empty where there is nothing to say.
    """

    news: tuple[BodyVerdict, ...] = ()
    note: str = ""


async def poll_verdicts(
    ledger: Ledger,
    config: SubmissionConfig,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    soon: bool = False,
) -> Polled:
    """Asks about every accepted submission whose turn it is, and keeps what is new.

    Args:
        ledger: Has the outbox; what the body says is written into it at once.
        config: The accreditation system.
        now: The clock.
        soon: Ask about young submissions whenever they were asked about last.

    Raises:
        LedgerError: The ledger refused.
    """
    if config.channel == "file-drop":
        return Polled()
    with ledger.read() as connection:
        asked = to_ask(connection, now(), soon=soon)
        quiet = _known_without(read_state(connection, _NOT_OFFERED), config.base_url, now())
    if not asked or quiet:
        return Polled()
    news: list[BodyVerdict] = []
    try:
        async with FhirClient(config, "submission") as client:
            for identifier in asked:
                said = await _said(ledger, client, identifier, now)
                if said is not None:
                    news.append(said)
    except NotOfferedError:
        with ledger.begin() as connection:
            write_state(connection, _NOT_OFFERED, f"{timestamp(now())} {config.base_url}")
        return Polled(tuple(news), "the accreditation system offers no verdicts to ask for; this is said once a month")
    except AdapterError as exc:
        return Polled(tuple(news), f"the body's verdict could not be asked for: {exc.sentence}")
    return Polled(tuple(news))


def _known_without(noted: str, base_url: str, now: datetime) -> bool:
    """Whether this endpoint was lately found to offer no verdicts."""
    since, _, where = noted.partition(" ")
    return where == base_url and now - datetime.fromisoformat(since) < _AGAIN


async def _said(ledger: Ledger, client: FhirClient, identifier: str, now: Callable[[], datetime]) -> BodyVerdict | None:
    """What the body says of a submission where that is new; kept."""
    with ledger.read() as connection:
        last = latest_verdict(connection, identifier)
    tasks = await _asked(client, identifier, last, now())
    found = max(tasks, key=lambda verdict: datetime.fromisoformat(verdict.at), default=None)
    with ledger.begin() as connection:
        put_asked(connection, identifier, now())
        return found if found is not None and put_verdict(connection, found) else None


def _last_updated(verdict: BodyVerdict | None) -> str:
    """When the endpoint stored what was read last, as it wrote it; empty where it did not say or nothing was read."""
    if verdict is None:
        return ""
    return str(json.loads(verdict.task).get("meta", {}).get("lastUpdated", ""))


async def _asked(client: FhirClient, identifier: str, last: BodyVerdict | None, now: datetime) -> list[BodyVerdict]:
    """The Tasks about a submission, where the endpoint can search so only those that changed since.

    Raises:
        SubmitError: The answer cannot be read, or contradicts itself.
        TransportError: The endpoint could not be asked.
        NotOfferedError: It offers no such thing.
    """
    url = f"{client.base_url}/Task?identifier={quote(f'{VERDICT_TASK}|{identifier}', safe='')}"
    answer, since = None, _last_updated(last)
    if since:
        narrow = f"{url}&_lastUpdated=ge{quote(since, safe='')}"
        answer = await client.request("GET", narrow, accept_errors=True)
    if answer is None or answer.status == HTTPStatus.BAD_REQUEST:
        answer = await client.request("GET", url, accept_errors=True)
    body = checked(answer, client.base_url).body
    try:
        return list(_verdicts(json.loads(body), identifier, last, now))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise SubmitError(
            "the accreditation system's answer about a verdict cannot be read",
            where=client.base_url,
            do="ask the accreditation body; the submission itself is accepted all the same",
            number=60,
        ) from exc


def _verdicts(bundle: Json, identifier: str, last: BodyVerdict | None, now: datetime) -> Iterator[BodyVerdict]:
    """The verdicts in a searchset.

    Raises:
        ValueError: A Task is about something else, or says two things.
    """
    if bundle["resourceType"] != "Bundle":
        raise ValueError("no Bundle")
    for entry in bundle.get("entry", []):
        task = entry["resource"]
        if task["resourceType"] != "Task" or task["status"] == "entered-in-error":
            continue
        if not any(_is(one, VERDICT_TASK, identifier) for one in task["identifier"]):
            raise ValueError("another submission")
        if not _is(task["focus"]["identifier"], SUBMISSION_SYSTEM, identifier) or "verdict" not in _codes(task["code"]):
            raise ValueError("another focus")
        states = [code for code in _codes(task["businessStatus"]) if code in STATES]
        if len(states) != 1 or task["status"] not in _STATUS[states[0]]:
            raise ValueError("no verdict, or two")
        at = task.get("lastModified") or task["meta"]["lastUpdated"]
        if datetime.fromisoformat(at).tzinfo is None:
            raise ValueError("a time without its zone")
        note = "\n".join(_new_notes(task.get("note", []), last))
        yield BodyVerdict(identifier, states[0], note, at, timestamp(now), canonical_json(task))


def _new_notes(notes: list[Json], last: BodyVerdict | None) -> Iterator[str]:
    """The notes that were not there when the Task was read last; those without a time may be new."""
    for note in notes:
        if last is None or "time" not in note or datetime.fromisoformat(note["time"]) > datetime.fromisoformat(last.at):
            yield str(note["text"])


def _codes(concept: Mapping[str, Any]) -> list[str]:
    return [coding["code"] for coding in concept["coding"] if coding.get("system") == VERDICT_CODES]


def _is(identifier: Mapping[str, Any], system: str, value: str) -> bool:
    return identifier.get("system") == system and identifier.get("value") == value
