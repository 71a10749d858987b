"""The outbox: queued once, held by one sender at a time, taken over from a dead one, and its receipts."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.outbox import (
    Receipt,
    enqueue,
    item,
    latest_receipt,
    lease_due,
    pending,
    put_receipt,
    retry_parked,
    settle,
)

NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
LEASE = timedelta(minutes=15)


def queue(ledger: Ledger, *names: str) -> None:
    """Queues submissions, each a second after the one before."""
    with ledger.begin() as connection:
        for number, name in enumerate(names):
            assert enqueue(connection, name, "2025", name.encode(), NOW + timedelta(seconds=number))


def take(ledger: Ledger, after: timedelta = timedelta(minutes=1)) -> str:
    """Leases the next one; empty where there is none."""
    with ledger.begin() as connection:
        found = lease_due(connection, NOW + after, LEASE)
    return found.identifier if found is not None else ""


def state_of(ledger: Ledger, name: str) -> tuple[str, int]:
    """State and attempts."""
    with ledger.read() as connection:
        found = item(connection, name)
    assert found is not None
    return found.state, found.attempts


def test_the_same_submission_is_queued_once(ledger: Ledger) -> None:
    queue(ledger, "a")
    with ledger.begin() as connection:
        assert not enqueue(connection, "a", "2026", b"other", NOW)
        found = item(connection, "a")
    assert found is not None
    assert (found.period, found.body, found.state, found.attempts) == ("2025", b"a", "queued", 0)


def test_the_oldest_is_sent_first_and_held_by_one_sender(ledger: Ledger) -> None:
    queue(ledger, "b", "a")
    assert [take(ledger), take(ledger), take(ledger)] == ["b", "a", ""]
    assert state_of(ledger, "b") == ("sending", 1)


def test_many_senders_at_once_take_each_submission_once(ledger: Ledger) -> None:
    names = [f"n{number}" for number in range(12)]
    queue(ledger, *names)
    taken: list[str] = []

    def send() -> None:
        while name := take(ledger):
            taken.append(name)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(names)


def test_nothing_is_sent_before_it_is_due(ledger: Ledger) -> None:
    queue(ledger, "a")
    take(ledger)
    with ledger.begin() as connection:
        settle(connection, "a", "queued", "busy", NOW + timedelta(hours=1))
    assert take(ledger, timedelta(minutes=59)) == ""
    assert take(ledger, timedelta(minutes=60)) == "a"
    assert state_of(ledger, "a") == ("sending", 2)


def test_a_dead_sender_is_taken_over_from_when_its_lease_has_run_out(ledger: Ledger) -> None:
    queue(ledger, "a")
    assert take(ledger, timedelta()) == "a"
    assert take(ledger, LEASE) == ""
    assert take(ledger, LEASE + timedelta(seconds=1)) == "a"
    assert state_of(ledger, "a") == ("sending", 2)


def test_a_sender_taken_for_dead_cannot_undo_what_is_accepted(ledger: Ledger) -> None:
    queue(ledger, "a")
    take(ledger)
    with ledger.begin() as connection:
        settle(connection, "a", "accepted")
        settle(connection, "a", "queued", "the connection failed", NOW)
        settle(connection, "a", "rejected", "a duplicate")
    assert state_of(ledger, "a") == ("accepted", 1)
    assert take(ledger, timedelta(days=1)) == ""


def test_what_is_parked_waits_for_a_person(ledger: Ledger) -> None:
    queue(ledger, "a", "b", "c")
    for name, state in (("a", "parked"), ("b", "rejected")):
        take(ledger)
        with ledger.begin() as connection:
            settle(connection, name, state, "no")
    with ledger.begin() as connection:
        assert [(found.identifier, found.state) for found in pending(connection)] == [("a", "parked"), ("c", "queued")]
        assert retry_parked(connection, NOW) == ["a"]
    assert [take(ledger), take(ledger), take(ledger)] == ["a", "c", ""]
    assert state_of(ledger, "a") == ("sending", 1)


def test_the_latest_receipt_is_the_answer(ledger: Ledger) -> None:
    queue(ledger, "a")
    with ledger.begin() as connection:
        assert latest_receipt(connection, "a") is None
        for status in (503, 200):
            put_receipt(connection, Receipt("a", timestamp(NOW), status, "accepted", "yes", b"\x00{}"))
        assert latest_receipt(connection, "a") == Receipt("a", timestamp(NOW), 200, "accepted", "yes", b"\x00{}")
        assert latest_receipt(connection, "b") is None
