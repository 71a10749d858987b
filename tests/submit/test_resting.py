"""What was made is remembered with what it rested on, for a week."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import enqueue, settle
from io_fhir_adapter.submit.deliver import Prepared
from io_fhir_adapter.submit.resting import as_noted, note_sealed, noted, rests

DAY = date(2026, 1, 30)
MADE = Prepared("s1", True, b"body", 0.5, 0.75, "queued", "")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = new_ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def sealed_before(ledger: Ledger, period: str, basis: str, on: date) -> Prepared | None:
    known = rests(ledger, period, basis, on)
    return as_noted(ledger, known) if known is not None else None


def seal(ledger: Ledger, made: Prepared = MADE) -> None:
    with ledger.begin() as connection:
        if made.identifier:
            enqueue(connection, made.identifier, "2025", made.body, datetime(2026, 1, 30, tzinfo=UTC))
        note_sealed(connection, "2025", "basis", DAY, made, {"risks": [{"case": 1, "holds": False}]})


def test_nothing_rests_before_anything_was_made(ledger: Ledger) -> None:
    assert sealed_before(ledger, "2025", "basis", DAY) is None
    with ledger.read() as connection:
        assert noted(connection, "2025") is None


def test_the_same_basis_gives_the_submission_as_it_stands_now(ledger: Ledger) -> None:
    seal(ledger)
    with ledger.begin() as connection:
        settle(connection, "s1", "rejected", "the receiver says no")
    found = sealed_before(ledger, "2025", "basis", DAY)
    assert found == Prepared("s1", False, b"body", 0.5, 0.75, "rejected", "the receiver says no")
    with ledger.read() as connection:
        assert noted(connection, "2025").guarded == {"risks": [{"case": 1, "holds": False}]}  # type: ignore[union-attr]


@pytest.mark.parametrize(("days", "rested"), [(0, True), (6, True), (7, False), (-1, False)])
def test_it_rests_for_a_week(ledger: Ledger, days: int, rested: bool) -> None:
    seal(ledger)
    assert (rests(ledger, "2025", "basis", DAY + timedelta(days=days)) is not None) == rested
    assert (sealed_before(ledger, "2025", "basis", DAY + timedelta(days=days)) is not None) == rested


@pytest.mark.parametrize(("period", "basis"), [("2025", "another"), ("2024", "basis")])
def test_another_basis_or_period_does_not_rest(ledger: Ledger, period: str, basis: str) -> None:
    seal(ledger)
    assert rests(ledger, period, basis, DAY) is None


def test_filled_forms_rest_although_nothing_was_sealed(ledger: Ledger) -> None:
    seal(ledger, Prepared("", False, b"", 0.5, 0.75, "", ""))
    found = rests(ledger, "2025", "basis", DAY)
    assert found is not None
    assert found.identifier == ""
    assert sealed_before(ledger, "2025", "basis", DAY) is None
