"""Reviews in the ledger: nobody overwrites anybody, what is signed stays, and an approval is of very bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.approvals import (
    approval_of,
    approve,
    approve_text,
    approved_texts,
    clear,
    cleared_of,
    hold_unapproved,
    return_submission,
)
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import (
    StoredCase,
    StoredDraw,
    cases_of,
    commit_frame,
    leave_case,
    put_cases,
    put_nonce,
    supersede,
)
from io_fhir_adapter.ledger.outbox import enqueue, item, lease_due, settle, supersede_open
from io_fhir_adapter.ledger.reviews import release, reviews_of, save_draft, send_back, sign, signers_of, take
from io_fhir_adapter.trust.canonical import digest_bytes

NOW = datetime(2026, 2, 3, 8, 0, tzinfo=UTC)
BODY = b'{"resourceType":"Bundle"}'


@pytest.fixture
def draw(ledger: Ledger) -> StoredDraw:
    """A draw of two cases and a reserve."""
    return a_draw(ledger)


def a_draw(ledger: Ledger) -> StoredDraw:
    with ledger.begin() as connection:
        made = commit_frame(connection, "iasios", "2025", ("2025-01-01", "2025-12-31"), b"{}", "sha256:a", 9, NOW)
        put_nonce(connection, made, "5a" * 32, "local", NOW)
        roles = ("case", "case", "reserve")
        put_cases(
            connection,
            made,
            [
                StoredCase(number, role, f"t{number}", f"Patient/{number}", "2025-05-05", "tace", ())
                for number, role in enumerate(roles, start=1)
            ],
            NOW,
        )
    return made


def test_a_case_is_open_until_somebody_begins(ledger: Ledger, draw: StoredDraw) -> None:
    with ledger.begin() as connection:
        assert reviews_of(connection, draw.id) == {}
        assert take(connection, draw.id, 1, "weber").state == "open"
        made = save_draft(connection, draw.id, 1, b"one", "weber", NOW, 0)
        assert (made.state, made.answers, made.reviewer, made.revision) == ("draft", b"one", "weber", 1)
        assert reviews_of(connection, draw.id) == {1: made}


def test_two_browsers_never_overwrite_each_other(ledger: Ledger, draw: StoredDraw) -> None:
    with ledger.begin() as connection:
        save_draft(connection, draw.id, 1, b"first", "weber", NOW, 0)
    with pytest.raises(LedgerError, match="changed in the meantime"), ledger.begin() as connection:
        save_draft(connection, draw.id, 1, b"second", "weber", NOW, 0)
    with ledger.read() as connection:
        assert reviews_of(connection, draw.id)[1].answers == b"first"


def test_of_many_at_once_one_saves(ledger: Ledger, draw: StoredDraw) -> None:
    done: list[bytes] = []

    def save(text: bytes) -> None:
        try:
            with ledger.begin() as connection:
                save_draft(connection, draw.id, 1, text, "weber", NOW, 0)
            done.append(text)
        except LedgerError:
            return

    threads = [threading.Thread(target=save, args=(str(number).encode(),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ledger.read() as connection:
        assert [reviews_of(connection, draw.id)[1].answers] == done


def test_what_is_signed_is_changed_by_nobody_until_it_is_sent_back(ledger: Ledger, draw: StoredDraw) -> None:
    with ledger.begin() as connection:
        save_draft(connection, draw.id, 1, b"one", "weber", NOW, 0)
        signed = sign(connection, draw.id, 1, "weber", NOW, 1)
        assert (signed.state, signed.signed[:10], signed.revision) == ("signed", "2026-02-03", 2)
        attempts: tuple[Callable[[], object], ...] = (
            lambda: save_draft(connection, draw.id, 1, b"two", "weber", NOW, 2),
            lambda: sign(connection, draw.id, 1, "weber", NOW, 2),
            lambda: take(connection, draw.id, 1, "weber"),
            lambda: release(connection, draw.id, 1),
        )
        for attempt in attempts:
            with pytest.raises(LedgerError, match="the case is signed"):
                attempt()
        assert send_back(connection, draw.id, 1, "chief", NOW, "Look again.") == [1]
        back = reviews_of(connection, draw.id)[1]
        assert (back.state, back.answers, back.comment, back.returned_by) == (
            "returned",
            b"one",
            "Look again.",
            "chief",
        )
        with pytest.raises(LedgerError, match="changed in the meantime"):
            save_draft(connection, draw.id, 1, b"two", "weber", NOW, 2)
        save_draft(connection, draw.id, 1, b"two", "weber", NOW, 3)
        again = sign(connection, draw.id, 1, "weber", NOW, 4)
        assert (again.answers, again.comment) == (b"two", "")


def test_nothing_is_signed_that_was_not_saved(ledger: Ledger, draw: StoredDraw) -> None:
    with pytest.raises(LedgerError, match="nothing was saved"), ledger.begin() as connection:
        sign(connection, draw.id, 1, "weber", NOW, 0)


def test_a_case_is_one_reviewers_until_it_is_released(ledger: Ledger, draw: StoredDraw) -> None:
    with ledger.begin() as connection:
        take(connection, draw.id, 1, "weber")
        attempts: tuple[Callable[[], object], ...] = (
            lambda: take(connection, draw.id, 1, "kurz"),
            lambda: save_draft(connection, draw.id, 1, b"mine", "kurz", NOW, 0),
        )
        for attempt in attempts:
            with pytest.raises(LedgerError, match="another reviewer works on the case"):
                attempt()
        release(connection, draw.id, 1)
        assert save_draft(connection, draw.id, 1, b"mine", "kurz", NOW, 0).reviewer == "kurz"


def test_a_case_that_left_keeps_its_row_and_is_not_asked_for(ledger: Ledger, draw: StoredDraw) -> None:
    with ledger.begin() as connection:
        save_draft(connection, draw.id, 1, b"one", "weber", NOW, 0)
        sign(connection, draw.id, 1, "weber", NOW, 1)
        assert signers_of(connection, draw.id) == {"weber"}
        leave_case(connection, draw, cases_of(connection, draw.id)[0], "duplicate", NOW)
        assert reviews_of(connection, draw.id)[1].state == "signed"
        assert signers_of(connection, draw.id) == set()
        assert send_back(connection, draw.id, None, "chief", NOW, "") == []
        with pytest.raises(LedgerError, match="not in the sample"):
            send_back(connection, draw.id, 1, "chief", NOW, "")
        assert save_draft(connection, draw.id, 3, b"three", "weber", NOW, 0).state == "draft"


def test_a_new_draw_starts_anew(ledger: Ledger, draw: StoredDraw) -> None:
    with ledger.begin() as connection:
        save_draft(connection, draw.id, 1, b"one", "weber", NOW, 0)
        supersede(connection, draw, "body-asked", NOW)
        with pytest.raises(LedgerError, match="not in the sample"):
            save_draft(connection, draw.id, 1, b"two", "weber", NOW, 1)
    with ledger.begin() as connection:
        assert reviews_of(connection, draw.id)[1].answers == b"one"
    anew = a_draw(ledger)
    with ledger.read() as connection:
        assert reviews_of(connection, anew.id) == {}


def hold(ledger: Ledger, identifier: str = "s1", body: bytes = BODY) -> None:
    with ledger.begin() as connection:
        enqueue(connection, identifier, "2025", body, NOW, held=True)


def leased(ledger: Ledger) -> str | None:
    with ledger.begin() as connection:
        hold_unapproved(connection)
        found = lease_due(connection, NOW + timedelta(days=30), timedelta(minutes=1))
    return found.identifier if found is not None else None


def test_what_is_held_leaves_only_with_an_approval_of_its_bytes(ledger: Ledger, draw: StoredDraw) -> None:
    hold(ledger)
    assert leased(ledger) is None
    with pytest.raises(LedgerError, match="not the one that was looked at"), ledger.begin() as connection:
        approve(connection, draw.id, "s1", digest_bytes(b"another"), by="chief", role="approver", at=NOW)
    with ledger.begin() as connection:
        approve(connection, draw.id, "s1", digest_bytes(BODY), by="chief", role="approver", at=NOW)
        said = approval_of(connection, "s1")
    assert said is not None
    assert (said.verdict, said.by, said.digest) == ("approved", "chief", digest_bytes(BODY))
    assert leased(ledger) == "s1"
    assert leased(ledger) is None


def test_what_was_queued_without_a_word_is_held(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        enqueue(connection, "s1", "2025", BODY, NOW)
    assert leased(ledger) is None
    with ledger.read() as connection:
        assert item(connection, "s1").state == "held"  # type: ignore[union-attr]


def test_who_ever_signed_a_case_of_the_sample_cannot_approve(ledger: Ledger, draw: StoredDraw) -> None:
    hold(ledger)
    with ledger.begin() as connection:
        save_draft(connection, draw.id, 1, b"one", "weber", NOW, 0)
        sign(connection, draw.id, 1, "weber", NOW, 1)
        send_back(connection, draw.id, 1, "chief", NOW, "")
        release(connection, draw.id, 1)
        sign(connection, draw.id, 1, "kurz", NOW, 3)
        assert signers_of(connection, draw.id) == {"weber", "kurz"}
    for who in ("weber", "kurz"):
        with pytest.raises(LedgerError, match="cannot approve"), ledger.begin() as connection:
            approve(connection, draw.id, "s1", digest_bytes(BODY), by=who, role="approver", at=NOW)
    assert leased(ledger) is None


def test_what_was_returned_does_not_leave_and_opens_its_cases(ledger: Ledger, draw: StoredDraw) -> None:
    hold(ledger)
    with ledger.begin() as connection:
        for number in (1, 2):
            save_draft(connection, draw.id, number, b"x", "weber", NOW, 0)
            sign(connection, draw.id, number, "weber", NOW, 1)
        approve(connection, draw.id, "s1", digest_bytes(BODY), by="chief", role="approver", at=NOW)
        opened = return_submission(connection, draw.id, "s1", by="chief", role="approver", at=NOW, comment="Both.")
    assert opened == [1, 2]
    assert leased(ledger) is None
    with ledger.begin() as connection:
        assert approval_of(connection, "s1").verdict == "returned"  # type: ignore[union-attr]
        settle(connection, "s1", "queued", "", NOW)  # even if something queued it again
    assert leased(ledger) is None


def test_what_has_arrived_cannot_be_returned(ledger: Ledger, draw: StoredDraw) -> None:
    hold(ledger)
    with ledger.begin() as connection:
        settle(connection, "s1", "accepted")
    with pytest.raises(LedgerError, match="it is accepted"), ledger.begin() as connection:
        return_submission(connection, draw.id, "s1", by="chief", role="approver", at=NOW, comment="")


def test_what_was_overtaken_stays_behind_until_it_is_said_again(ledger: Ledger, draw: StoredDraw) -> None:
    hold(ledger, "s1")
    hold(ledger, "s2", b"2")
    with ledger.begin() as connection:
        approve(connection, draw.id, "s1", digest_bytes(BODY), by="chief", role="approver", at=NOW)
        assert supersede_open(connection, "2025", "s2") == ["s1"]
        assert supersede_open(connection, "2024") == []
        with pytest.raises(LedgerError, match="it is superseded"):
            approve(connection, draw.id, "s1", digest_bytes(BODY), by="chief", role="approver", at=NOW)
    assert leased(ledger) is None
    hold(ledger, "s1")
    with ledger.read() as connection:
        assert item(connection, "s1").state == "held"  # type: ignore[union-attr]
    with ledger.begin() as connection:
        assert not enqueue(connection, "s1", "2025", BODY, NOW)  # nobody has to approve any more
        assert item(connection, "s1").state == "queued"  # type: ignore[union-attr]


def test_texts_and_rare_cases_are_let_go_one_by_one(ledger: Ledger, draw: StoredDraw) -> None:
    with ledger.begin() as connection:
        approve_text(connection, draw.id, 1, "ab" * 32, by="chief", at=NOW)
        clear(connection, draw.id, 2, 2, reason="patient-agreed", by="chief", at=NOW)
        clear(connection, draw.id, 2, 1, reason="patient-agreed", by="chief", at=NOW)
        assert approved_texts(connection, draw.id) == {"ab" * 32}
        assert cleared_of(connection, draw.id) == {2: 1}
        with pytest.raises(LedgerError, match="no reason for a rare case"):
            clear(connection, draw.id, 1, 1, reason="", by="chief", at=NOW)
