"""Whether somebody is who they say: the name and password of a local account."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from io_fhir_adapter.ledger.accounts import Account, account_of, take_failure, take_success
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.sign_ins import roles_text
from io_fhir_adapter.look.passwords import Passwords

__all__ = ["UNKNOWN", "right_account"]

UNKNOWN: Final = "unknown"
"""The agent in the audit where no account has the name: what was typed there may have been a password."""


def right_account(
    ledger: Ledger, passwords: Passwords, name: str, password: str, now: Callable[[], datetime]
) -> Account | None:
    """The account where name and password are right and it may sign in; the same work is done where it is not.

    Args:
        ledger: Has the accounts.
        passwords: What hashes.
        name: As it was typed.
        password: As it was typed.
        now: The clock.

    Raises:
        BusyError: Too many passwords are being looked at.
    """
    with ledger.read() as connection:
        account = account_of(connection, name)
    right = passwords.verify(account.hash if account is not None else None, password)
    fresh = passwords.hash(password) if right and account and passwords.outdated(account.hash) else None
    at = now()
    with ledger.begin() as connection:  # looked at again: it may have been locked or changed meanwhile
        current = account_of(connection, name)
        if current is not None and current == account and right and not current.disabled and not current.locked(at):
            take_success(connection, current.name, fresh)
            return current
        if current is None:
            outcome = "failed"
        elif current.disabled:
            outcome = "disabled"
        elif current.locked(at):
            outcome = "locked"
        else:
            until = take_failure(connection, current.name, at)
            outcome = "failed, locked now" if until is not None else "failed"
        agent = current.name if current is not None else UNKNOWN
        role = roles_text(current.roles) if current is not None else ""
        note(
            connection, at=at, agent=agent, role=role, action="E", entity=f"Account/{agent}", outcome="4",
            detail=f"sign-in {outcome}",
        )  # fmt: skip
    return None
