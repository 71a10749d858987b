"""The audit: added to, never changed, and seen where somebody did."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, delete, update

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.audit import audit_size, entries, note, verify_audit
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.schema import audit
from io_fhir_adapter.trust.chain import START

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def look(connection: Connection, number: int) -> str:
    moment = NOON + timedelta(seconds=number)
    return note(
        connection, at=moment, agent="weber", role="reviewer", action="R", entity=f"Case/3/{number}", detail="identity"
    )  # fmt: skip


@pytest.fixture
def kept(ledger: Ledger) -> Ledger:
    with ledger.begin() as connection:
        for number in range(1, 6):
            look(connection, number)
    return ledger


def test_entries_come_in_their_order_or_the_newest_first(kept: Ledger) -> None:
    with kept.read() as connection:
        assert [entry.number for entry in entries(connection)] == [1, 2, 3, 4, 5]
        assert [entry.number for entry in entries(connection, newest=2)] == [5, 4]
        assert [entry.number for entry in entries(connection, newest=2, before=4)] == [3, 2]
        assert audit_size(connection) == 5
        last = next(entries(connection, newest=1))
    assert (last.at, last.action, last.outcome, last.agent, last.role) == (
        "2026-03-02T12:00:05.000000Z", "R", "0", "weber", "reviewer",
    )  # fmt: skip
    assert (last.entity, last.detail) == ("Case/3/5", "identity")


def test_each_entry_follows_from_the_one_before(kept: Ledger) -> None:
    with kept.begin() as connection:
        count, digest = verify_audit(connection)
        assert (count, digest) == (5, next(entries(connection, newest=1)).digest)
        made = look(connection, 6)
        assert verify_audit(connection) == (6, made)


def test_an_empty_audit_holds(ledger: Ledger) -> None:
    with ledger.read() as connection:
        assert verify_audit(connection) == (0, START)


def test_the_database_refuses_to_change_it(kept: Ledger) -> None:
    again = "number, at, action, outcome, 'other', role, entity, detail, digest"
    replacing = f"INSERT OR REPLACE INTO audit SELECT {again} FROM audit"  # noqa: S608 - as somebody would who owns it
    for change in ("UPDATE audit SET agent = 'other' WHERE number = 2", "DELETE FROM audit", replacing):
        with pytest.raises(LedgerError, match="the database refused"), kept.begin() as connection:
            connection.exec_driver_sql(change)
    with kept.read() as connection:
        assert verify_audit(connection)[0] == 5


def by_force(connection: Connection) -> None:
    """Takes away what refuses changes, as somebody who owns the database can."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE audit DISABLE TRIGGER audit_only_added_to")
    else:
        connection.exec_driver_sql("DROP TRIGGER audit_no_update")
        connection.exec_driver_sql("DROP TRIGGER audit_no_delete")


def test_a_change_by_force_is_seen_in_every_column(kept: Ledger) -> None:
    with kept.begin() as connection:
        by_force(connection)
        for column in ("at", "action", "outcome", "agent", "role", "entity", "detail", "digest"):
            with connection.begin_nested() as change:
                third = update(audit).where(audit.c.number == 3)
                connection.execute(third.values({column: "X"}))
                with pytest.raises(LedgerError, match=r"audit, entry 3: the audit is broken") as caught:
                    verify_audit(connection)
                assert caught.value.code == "IOA-LED-030"
                change.rollback()
        assert verify_audit(connection)[0] == 5


def test_an_entry_left_out_is_seen_and_one_cut_off_in_the_digest_that_was_kept(kept: Ledger) -> None:
    with kept.begin() as connection:
        by_force(connection)
        before = verify_audit(connection)
        connection.execute(delete(audit).where(audit.c.number == 5))
        assert verify_audit(connection) != before
        connection.execute(delete(audit).where(audit.c.number == 2))
        with pytest.raises(LedgerError, match="entry 2"):
            verify_audit(connection)


def test_what_is_rolled_back_leaves_no_entry(kept: Ledger) -> None:
    def fail() -> None:
        with kept.begin() as connection:
            look(connection, 6)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with kept.begin() as connection:
        assert audit_size(connection) == 5
        look(connection, 6)
        assert verify_audit(connection)[0] == 6


def test_two_who_write_at_once_make_one_chain(kept: Ledger) -> None:
    def write() -> None:
        for number in range(5):
            with kept.begin() as connection:
                look(connection, number)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with kept.read() as connection:
        assert verify_audit(connection)[0] == 20
