"""When the service does what: one row for each job, so that a restart forgets nothing and no two processes do it twice.

A job is claimed in one transaction, which also says when it is due next; whoever comes second finds it claimed. While
it runs its lease is renewed (``ledger.lease``). Where the process dies, the lease runs out and the next one that looks
does it again, a few times; what always kills its process waits for its next time.

This is the service's job store. That of APScheduler keeps its jobs pickled, hands the same job to each of two
processes, and would wait for the ledger's writer in the thread that answers requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, select, update

from io_fhir_adapter.ledger.database import timestamp, upsert
from io_fhir_adapter.ledger.lease import holder_of, take
from io_fhir_adapter.ledger.schema import jobs

__all__ = ["MOST_TRIES", "RUNNING", "StoredJob", "claim", "end_job", "lease_name", "put_jobs", "stored_jobs"]

MOST_TRIES: Final = 3
"""So often a job is begun that is cut off each time; then it waits for its next time."""
RUNNING: Final = "running"


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as the ledger has it.

    Attributes:
        name: What is done.
        rule: When it is due, as configured.
        due: When it is due next, UTC.
        started: When it was last begun, empty where never. What was cut off and is done again before its next time
            keeps this one: it tells one occasion from the next.
        finished: When that ended, empty while it runs and where it was cut off.
        outcome: How that ended; ``running``, or empty where it never was begun.
        tries: How often in a row it was begun and not ended.
    """

    name: str
    rule: str
    due: str
    started: str = ""
    finished: str = ""
    outcome: str = ""
    tries: int = 0


def lease_name(job: str) -> str:
    """The name of a job's lease."""
    return f"job {job}"


def stored_jobs(connection: Connection) -> dict[str, StoredJob]:
    """All jobs by name."""
    columns = [jobs.c[name] for name in StoredJob.__slots__]
    return {row.name: StoredJob(*row) for row in connection.execute(select(*columns).order_by(jobs.c.name))}


def put_jobs(connection: Connection, due: Mapping[str, tuple[str, datetime]]) -> None:
    """Makes the jobs be these, each with its rule and when it is due next; forgets all others."""
    connection.execute(delete(jobs).where(jobs.c.name.not_in(list(due))))
    known = stored_jobs(connection)
    for name, (rule, moment) in due.items():
        values = {"rule": rule, "due": timestamp(moment)}
        if name in known:
            connection.execute(update(jobs).where(jobs.c.name == name).values(**values))
        else:
            row = {"name": name, **values, "started": "", "finished": "", "outcome": "", "tries": 0}
            upsert(connection, jobs, [row], ("name",), replace=False)


def claim(connection: Connection, name: str, holder: str, now: datetime, following: datetime) -> bool:
    """Takes a job that is due, or that was cut off; says whether it did.

    Args:
        connection: An open transaction that writes.
        name: The job.
        holder: Who takes it.
        now: When.
        following: When it is due after that; what is done once more because it was cut off keeps its next time.
    """
    job = stored_jobs(connection).get(name)
    if job is None or holder_of(connection, now, lease_name(name))[1]:
        return False
    is_due, again = job.due <= timestamp(now), job.outcome == RUNNING and job.tries < MOST_TRIES
    if not (is_due or again):
        return False
    if take(connection, holder, now, lease_name(name)):
        return False
    values = {
        "started": timestamp(now) if is_due else job.started, "finished": "", "outcome": RUNNING,
        "tries": job.tries + 1 if again else 1,
        "due": timestamp(following) if is_due else job.due,
    }  # fmt: skip
    connection.execute(update(jobs).where(jobs.c.name == name).values(**values))
    return True


def end_job(connection: Connection, name: str, now: datetime, outcome: str, due: datetime | None = None) -> None:
    """Writes down how a job ended, and when it is due where that is another time than was said when it began."""
    values: dict[str, object] = {"finished": timestamp(now), "outcome": outcome, "tries": 0}
    if due is not None:
        values["due"] = timestamp(due)
    connection.execute(update(jobs).where(jobs.c.name == name).values(**values))
