"""The ledger's chain: what was committed to, drawn and taken out of a sample, in the order in which it happened.

Rows are only ever added; the database refuses to change or remove one, and the digests show it where somebody made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.schema import chain
from io_fhir_adapter.trust.canonical import canonical_json
from io_fhir_adapter.trust.chain import START, Link, first_broken, link_digest

__all__ = ["add_link", "check_chain", "links"]


def add_link(connection: Connection, kind: str, body: Mapping[str, Any], now: datetime) -> str:
    """Adds what happened, and gives its digest.

    Args:
        connection: An open transaction; what the link tells of is written in the same one.
        kind: What happened, such as ``frame-committed``.
        body: The particulars, a JSON object without anything about a person.
        now: When.
    """
    last = connection.execute(select(chain.c.number, chain.c.digest).order_by(chain.c.number.desc()).limit(1)).first()
    number, previous = (last.number + 1, last.digest) if last is not None else (1, START)
    at = timestamp(now)
    made = link_digest(previous, at, kind, dict(body))
    connection.execute(
        insert(chain).values(number=number, at=at, kind=kind, body=canonical_json(dict(body)), digest=made)
    )
    return made


def links(connection: Connection) -> Iterator[Link]:
    """All links, the first first."""
    for row in connection.execute(select(chain).order_by(chain.c.number)):
        yield Link(row.number, row.at, row.kind, json.loads(row.body), row.digest)


def check_chain(connection: Connection) -> int:
    """The number of links, where every one follows from those before it.

    Raises:
        LedgerError: One does not.
    """
    found = list(links(connection))
    broken = first_broken(found)
    if broken is not None:
        raise LedgerError(
            "the chain of draws is broken",
            where=f"chain, link {broken}",
            do="the ledger was changed by hand or damaged; restore a backup and keep this file as evidence",
            number=8,
        )
    return len(found)
