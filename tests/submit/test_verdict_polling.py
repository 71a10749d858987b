"""What the accreditation body says of an accepted submission: asked for politely, kept with every change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.receiver.conftest import sealed_submission
from tests.submit.endpoint import Asked, Endpoint, outcome

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM, VERDICT_CODES, VERDICT_TASK
from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import enqueue, settle
from io_fhir_adapter.ledger.verdicts import latest_verdict, verdicts_of
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.verdicts import give_verdict
from io_fhir_adapter.submit.deliver import deliver_due
from io_fhir_adapter.submit.verdicts import Polled, poll_verdicts
from io_fhir_adapter.trust.canonical import canonical_json

START = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
STATUS = {"received": "in-progress", "accepted": "completed", "rejected": "rejected", "correction-asked": "on-hold"}


def task(said: str = "received", at: str = "2026-01-31T10:00:00Z", **changes: Any) -> dict[str, Any]:
    """The body's Task about ``sha256:ab``."""
    made: dict[str, Any] = {
        "resourceType": "Task",
        "id": "1",
        "meta": {"versionId": "1", "lastUpdated": at},
        "identifier": [{"system": VERDICT_TASK, "value": "sha256:ab"}],
        "status": STATUS.get(said, "in-progress"),
        "intent": "order",
        "code": {"coding": [{"system": VERDICT_CODES, "code": "verdict"}]},
        "businessStatus": {"coding": [{"system": VERDICT_CODES, "code": said}]},
        "focus": {"identifier": {"system": SUBMISSION_SYSTEM, "value": "sha256:ab"}},
        "lastModified": at,
        "note": [{"text": f"note on {said}"}],
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def found(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in tasks]}


class Facility:
    """A ledger with one accepted submission, and the endpoint of its body."""

    def __init__(self, ledger: Ledger, endpoint: Endpoint, url: str) -> None:
        self.ledger, self.endpoint, self.now = ledger, endpoint, START
        self.config = SubmissionConfig.model_validate({"url": url, "retries": 0})
        with ledger.begin() as connection:
            for identifier, state in (("sha256:ab", "accepted"), ("sha256:cd", "rejected")):
                enqueue(connection, identifier, "2025", b"{}", START)
                settle(connection, identifier, state)

    def poll(self, after: timedelta = timedelta(days=1), *, soon: bool = False) -> Polled:
        self.now += after
        return asyncio.run(poll_verdicts(self.ledger, self.config, lambda: self.now, soon=soon))

    def states(self) -> list[str]:
        with self.ledger.read() as connection:
            return [one.state for one in verdicts_of(connection, "sha256:ab")]

    def asked(self) -> list[Asked]:
        """The requests since this was last looked at."""
        seen = list(self.endpoint.asked)
        self.endpoint.asked.clear()
        return seen


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[Endpoint, str]]:
    made = Endpoint()
    with LoopbackServer(made) as server:
        yield made, f"{server.base_url}/fhir"


@pytest.fixture
def facility(endpoint: tuple[Endpoint, str], ledger: Ledger) -> Facility:
    endpoint[0].asked.clear()
    return Facility(ledger, *endpoint)


def test_a_verdict_is_kept_with_every_change(facility: Facility) -> None:
    facility.endpoint.will(found())
    assert facility.poll() == Polled()
    for said, at in (("received", "31"), ("received", "31"), ("correction-asked", "31"), ("accepted", "31")):
        facility.endpoint.will(found(task(said, f"2026-01-{at}T10:00:00Z")))
        facility.poll()
    assert facility.states() == ["received", "correction-asked", "accepted"]
    with facility.ledger.read() as connection:
        last = latest_verdict(connection, "sha256:ab")
        assert latest_verdict(connection, "sha256:cd") is None
    assert last is not None
    assert (last.note, last.at) == ("note on accepted", "2026-01-31T10:00:00Z")


def test_only_what_was_accepted_is_asked_about_and_only_what_changed_is_asked_for(facility: Facility) -> None:
    facility.endpoint.will(found(task(at="2026-01-31T10:00:00.123+01:00")))
    facility.poll()
    facility.poll()
    first, second = (parse_qs(one.query) for one in facility.asked())
    assert first == {"identifier": [f"{VERDICT_TASK}|sha256:ab"]}
    assert second == {**first, "_lastUpdated": ["ge2026-01-31T10:00:00.123+01:00"]}


def test_a_server_that_cannot_search_by_change_is_asked_without(facility: Facility) -> None:
    facility.endpoint.will(found(task()))
    facility.poll()
    facility.endpoint.will(found(task("accepted")))
    facility.endpoint.answers.insert(0, (400, {"content-type": "application/fhir+json"}, b"{}"))
    assert [one.state for one in facility.poll().news] == ["accepted"]


def test_it_is_asked_once_a_night_and_once_a_week_when_it_is_decided(facility: Facility) -> None:
    facility.endpoint.will(found(task()))
    facility.poll()
    facility.poll(timedelta(hours=1))
    assert len(facility.asked()) == 1
    facility.poll(timedelta(hours=1), soon=True)
    assert len(facility.asked()) == 1
    facility.endpoint.will(found(task("accepted")))
    facility.poll(timedelta(hours=21))
    facility.poll(timedelta(days=6))
    assert len(facility.asked()) == 1
    facility.poll(timedelta(days=2))
    assert len(facility.asked()) == 1
    facility.poll(timedelta(days=1200))
    assert facility.asked() == []


@pytest.mark.parametrize(("status", "code"), [(404, "not-supported"), (400, "not-supported"), (501, "not-supported")])
def test_a_server_without_verdicts_is_said_once(status: int, code: str, facility: Facility) -> None:
    facility.endpoint.will(outcome(code), status=status)
    assert "offers no verdicts" in facility.poll().note
    facility.asked()
    assert facility.poll() == facility.poll() == Polled()
    assert facility.asked() == []
    facility.endpoint.will(found(task()))
    assert [one.state for one in facility.poll(timedelta(days=30)).news] == ["received"]


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b'{"resourceType":"Task"}',
        found(task(status="in-progress", businessStatus={"coding": [{"system": VERDICT_CODES, "code": "accepted"}]})),
        found(task("accepted", identifier=[{"system": VERDICT_TASK, "value": "sha256:cd"}])),
        found(task("accepted", focus={"identifier": {"system": SUBMISSION_SYSTEM, "value": "sha256:cd"}})),
        found(task("accepted", code={"coding": [{"system": "urn:other", "code": "verdict"}]})),
        found(task("unheard-of")),
        found(task("accepted", lastModified="yesterday")),
        found(task("accepted", lastModified=None, meta={})),
        found(task("accepted", note="no list")),
    ],
)
def test_an_answer_that_contradicts_itself_is_no_verdict(answer: Any, facility: Facility) -> None:
    facility.endpoint.will(answer)
    polled = facility.poll()
    assert "cannot be read" in polled.note
    assert (polled.news, facility.states()) == ((), [])
    facility.endpoint.will(found(task("accepted")))
    assert [one.state for one in facility.poll().news] == ["accepted"]


def test_a_body_that_cannot_be_asked_keeps_nothing_from_going_on(facility: Facility) -> None:
    facility.endpoint.will(b"<html>", status=503)
    assert "could not be asked for" in facility.poll().note


def test_nothing_is_asked_where_there_is_no_network(facility: Facility, tmp_path: Path) -> None:
    facility.config = SubmissionConfig.model_validate({"channel": "file-drop", "folder": tmp_path})
    assert facility.poll() == Polled()


def test_what_the_reference_receiver_says_arrives(ledger: Ledger, synthetic_draw: Callable[..., Any]) -> None:
    bundle = sealed_submission(synthetic_draw(1, 1, 3), "F-001", 151)
    identifier, store = bundle["identifier"]["value"], ReceiverStore()
    with ledger.begin() as connection:
        enqueue(connection, identifier, "2025", canonical_json(bundle), START)
    with LoopbackServer(create_app(store)) as server:
        config = SubmissionConfig.model_validate({"url": f"{server.base_url}/fhir"})

        def said() -> list[tuple[str, str]]:
            polled = asyncio.run(poll_verdicts(ledger, config, lambda: START, soon=True))
            assert not polled.note
            return [(one.state, one.note) for one in polled.news]

        asyncio.run(deliver_due(ledger, config, lambda: START))
        heard = [said(), said()]
        for verdict, note in (("correction-asked", "count them again"), ("accepted", "")):
            give_verdict(store, identifier, verdict, note, "synthetic operator")
            heard.append(said())
    store.close()
    assert heard == [[("received", "")], [], [("correction-asked", "count them again")], [("accepted", "")]]
