"""Local accounts in the ledger: names, roles, lock-out, and sessions that end with what is taken away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.accounts import (
    Account,
    Actor,
    account_of,
    add_account,
    all_accounts,
    disable_account,
    enable_account,
    set_password,
    set_roles,
    take_failure,
    take_success,
)
from io_fhir_adapter.ledger.audit import entries
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.sign_ins import Limits, begin_sign_in, find_sign_in, roles_from, roles_text

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
BY = Actor("admin", "administrator")
LIMITS = Limits(timedelta(minutes=15), timedelta(hours=8))
Change = Callable[[Connection], Account]


def weber(connection: Connection) -> Account:
    return add_account(connection, " Weber ", " Dr.  Weber ", "hash", ["reviewer"], one_time=False, by=BY, at=NOON)


def test_a_name_is_lower_case_and_its_own(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        assert (weber(connection).name, weber_of(connection).display) == ("weber", "Dr. Weber")
        with pytest.raises(UsageError, match=r"there is an account of this name"):
            add_account(connection, "WEBER", "", "h", [], one_time=False, by=BY, at=NOON)
        other = add_account(connection, "a.b_c@d-1", "", "h", [], one_time=True, by=BY, at=NOON)
        assert (other.display, other.one_time, other.roles) == ("a.b_c@d-1", True, frozenset())
        assert [account.name for account in all_accounts(connection)] == ["a.b_c@d-1", "weber"]


def weber_of(connection: Connection) -> Account:
    account = account_of(connection, "weber")
    assert account is not None
    return account


def test_a_name_that_could_be_mistaken_is_refused(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        for name in ("", " ", "a b", "oidc:1", "ä", "-a", "a.", "x" * 65, "a/b", "<b>"):
            with pytest.raises(UsageError) as caught:
                add_account(connection, name, "", "h", [], one_time=False, by=BY, at=NOON)
            assert caught.value.code == "IOA-USE-030"
        assert all_accounts(connection) == []


def test_after_five_failures_it_is_locked_and_longer_each_time(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        weber(connection)
        until = [take_failure(connection, "weber", NOON) for _ in range(14)]
        minutes = [(one - NOON).total_seconds() / 60 if one is not None else 0 for one in until]
        assert minutes == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
        assert weber_of(connection).locked(NOON + timedelta(minutes=59))
        assert not weber_of(connection).locked(NOON + timedelta(minutes=60))
        take_success(connection, "weber")
        assert not weber_of(connection).locked(NOON)
        assert take_failure(connection, "weber", NOON) is None


CHANGES: dict[str, Change] = {
    "roles reviewer to viewer": lambda c: set_roles(c, "weber", ["viewer"], by=BY, at=NOON),
    "roles viewer to none": lambda c: set_roles(c, "Weber", [], by=BY, at=NOON),
    "account disabled": lambda c: disable_account(c, "weber", by=BY, at=NOON),
    "one-time password given": lambda c: set_password(c, "weber", "new", one_time=True, by=BY, at=NOON),
    "password changed": lambda c: set_password(c, "weber", "new", one_time=False, by=BY, at=NOON),
}


def test_what_takes_something_away_ends_its_sessions_alone(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        weber(connection)
        for detail, change in CHANGES.items():
            secrets = [
                begin_sign_in(connection, account=name, display="", roles=["reviewer"], at=NOON)
                for name in ("weber", "weber", "schulz")
            ]
            change(connection)
            found = [find_sign_in(connection, secret, NOON, LIMITS) for secret in secrets]
            assert [sign_in is not None for sign_in in found] == [False, False, True], detail
            entry = next(entries(connection, newest=1))
            assert (entry.agent, entry.role, entry.action) == ("admin", "administrator", "U")
            assert (entry.entity, entry.detail) == ("Account/weber", detail)


def test_enabling_ends_a_lock_out(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        weber(connection)
        for _ in range(6):
            take_failure(connection, "weber", NOON)
        disable_account(connection, "weber", by=BY, at=NOON)
        account = enable_account(connection, "weber", by=BY, at=NOON)
    assert (account.disabled, account.failures, account.locked(NOON)) == (False, 0, False)


def test_an_account_that_is_not_there_is_a_sentence(ledger: Ledger) -> None:
    with ledger.begin() as connection, pytest.raises(UsageError) as caught:
        set_roles(connection, "absent", ["viewer"], by=BY, at=NOON)
    assert caught.value.code == "IOA-USE-032"


def test_roles_have_one_order_and_strange_words_are_none() -> None:
    assert roles_text(["administrator", "viewer"]) == "viewer,administrator"
    assert roles_from("viewer,boss,,administrator") == {"viewer", "administrator"}
    assert roles_from("") == frozenset()
