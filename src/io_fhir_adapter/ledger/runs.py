"""Runs and cursors: what a night did, and up to where every source was read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from io_fhir_adapter.ledger.database import timestamp, upsert
from io_fhir_adapter.ledger.schema import cursors, runs, state

__all__ = [
    "Run", "change_state", "cursor", "finish_run", "first_started", "last_complete", "last_ended",
    "last_run", "move_cursor",
    "read_state", "recent_runs", "run_numbered", "start_run", "write_state",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the nightly job; ``state`` is running, complete or failed."""

    id: int
    started: str
    finished: str | None
    state: str
    summary: dict[str, Any]
    error: str


def start_run(connection: Connection, now: datetime) -> int:
    """Writes down that a run began, and that one before it that never ended was cut off; gives its number."""
    cut_off = {"state": "failed", "error": "the run was cut off before it ended"}
    connection.execute(update(runs).where(runs.c.state == "running").values(**cut_off))
    result = connection.execute(insert(runs).values(started=timestamp(now), state="running", summary="{}", error=""))
    key = result.inserted_primary_key
    return int(key[0]) if key is not None else 0


def finish_run(
    connection: Connection, run: int, now: datetime, outcome: str, summary: Mapping[str, Any], error: str = ""
) -> None:
    """Writes down how a run ended."""
    connection.execute(
        update(runs)
        .where(runs.c.id == run)
        .values(finished=timestamp(now), state=outcome, summary=json.dumps(summary, sort_keys=True), error=error)
    )


def last_run(connection: Connection) -> Run | None:
    """The run started last."""
    return next(iter(recent_runs(connection, 1)), None)


def last_ended(connection: Connection) -> Run | None:
    """Of the last runs the newest that ended."""
    return next((run for run in recent_runs(connection, 5) if run.finished), None)


def recent_runs(connection: Connection, most: int, *, before: int | None = None) -> list[Run]:
    """The runs started last, the newest first; of those with a lower number than ``before`` where it is given."""
    query = select(runs).order_by(runs.c.id.desc()).limit(most)
    return [_run(row) for row in connection.execute(query if before is None else query.where(runs.c.id < before))]


def run_numbered(connection: Connection, number: int) -> Run | None:
    """One run, None where there is none of that number."""
    row = connection.execute(select(runs).where(runs.c.id == number)).first()
    return _run(row) if row is not None else None


def _run(row: Row[Any]) -> Run:
    return Run(row.id, row.started, row.finished, row.state, json.loads(row.summary), row.error)


def first_started(connection: Connection) -> str:
    """When the first run began, empty where none did."""
    return connection.execute(select(runs.c.started).order_by(runs.c.id).limit(1)).scalar() or ""


def last_complete(connection: Connection) -> str:
    """When the last complete run ended, empty where none did."""
    query = select(runs.c.finished).where(runs.c.state == "complete").order_by(runs.c.id.desc()).limit(1)
    return connection.execute(query).scalar() or ""


def cursor(connection: Connection, source: str, resource_type: str) -> str:
    """The server time up to which a source's resources of a type were read, empty where never."""
    query = select(cursors.c.value).where(cursors.c.source == source, cursors.c.resource_type == resource_type)
    return connection.execute(query).scalar() or ""


def move_cursor(connection: Connection, source: str, resource_type: str, value: str, run: int) -> None:
    """Moves a cursor; only ever in the transaction that ends a reconciled pull."""
    row = {"source": source, "resource_type": resource_type, "value": value, "run": run}
    upsert(connection, cursors, [row], ("source", "resource_type"))


def read_state(connection: Connection, name: str) -> str:
    """A remembered value, empty where there is none."""
    return connection.execute(select(state.c.value).where(state.c.name == name)).scalar() or ""


def write_state(connection: Connection, name: str, value: str) -> None:
    """Remembers a value under a name."""
    upsert(connection, state, [{"name": name, "value": value}], ("name",))


def change_state(connection: Connection, name: str, before: str, after: str) -> bool:
    """Remembers a value in place of the one that was read; says whether that one still stood.

    Args:
        connection: An open transaction.
        name: Of the value.
        before: What was read, empty where there was none.
        after: What is to be remembered.
    """
    if not before:
        upsert(connection, state, [{"name": name, "value": ""}], ("name",), replace=False)
    done = update(state).where(state.c.name == name, state.c.value == before).values(value=after)
    return connection.execute(done).rowcount == 1
