"""Sending what is in the outbox: where each answer leaves a submission, and that the whole story is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tests.submit.endpoint import Endpoint, outcome, response

from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.errors import ConfigError, LedgerError
from io_fhir_adapter.ledger.audit import entries
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import (
    OutboxItem,
    enqueue,
    find_item,
    item,
    items,
    lease_due,
    receipts_of,
    retry,
    settle,
    supersede_open,
)
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.submit.channels import CHANNELS, Answered
from io_fhir_adapter.submit.deliver import Delivered, collect_receipts, deliver_due, make_due
from io_fhir_adapter.submit.outbox_policy import LEASE
from io_fhir_adapter.trust.canonical import canonical_json

START = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
SENT = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "MeasureReport"}} for _ in range(2)]}
ACCEPTED = response("201", "201")


class Facility:
    """A ledger with one queued submission, and the endpoint that it goes to."""

    def __init__(self, ledger: Ledger, endpoint: Endpoint, url: str) -> None:
        self.ledger, self.endpoint, self.now = ledger, endpoint, START
        self.settings: dict[str, Any] = {"url": url, "give_up_after_days": 2}
        with ledger.begin() as connection:
            enqueue(connection, "sha256:ab", "2025", canonical_json(SENT), START)

    def deliver(self, after: timedelta = timedelta(), **settings: Any) -> list[Delivered]:
        """A delivery some time after the one before."""
        self.now += after
        config = SubmissionConfig.model_validate({**self.settings, **settings})
        return asyncio.run(deliver_due(self.ledger, config, lambda: self.now))

    def drop(self, folder: Path, after: timedelta = timedelta()) -> list[Delivered]:
        self.settings = {"channel": "file-drop", "folder": folder}
        return self.deliver(after)

    @property
    def item(self) -> OutboxItem:
        with self.ledger.read() as connection:
            return find_item(connection, "ab")

    def story(self) -> list[tuple[int, str]]:
        """Status and verdict of every attempt that was answered, in order."""
        with self.ledger.read() as connection:
            return [(one.status, one.verdict) for one in receipts_of(connection, "sha256:ab")]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[Endpoint, str]]:
    made = Endpoint()
    with LoopbackServer(made) as server:
        yield made, f"{server.base_url}/fhir"


@pytest.fixture
def facility(endpoint: tuple[Endpoint, str], ledger: Ledger) -> Facility:
    endpoint[0].asked.clear()
    return Facility(ledger, *endpoint)


def test_the_causes_are_kept_in_order_until_it_is_accepted(facility: Facility) -> None:
    for status, answer in ((503, b""), (200, b"<html>Sign in</html>"), (200, response("201", "429")), (200, ACCEPTED)):
        facility.endpoint.will(answer, status=status)
        facility.deliver(timedelta(hours=7))
    assert facility.story() == [(503, "transient"), (200, "transient"), (200, "transient"), (200, "accepted")]
    assert (facility.item.state, facility.item.cause, facility.item.attempts) == ("accepted", "", 4)
    with facility.ledger.read() as connection:
        sentences = [one.sentence for one in receipts_of(connection, "sha256:ab")]
        bodies = [one.body for one in receipts_of(connection, "sha256:ab")]
    assert "has a fault" in sentences[0]
    assert "sign-in page" in sentences[1]
    assert "1 of 2 entries were not stored yet, the first is entry 1" in sentences[2]
    assert "1 are reported as stored" in sentences[2]
    assert bodies[1] == b"<html>Sign in</html>"
    assert facility.deliver(timedelta(days=9)) == []
    assert len(facility.endpoint.asked) == 4


@pytest.mark.parametrize("value", ["7200", "Fri, 30 Jan 2026 05:00:00 GMT"])
def test_a_busy_system_is_left_alone_for_as_long_as_it_asks(value: str, facility: Facility) -> None:
    facility.endpoint.will(outcome("throttled"), status=429, retry_after=value)
    assert [one.state for one in facility.deliver()] == ["queued"]
    due = datetime.fromisoformat(facility.item.next_attempt) - START
    assert timedelta(hours=2) <= due <= timedelta(hours=2, minutes=1)
    assert facility.deliver(timedelta(hours=1, minutes=59)) == []
    assert len(facility.deliver(timedelta(minutes=3))) == 1


def test_what_is_refused_is_not_sent_again_until_somebody_wants_it(facility: Facility) -> None:
    facility.endpoint.will(outcome("business-rule"), status=422)
    assert [one.state for one in facility.deliver()] == ["rejected"]
    assert "a rule of the accreditation system is broken" in facility.item.cause
    assert facility.deliver(timedelta(days=1)) == []
    with facility.ledger.begin() as connection:
        retry(connection, "sha256:ab", facility.now)
    facility.endpoint.will(ACCEPTED)
    assert [one.state for one in facility.deliver()] == ["accepted"]
    assert facility.story() == [(422, "rejected"), (200, "accepted")]


def test_what_fails_for_too_long_is_parked_with_its_causes_and_can_be_sent_again(facility: Facility) -> None:
    facility.endpoint.will(b"", status=503)
    attempts = 0
    while facility.item.state != "parked":
        attempts += len(facility.deliver(timedelta(hours=7)))
        assert attempts < 20
    assert len(facility.story()) == attempts >= 8
    with facility.ledger.begin() as connection:
        retry(connection, "sha256:ab", facility.now)
    assert (facility.item.state, facility.item.attempts) == ("queued", 0)
    facility.endpoint.will(ACCEPTED)
    assert [one.state for one in facility.deliver()] == ["accepted"]
    assert len(facility.story()) == attempts + 1


@pytest.mark.parametrize("state", ["queued", "accepted"])
def test_only_what_ended_badly_is_sent_again(state: str, facility: Facility) -> None:
    if state == "accepted":
        facility.endpoint.will(ACCEPTED)
        facility.deliver()
    with facility.ledger.begin() as connection, pytest.raises(LedgerError, match=f"it is {state}"):
        retry(connection, "sha256:ab", facility.now)
    with facility.ledger.begin() as connection, pytest.raises(LedgerError, match="it is unknown"):
        retry(connection, "sha256:nobody", facility.now)


def test_a_submission_is_found_by_the_beginning_of_its_name(facility: Facility) -> None:
    with facility.ledger.begin() as connection:
        enqueue(connection, "sha256:ac", "2024", b"{}", START + timedelta(seconds=1))
        assert [one.identifier for one in items(connection)] == ["sha256:ac", "sha256:ab"]
        assert find_item(connection, "sha256:ac").period == "2024"
        for beginning, words in (
            ("a", "more than one"),
            ("x", "no submission"),
            ("", "no submission"),
            ("%", "no sub"),
        ):
            with pytest.raises(LedgerError, match=words):
                find_item(connection, beginning)


class Broken:
    """A channel whose certificate turns out to be unreadable when it is to send."""

    answers_later = False

    async def send(self, body: bytes, identifier: str, last: bytes) -> Answered:
        raise ConfigError("the certificate cannot be read", where=f"{identifier}, {len(body)} and {len(last)} bytes")

    async def look(self, body: bytes, identifier: str) -> Answered | None:
        pytest.fail(f"nobody looks for what {identifier} and its {len(body)} bytes were never asked")


def test_a_channel_that_cannot_send_at_all_leaves_it_queued_with_the_cause(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def opened(_config: SubmissionConfig, _now: object) -> AsyncIterator[Broken]:
        yield Broken()

    with monkeypatch.context() as patched:
        patched.setitem(cast("dict[str, Any]", CHANNELS), "transaction", opened)
        with pytest.raises(ConfigError):
            facility.deliver()
    assert facility.item.state == "queued"
    assert "the certificate cannot be read" in facility.item.cause
    facility.endpoint.will(ACCEPTED)
    assert [one.state for one in facility.deliver()] == ["accepted"]


def test_who_works_alone_takes_over_from_a_dead_sender_at_once(facility: Facility) -> None:
    with facility.ledger.begin() as connection:
        assert lease_due(connection, START, LEASE) is not None
    facility.endpoint.will(ACCEPTED)
    assert facility.deliver() == []
    make_due(facility.ledger, START)
    assert [one.state for one in facility.deliver()] == ["accepted"]
    assert (facility.item.attempts, facility.story()) == (2, [(200, "accepted")])


@pytest.mark.parametrize("state", ["parked", "rejected"])
def test_what_somebody_has_sent_again_is_noted(state: str, facility: Facility) -> None:
    with facility.ledger.begin() as connection:
        settle(connection, "sha256:ab", state, "no")
    make_due(facility.ledger, START)
    assert facility.item.state == state  # nobody asked for it
    make_due(facility.ledger, START, ended="sha256:ab")
    assert facility.item.state == "queued"
    with facility.ledger.read() as connection:
        noted = [(one.agent, one.entity, one.detail) for one in entries(connection)]
    assert noted == [("console", "Submission/sha256:ab", "tried once more")]


def test_a_dropped_submission_waits_for_its_receipt_and_is_not_dropped_again(
    facility: Facility, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert [one.state for one in facility.drop(folder)] == ["sent"]
    dropped = (folder / "sha256-ab.json").stat().st_mtime_ns
    for _ in range(3):
        assert facility.drop(folder, timedelta(days=30)) == []
    assert (folder / "sha256-ab.json").stat().st_mtime_ns == dropped
    with facility.ledger.begin() as connection:
        assert not enqueue(connection, "sha256:ab", "2025", b"{}", facility.now)
        assert supersede_open(connection, "2025") == []
    receipt = folder / "sha256-ab.receipt.json"
    receipt.write_bytes(json.dumps(ACCEPTED).encode()[:-9])
    for _ in range(2):
        assert [one.state for one in facility.drop(folder)] == ["sent"]
    assert "cut short" in facility.item.cause
    receipt.write_bytes(json.dumps(ACCEPTED).encode())
    assert [one.state for one in facility.drop(folder)] == ["accepted"]
    assert facility.story() == [(0, "sent"), (0, "transient"), (0, "accepted")]
    assert facility.drop(folder, timedelta(days=1)) == []


def test_a_dropped_submission_that_was_refused_is_dropped_again_on_demand(facility: Facility, tmp_path: Path) -> None:
    facility.drop(tmp_path)
    receipt = tmp_path / "sha256-ab.receipt.json"
    receipt.write_bytes(json.dumps(outcome("invalid")).encode())
    assert [one.state for one in facility.drop(tmp_path)] == ["rejected"]
    with facility.ledger.begin() as connection:
        retry(connection, "sha256:ab", facility.now)
    assert [one.state for one in facility.drop(tmp_path)] == ["sent"]
    assert facility.drop(tmp_path, timedelta(days=1)) == []
    receipt.write_bytes(json.dumps(outcome("invalid")).encode())
    assert [one.state for one in facility.drop(tmp_path)] == ["rejected"]
    assert [verdict for _, verdict in facility.story()] == ["sent", "rejected", "sent", "rejected"]


def test_receipts_are_collected_where_nothing_is_sent_by_itself(facility: Facility, tmp_path: Path) -> None:
    def collect() -> list[str]:
        config = SubmissionConfig.model_validate(facility.settings)
        return [one.state for one in asyncio.run(collect_receipts(facility.ledger, config, lambda: facility.now))]

    facility.endpoint.will(ACCEPTED)
    assert collect() == []
    facility.drop(tmp_path)
    assert collect() == []
    (tmp_path / "sha256-ab.receipt.json").write_bytes(json.dumps(ACCEPTED).encode())
    assert collect() == ["accepted"]
    assert facility.endpoint.asked == []


def test_what_waits_for_a_file_is_sent_anew_when_the_site_gets_a_network(facility: Facility, tmp_path: Path) -> None:
    settings = facility.settings
    facility.drop(tmp_path)
    facility.settings = settings
    facility.endpoint.will(ACCEPTED)
    assert [one.state for one in facility.deliver()] == ["accepted"]
    with facility.ledger.read() as connection:
        assert item(connection, "sha256:ab") == facility.item
