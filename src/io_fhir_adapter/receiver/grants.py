"""What the token endpoint keeps: the access tokens it gave, by their digests, and the assertions that were used.

Both lie in the receiver's database, so that a restart forgets nothing and a second process knows what the first did.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

__all__ = ["TABLES", "Grant", "grant", "granted", "use_once"]

TABLES: Final = sa.MetaData()

_TOKENS: Final = sa.Table(
    "access_tokens",
    TABLES,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("facility", sa.String(64), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("ends", sa.Float, nullable=False, index=True),
)
_USED: Final = sa.Table(
    "used_assertions",
    TABLES,
    sa.Column("client", sa.String(256), primary_key=True),
    sa.Column("jti", sa.String(64), primary_key=True),
    sa.Column("ends", sa.Float, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What an access token is good for."""

    facility: str
    scopes: tuple[str, ...]


def grant(connection: sa.Connection, token: str, facility: str, scopes: tuple[str, ...], ends: float) -> None:
    """Keeps a new access token: its digest, and never itself."""
    row = {"digest": _digest(token), "facility": facility, "scopes": list(scopes), "ends": ends}
    connection.execute(sa.insert(_TOKENS).values(row))


def granted(connection: sa.Connection, token: str, now: float) -> Grant | None:
    """What a token is good for now; None where it was never given or has ended."""
    query = sa.select(_TOKENS.c.facility, _TOKENS.c.scopes)
    row = connection.execute(query.where(_TOKENS.c.digest == _digest(token), _TOKENS.c.ends > now)).one_or_none()
    return None if row is None else Grant(row.facility, tuple(row.scopes))


def use_once(connection: sa.Connection, client: str, jti: str, ends: float, now: float) -> bool:
    """Takes note of an assertion until it ends; False where it was used before. What has ended is swept away.

    Args:
        connection: In a transaction that writes.
        client: Who made it.
        jti: Its name, which counts for this client alone.
        ends: When it ends at the latest, seconds since 1970.
        now: The same.
    """
    for table in (_TOKENS, _USED):
        connection.execute(sa.delete(table).where(table.c.ends <= now))
    row = {"client": client, "jti": _digest(jti), "ends": ends}
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(_USED).values(row))
    except sa.exc.IntegrityError:  # of this process, or of one that was faster
        return False
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
