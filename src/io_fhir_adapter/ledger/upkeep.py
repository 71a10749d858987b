"""What the ledger tells about how it fares: its queue, its runs, what was set aside, who holds it. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from io_fhir_adapter.ledger.backup import LAST_BACKUP
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.lease import job_of
from io_fhir_adapter.ledger.runs import Run, last_complete, last_run, read_state
from io_fhir_adapter.ledger.schema import draws, facts, outbox, quarantine, runs

__all__ = ["Fares", "Waiting", "fares", "has_undrawn", "newest_drawn"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The newest submission of a period that was not accepted yet.

    Attributes:
        period: Label of the reported period.
        state: Where it stands in the outbox.
        created: When it was sealed, UTC.
    """

    period: str
    state: str
    created: str


@dataclass(frozen=True, slots=True)
class Fares:
    """How a ledger fares.

    Attributes:
        waiting: Submissions that have not ended well, the oldest first.
        last: The run that started last, None where none did.
        complete: When the last complete run ended, empty where none did.
        copied: When the ledger was last copied by ``backup``, empty where it never was.
        holder: Who holds the lease, empty where nobody does.
        alive: Whether the holder is taken to be alive.
        facts: How many facts there are.
        set_aside: How many resources are in quarantine.
        lately: How many of those the last days' runs have read.
    """

    waiting: tuple[Waiting, ...]
    last: Run | None
    complete: str
    copied: str
    holder: str
    alive: bool
    facts: int
    set_aside: int
    lately: int


def fares(connection: Connection, now: datetime, lately: timedelta) -> Fares:
    """How the ledger fares; works on every schema so far.

    Args:
        connection: An open transaction.
        now: When.
        lately: How far back the last days go.
    """
    newest: dict[str, Waiting] = {}
    columns = (outbox.c.period, outbox.c.state, outbox.c.created)
    for row in connection.execute(select(*columns).where(outbox.c.state != "superseded").order_by(outbox.c.created)):
        newest[row.period] = Waiting(row.period, row.state, row.created)
    of_late = quarantine.join(runs, quarantine.c.run == runs.c.id)
    since = runs.c.started >= timestamp(now - lately)
    holder, alive = job_of(connection, now)
    return Fares(
        waiting=tuple(item for item in newest.values() if item.state != "accepted"),
        last=last_run(connection),
        complete=last_complete(connection),
        copied=read_state(connection, LAST_BACKUP),
        holder=holder,
        alive=alive,
        facts=connection.execute(select(func.count()).select_from(facts)).scalar_one(),
        set_aside=connection.execute(select(func.count()).select_from(quarantine)).scalar_one(),
        lately=connection.execute(select(func.count()).select_from(of_late).where(since)).scalar_one(),
    )


def has_undrawn(connection: Connection) -> bool:
    """Whether a frame that stands was committed to and nobody is drawn from it yet."""
    query = select(draws.c.id).where(draws.c.nonce == "", draws.c.superseded == "").limit(1)
    return connection.execute(query).first() is not None


def newest_drawn(connection: Connection) -> int | None:
    """The newest draw that stands and has its cases; needs the schema of this version."""
    query = select(draws.c.id).where(draws.c.nonce != "", draws.c.superseded == "").order_by(draws.c.id.desc())
    found: int | None = connection.execute(query.limit(1)).scalar()
    return found
