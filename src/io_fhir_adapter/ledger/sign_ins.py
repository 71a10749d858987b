"""Who is signed in at the service: kept in the ledger, so that disabling an account ends it at once.

What a browser holds is a random secret; the ledger has its SHA-256 alone, so that nobody who reads the ledger can sit
down at another's session.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select, update

from io_fhir_adapter.config import ROLES, Role
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.schema import sign_ins

__all__ = [
    "Limits",
    "SignIn",
    "begin_sign_in",
    "clear_sign_ins",
    "end_sign_in",
    "end_sign_ins_of",
    "find_sign_in",
    "roles_from",
    "roles_text",
    "touch_sign_in",
]

_SECRET_BYTES = 32
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a session lasts without a request, and at all."""

    idle: timedelta
    most: timedelta


@dataclass(frozen=True, slots=True)
class SignIn:
    """A session that holds.

    Attributes:
        account: Whose.
        display: The name for people.
        roles: What they may do.
        one_time: Whether the password has to be changed first.
        seen: When the last request was noted.
    """

    account: str
    display: str
    roles: frozenset[Role]
    one_time: bool
    seen: datetime


def roles_text(roles: Iterable[Role]) -> str:
    """Roles as the ledger writes them: by comma, in their order."""
    given = set(roles)
    return ",".join(role for role in ROLES if role in given)


def roles_from(text: str) -> frozenset[Role]:
    """Roles as the ledger wrote them; words that are none are left out."""
    return frozenset(word for word in text.split(",") if word in ROLES)


def begin_sign_in(
    connection: Connection, *, account: str, display: str, roles: Iterable[Role], at: datetime, one_time: bool = False
) -> str:
    """A new session; gives its secret, for the cookie."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    moment = timestamp(at)
    connection.execute(
        insert(sign_ins).values(
            id=_id(secret), account=account, display=display[:_LONGEST_NAME], roles=roles_text(roles),
            one_time=one_time, began=moment, seen=moment,
        )
    )  # fmt: skip
    return secret


def find_sign_in(connection: Connection, secret: str, at: datetime, limits: Limits) -> SignIn | None:
    """The session that a secret opens; None where there is none, or it has timed out."""
    columns = sign_ins.c
    row = connection.execute(
        select(sign_ins).where(
            columns.id == _id(secret),
            columns.seen > timestamp(at - limits.idle),
            columns.began > timestamp(at - limits.most),
        )
    ).first()
    if row is None:
        return None
    return SignIn(row.account, row.display, roles_from(row.roles), row.one_time, datetime.fromisoformat(row.seen))


def touch_sign_in(connection: Connection, secret: str, at: datetime) -> None:
    """Notes a request, so that the session does not time out as idle."""
    connection.execute(update(sign_ins).where(sign_ins.c.id == _id(secret)).values(seen=timestamp(at)))


def end_sign_in(connection: Connection, secret: str) -> str:
    """Ends a session; gives the account that it was of, empty where there was none."""
    one = sign_ins.c.id == _id(secret)
    account = connection.execute(select(sign_ins.c.account).where(one)).scalar()
    connection.execute(delete(sign_ins).where(one))
    return str(account or "")


def end_sign_ins_of(connection: Connection, account: str) -> int:
    """Ends all sessions of an account; gives how many there were."""
    mine = sign_ins.c.account == account
    number = connection.execute(select(func.count()).select_from(sign_ins).where(mine)).scalar_one()
    connection.execute(delete(sign_ins).where(mine))
    return int(number)


def clear_sign_ins(connection: Connection, at: datetime, limits: Limits) -> None:
    """Removes the sessions that have timed out."""
    columns = sign_ins.c
    connection.execute(
        delete(sign_ins).where(
            (columns.seen <= timestamp(at - limits.idle)) | (columns.began <= timestamp(at - limits.most))
        )
    )


def _id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
