"""Local accounts: names, hashes of passwords, roles, and the lock-out after wrong passwords.

For a small site without a provider. Each change is noted in the audit in the same transaction, and one that takes
something away ends the account's sessions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from io_fhir_adapter.config import Role
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.audit import Action, note
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.schema import accounts
from io_fhir_adapter.ledger.sign_ins import end_sign_ins_of, roles_from, roles_text

__all__ = [
    "FAILURES_ALLOWED",
    "Account",
    "Actor",
    "account_of",
    "add_account",
    "all_accounts",
    "disable_account",
    "enable_account",
    "set_password",
    "set_roles",
    "take_failure",
    "take_success",
]

FAILURES_ALLOWED: Final = 5
"""So many wrong passwords in a row, and the account is locked for a while."""

_FIRST_LOCK: Final = timedelta(minutes=1)
_LONGEST_LOCK: Final = timedelta(hours=1)
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?")  # no colon: oidc:… are others
_LONGEST_DISPLAY: Final = 120


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes an account: an account's name and its roles by comma, as the audit notes them."""

    account: str
    role: str


@dataclass(frozen=True, slots=True)
class Account:
    """A local account.

    Attributes:
        name: What is typed at signing in; lower case.
        display: The name for people.
        hash: The password's argon2id hash.
        roles: What it may do.
        disabled: Whether it may not sign in.
        one_time: Whether its password was given by another and has to be changed.
        failures: Wrong passwords since the last right one.
        locked_until: Until when no password is taken; None where it is not locked.
        changed: When the password was.
    """

    name: str
    display: str
    hash: str
    roles: frozenset[Role]
    disabled: bool
    one_time: bool
    failures: int
    locked_until: datetime | None
    changed: str

    def locked(self, at: datetime) -> bool:
        """Whether no password is taken at this moment."""
        return self.locked_until is not None and at < self.locked_until

    def to_json(self, at: datetime) -> dict[str, Any]:
        """As ``accounts list --json`` shows it."""
        return {
            "name": self.name,
            "display": self.display,
            "roles": roles_text(self.roles).split(",") if self.roles else [],
            "disabled": self.disabled,
            "one_time_password": self.one_time,
            "locked": self.locked(at),
            "password_changed": self.changed,
        }


def account_of(connection: Connection, name: str) -> Account | None:
    """The account of a name as it was typed; None where there is none."""
    row = connection.execute(select(accounts).where(accounts.c.name == _typed(name))).first()
    return _account(row) if row is not None else None


def all_accounts(connection: Connection) -> list[Account]:
    """All accounts by name."""
    return [_account(row) for row in connection.execute(select(accounts).order_by(accounts.c.name))]


def add_account(
    connection: Connection, name: str, display: str, hashed: str, roles: Iterable[Role], *,
    one_time: bool, by: Actor, at: datetime,
) -> Account:  # fmt: skip
    """Makes an account.

    Raises:
        UsageError: The name is none, or is taken.
    """
    typed = _typed(name)
    if not _NAME.fullmatch(typed):
        raise UsageError(
            "the name of the account cannot be used",
            do="use up to 64 letters without accents, digits, dots, hyphens, underscores and @",
            number=30,
        )
    if account_of(connection, typed) is not None:
        raise UsageError("there is an account of this name", do="choose another name", number=31)
    shown = " ".join(display.split())[:_LONGEST_DISPLAY] or typed
    connection.execute(
        insert(accounts).values(
            name=typed, display=shown, hash=hashed, roles=roles_text(roles), disabled=False, one_time=one_time,
            failures=0, locked_until="", changed=timestamp(at),
        )
    )  # fmt: skip
    _noted(connection, typed, "C", f"account added, roles {roles_text(roles) or 'none'}", by, at)
    return _existing(connection, typed)


def set_roles(connection: Connection, name: str, roles: Iterable[Role], *, by: Actor, at: datetime) -> Account:
    """Gives an account these roles and no others; ends its sessions.

    Raises:
        UsageError: There is no such account.
    """
    account = _existing(connection, name)
    _write(connection, account.name, roles=roles_text(roles))
    end_sign_ins_of(connection, account.name)
    detail = f"roles {roles_text(account.roles) or 'none'} to {roles_text(roles) or 'none'}"
    _noted(connection, account.name, "U", detail, by, at)
    return _existing(connection, name)


def disable_account(connection: Connection, name: str, *, by: Actor, at: datetime) -> Account:
    """Takes signing in from an account; ends its sessions.

    Raises:
        UsageError: There is no such account.
    """
    account = _existing(connection, name)
    _write(connection, account.name, disabled=True)
    end_sign_ins_of(connection, account.name)
    _noted(connection, account.name, "U", "account disabled", by, at)
    return _existing(connection, name)


def enable_account(connection: Connection, name: str, *, by: Actor, at: datetime) -> Account:
    """Gives signing in back to an account, and ends a lock-out.

    Raises:
        UsageError: There is no such account.
    """
    account = _existing(connection, name)
    _write(connection, account.name, disabled=False, failures=0, locked_until="")
    _noted(connection, account.name, "U", "account enabled", by, at)
    return _existing(connection, name)


def set_password(connection: Connection, name: str, hashed: str, *, one_time: bool, by: Actor, at: datetime) -> Account:
    """Gives an account another password; ends its sessions and a lock-out.

    Raises:
        UsageError: There is no such account.
    """
    account = _existing(connection, name)
    changes = {"hash": hashed, "one_time": one_time, "failures": 0, "locked_until": "", "changed": timestamp(at)}
    _write(connection, account.name, **changes)
    end_sign_ins_of(connection, account.name)
    _noted(connection, account.name, "U", "one-time password given" if one_time else "password changed", by, at)
    return _existing(connection, name)


def take_failure(connection: Connection, name: str, at: datetime) -> datetime | None:
    """Counts a wrong password; gives until when the account is locked now, None where it is not."""
    account = _existing(connection, name)
    failures = account.failures + 1
    over = failures - FAILURES_ALLOWED
    until = at + min(_FIRST_LOCK * 2 ** min(over, 10), _LONGEST_LOCK) if over >= 0 else None
    _write(connection, account.name, failures=failures, locked_until=timestamp(until) if until is not None else "")
    return until


def take_success(connection: Connection, name: str, hashed: str | None = None) -> None:
    """Notes a right password; with ``hashed`` its hash is renewed, as when the parameters of hashing have changed."""
    changes: dict[str, Any] = {"failures": 0, "locked_until": ""}
    _write(connection, _typed(name), **changes, **({"hash": hashed} if hashed is not None else {}))


def _typed(name: str) -> str:
    return name.strip().lower()


def _existing(connection: Connection, name: str) -> Account:
    account = account_of(connection, name)
    if account is None:
        raise UsageError("there is no account of this name", do="see the accounts list command", number=32)
    return account


def _write(connection: Connection, name: str, **changes: Any) -> None:
    connection.execute(update(accounts).where(accounts.c.name == name).values(**changes))


def _noted(connection: Connection, name: str, action: Action, detail: str, by: Actor, at: datetime) -> None:
    note(
        connection, at=at, agent=by.account, role=by.role, action=action, entity=f"Account/{name}", detail=detail
    )  # fmt: skip


def _account(row: Any) -> Account:
    until = datetime.fromisoformat(row.locked_until) if row.locked_until else None
    return Account(
        row.name, row.display, row.hash, roles_from(row.roles), bool(row.disabled), bool(row.one_time),
        row.failures, until, row.changed,
    )  # fmt: skip
