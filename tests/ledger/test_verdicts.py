"""What the body says of a submission, and which submissions it is to be asked about; in either database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.outbox import (
    Receipt,
    awaiting_receipt,
    enqueue,
    find_item,
    items,
    lease_due,
    put_receipt,
    receipts_of,
    release,
    retry,
    settle,
)
from io_fhir_adapter.ledger.verdicts import BodyVerdict, latest_verdict, put_asked, put_verdict, to_ask, verdicts_of

NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def said(identifier: str, state: str, task: bytes) -> BodyVerdict:
    return BodyVerdict(identifier, state, "", timestamp(NOW), timestamp(NOW), task)


def test_who_is_asked_about_hangs_on_state_age_and_verdict(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        for name, age, state in (
            ("old", 2000, "accepted"),
            ("decided", 30, "accepted"),
            ("open", 10, "accepted"),
            ("refused", 5, "rejected"),
        ):
            enqueue(connection, name, "2025", b"", NOW - age * DAY)
            settle(connection, name, state)
        assert put_verdict(connection, said("decided", "received", b"1"))
        assert put_verdict(connection, said("decided", "accepted", b"2"))
        assert not put_verdict(connection, said("decided", "accepted", b"2"))
        assert [one.state for one in verdicts_of(connection, "decided")] == ["received", "accepted"]
        last = latest_verdict(connection, "decided")
        assert last is not None
        assert last.state == "accepted"

        assert to_ask(connection, NOW) == ["decided", "open"]
        for name in ("decided", "open"):
            put_asked(connection, name, NOW)
        assert to_ask(connection, NOW + timedelta(hours=19)) == []
        assert to_ask(connection, NOW, soon=True) == ["decided", "open"]
        assert to_ask(connection, NOW + DAY) == ["open"]
        assert to_ask(connection, NOW + 8 * DAY) == ["decided", "open"]
        assert to_ask(connection, NOW + 100 * DAY) == ["decided", "open"]
        assert to_ask(connection, NOW + 1200 * DAY) == []


def test_the_outbox_is_looked_through_released_and_retried(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        for number, name in enumerate(("sha256:a1", "sha256:b_", "sha256:bx")):
            enqueue(connection, name, "2025", b"", NOW + number * DAY)
        assert [one.identifier for one in items(connection)] == ["sha256:bx", "sha256:b_", "sha256:a1"]
        assert find_item(connection, "b_").identifier == "sha256:b_"
        assert lease_due(connection, NOW, DAY) is not None
        assert lease_due(connection, NOW, DAY) is None
        assert (release(connection, NOW), release(connection, NOW)) == (1, 0)
        assert lease_due(connection, NOW, DAY) is not None
        settle(connection, "sha256:a1", "sent", "waits")
        assert [one.identifier for one in awaiting_receipt(connection)] == ["sha256:a1"]
        for sentence in ("first", "second"):
            put_receipt(connection, Receipt("sha256:a1", timestamp(NOW), 0, "sent", sentence, b""))
        assert [one.sentence for one in receipts_of(connection, "sha256:a1")] == ["first", "second"]
        settle(connection, "sha256:a1", "rejected", "no")
        retry(connection, "sha256:a1", NOW)
        found = find_item(connection, "a1")
        assert (found.state, found.attempts, found.cause) == ("queued", 0, "no")
