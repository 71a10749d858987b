"""The frame is announced, the accreditation system gives the nonce; where it does not, that is said or waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.canonical_urls import DRAW_TASK, FRAME_SYSTEM
from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.ledger.chain import links
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import StoredDraw, commit_frame, supersede
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.submit.announce import Asked, ask_nonce
from io_fhir_adapter.trust.canonical import canonical_json

START = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
Message = MutableMapping[str, Any]
Change = Callable[[dict[str, Any]], Any]


def outcome(code: str) -> bytes:
    issue = {"severity": "error", "code": code}
    return json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()


class Body:
    """An accreditation system: the reference receiver, with answers that can be replaced or changed.

    Attributes:
        instead: Method to the status and body of every answer.
        change: What is done to the searchset of Tasks.
        seen: Method, path and body of every request.
    """

    def __init__(self, store: ReceiverStore) -> None:
        self._app = create_app(store)
        self.instead: dict[str, tuple[int, bytes]] = {}
        self.change: Change | None = None
        self.seen: list[tuple[str, str, bytes]] = []

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent, body = bytearray(), bytearray()
        status, headers = 0, list[tuple[bytes, bytes]]()

        async def listening() -> Message:
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def keeping(message: Message) -> None:
            nonlocal status, headers
            status, headers = message.get("status", status), message.get("headers", headers)
            body.extend(message.get("body", b""))

        await self._app(scope, listening, keeping)
        self.seen.append((scope["method"], scope["path"], bytes(sent)))
        if scope["method"] in self.instead:
            status, answer = self.instead[scope["method"]]
            headers = [(b"content-type", b"application/fhir+json" if answer[:1] == b"{" else b"text/html")]
            body[:] = answer
        elif self.change is not None and scope["path"] == "/fhir/Task":
            found = json.loads(body)
            self.change(found)
            body[:] = json.dumps(found).encode()
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(body)})


class Facility:
    """A ledger with a committed frame, and the accreditation system."""

    def __init__(self, ledger: Ledger, body: Body, url: str, commitment: Any) -> None:
        self.ledger, self.body, self.url, self.commitment = ledger, body, url, commitment
        self.now = START

    def commit(self) -> StoredDraw:
        with self.ledger.begin() as connection:
            return commit_frame(
                connection, "iasios", "2025", ("2024-12-02", "2025-12-01"),
                canonical_json(self.commitment.to_json()), self.commitment.digest, 120, START,
            )  # fmt: skip

    def ask(self, draw: StoredDraw, **settings: Any) -> Asked:
        """One night's asking; the nights before are told from what the ledger has."""
        options = {"url": self.url, "retries": 0, "max_retry_wait_s": 0} | settings
        endpoint = SubmissionConfig.model_validate(options)
        return asyncio.run(ask_nonce(self.ledger, endpoint, draw, lambda: self.now))

    def chain(self) -> list[tuple[str, Any]]:
        with self.ledger.read() as connection:
            return [(link.kind, link.body) for link in links(connection)]


@pytest.fixture
def received() -> Iterator[ReceiverStore]:
    store = ReceiverStore()
    yield store
    store.close()


@pytest.fixture
def facility(received: ReceiverStore, tmp_path: Path, synthetic_draw: Callable[..., Any]) -> Iterator[Facility]:
    body = Body(received)
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    with LoopbackServer(body) as server:
        yield Facility(ledger, body, f"{server.base_url}/fhir", synthetic_draw().commitment)
    ledger.close()


def given_nonce(received: ReceiverStore, digest: str) -> str:
    (task,) = received.search("Task", "identifier", DRAW_TASK, digest, None)
    return str(task.content["input"][0]["valueString"])


def test_the_systems_nonce_is_taken_and_written_down_after_commitment_and_announcement(
    facility: Facility, received: ReceiverStore
) -> None:
    draw = facility.commit()
    asked = facility.ask(draw)
    assert (asked.waits, asked.draw.nonce_origin) == ("", "task")
    assert asked.draw.nonce == given_nonce(received, draw.digest)
    kinds = [kind for kind, _ in facility.chain()]
    assert kinds == ["frame-committed", "frame-announced", "nonce"]
    (task,) = received.search("Task", "identifier", DRAW_TASK, draw.digest, None)
    assert facility.chain()[-1][1] == {
        "frame": draw.digest, "nonce": asked.draw.nonce, "origin": "task", "because": f"Task/{task.id}",
    }  # fmt: skip


def test_the_announcement_says_how_many_and_nothing_about_anyone(facility: Facility) -> None:
    draw = facility.commit()
    facility.ask(draw)
    (body,) = [sent for method, _, sent in facility.body.seen if method == "PUT"]
    group = json.loads(body)
    assert (group["type"], group["actual"], group["quantity"]) == ("person", True, 120)
    assert {"system": FRAME_SYSTEM, "value": draw.digest} in group["identifier"]
    assert not any(token.encode() in body for token in facility.commitment.tokens)


def test_a_nonce_that_is_there_is_kept_and_nobody_is_asked(facility: Facility) -> None:
    first = facility.ask(facility.commit())
    asked = len(facility.body.seen)
    assert facility.ask(first.draw) == first
    assert len(facility.body.seen) == asked


def test_announcing_again_gives_the_same_nonce(facility: Facility) -> None:
    draw = facility.commit()
    first = facility.ask(draw)
    with facility.ledger.begin() as connection:
        supersede(connection, draw, "body-asked", START)
    again = facility.ask(facility.commit())
    assert again.draw.id != first.draw.id
    assert again.draw.nonce == first.draw.nonce


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize(("status", "code"), [(404, "not-found"), (405, "not-supported"), (400, "not-supported")])
def test_where_none_is_offered_it_is_drawn_here_and_said(
    facility: Facility, method: str, status: int, code: str
) -> None:
    facility.body.instead[method] = (status, outcome(code))
    asked = facility.ask(facility.commit())
    assert (asked.draw.nonce_origin, len(asked.draw.nonce)) == ("local", 64)
    assert facility.chain()[-1][1]["because"] == "not-offered"


def test_task_alone_never_draws_here(facility: Facility) -> None:
    facility.body.instead["PUT"] = (404, outcome("not-supported"))
    facility.now = START + timedelta(days=900)
    asked = facility.ask(facility.commit(), nonce="task")
    assert asked.draw.nonce == ""
    assert "offers no nonce" in asked.waits


def test_local_asks_nobody(facility: Facility) -> None:
    asked = facility.ask(facility.commit(), nonce="local")
    assert (asked.draw.nonce_origin, facility.body.seen) == ("local", [])
    assert [kind for kind, _ in facility.chain()] == ["frame-committed", "nonce"]


def test_without_an_accreditation_system_it_is_drawn_here(facility: Facility) -> None:
    asked = asyncio.run(ask_nonce(facility.ledger, None, facility.commit()))
    assert (asked.draw.nonce_origin, len(asked.draw.nonce)) == ("local", 64)


def test_a_system_that_takes_its_time_is_asked_again_until_the_wait_is_over(facility: Facility) -> None:
    facility.body.change = lambda found: found.pop("entry", None)
    draw = facility.commit()
    asked = facility.ask(draw)
    assert (asked.draw.nonce, asked.waits) == ("", "the accreditation system has given none yet")
    facility.now = START + timedelta(days=6, hours=23)
    assert facility.ask(asked.draw).draw.nonce == ""
    facility.now = START + timedelta(days=7)
    last = facility.ask(asked.draw)
    assert (last.draw.nonce_origin, facility.chain()[-1][1]["because"]) == ("local", "not-yet")
    assert [kind for kind, _ in facility.chain()].count("frame-announced") == 1


def test_a_nonce_that_comes_later_is_taken(facility: Facility, received: ReceiverStore) -> None:
    facility.body.change = lambda found: found.pop("entry", None)
    asked = facility.ask(facility.commit())
    facility.body.change, facility.now = None, START + timedelta(days=30)
    later = facility.ask(asked.draw)
    assert (later.draw.nonce_origin, later.draw.nonce) == ("task", given_nonce(received, later.draw.digest))


FAILURES = {
    "busy": (503, b"busy"), "refused": (403, outcome("forbidden")), "a page": (404, b"<html>not here</html>"),
    "a login page": (200, b"<html>sign in</html>"), "invalid": (422, outcome("business-rule")),
}  # fmt: skip


@pytest.mark.parametrize("failure", [name for name in FAILURES if name != "a login page"])
def test_what_fails_before_the_announcement_waits_and_then_is_drawn_here(facility: Facility, failure: str) -> None:
    facility.body.instead["PUT"] = FAILURES[failure]
    asked = facility.ask(facility.commit())
    assert asked.draw.nonce == ""
    assert "could not be asked" in asked.waits
    facility.now = START + timedelta(days=8)
    assert facility.ask(asked.draw).draw.nonce_origin == "local"
    assert [kind for kind, _ in facility.chain()] == ["frame-committed", "nonce"]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_system_that_took_the_announcement_and_fails_is_waited_for(facility: Facility, failure: str) -> None:
    facility.body.instead["GET"] = FAILURES[failure]
    asked = facility.ask(facility.commit())
    facility.now = START + timedelta(days=100)
    assert facility.ask(asked.draw).draw.nonce == ""


def _task(change: Change) -> Change:
    return lambda found: change(found["entry"][0]["resource"])


UNUSABLE: dict[str, Change] = {
    "a short nonce": _task(lambda task: task["input"][0].update(valueString="ab" * 31)),
    "no text": _task(lambda task: task["input"][0].update(valueString="z" * 64)),
    "two nonces in one": _task(lambda task: task["input"].append(task["input"][0])),
    "no nonce": _task(lambda task: task.update(input=[])),
    "another frame": _task(lambda task: task["focus"]["identifier"].update(value="sha256:" + "0" * 64)),
    "another identifier": _task(lambda task: task["identifier"][0].update(value="sha256:" + "0" * 64)),
    "no status": _task(lambda task: task.pop("status")),
    "an outcome": lambda found: found.update(resourceType="OperationOutcome"),
    "two Tasks": lambda found: found["entry"].append(
        {"resource": found["entry"][0]["resource"] | {"input": [
            found["entry"][0]["resource"]["input"][0] | {"valueString": "0" * 64}
        ]}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_nobody_is_drawn_with_an_order_that_is_not_clear(facility: Facility, name: str) -> None:
    facility.body.change = UNUSABLE[name]
    draw = facility.commit()
    facility.now = START + timedelta(days=100)
    asked = facility.ask(draw)
    assert asked.draw.nonce == ""
    assert "IOA-SUB-00" in asked.waits


@pytest.mark.parametrize("status", ["cancelled", "rejected", "entered-in-error"])
def test_an_order_that_was_withdrawn_is_none(facility: Facility, status: str) -> None:
    facility.body.change = _task(lambda task: task.update(status=status))
    assert facility.ask(facility.commit()).waits == "the accreditation system has given none yet"
