"""Draws and cases: the commitment first, the nonce after it, and then who was drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.schema import cases, draws

__all__ = [
    "StoredCase",
    "StoredDraw",
    "cases_of",
    "commit_frame",
    "find_draw",
    "put_cases",
    "put_nonce",
    "put_response",
    "replace_case",
]


@dataclass(frozen=True, slots=True)
class StoredDraw:
    """A draw as the ledger has it; ``nonce`` is empty between commitment and drawing."""

    id: int
    programme: str
    period: str
    window_start: str
    window_end: str
    committed: str
    commitment: bytes
    digest: str
    frame_size: int
    nonce: str
    nonce_origin: str


@dataclass(frozen=True, slots=True)
class StoredCase:
    """One drawn patient; ``role`` is case, reserve, or left for one replaced. Local only."""

    number: int
    role: str
    token: str
    patient: str
    date: str
    category: str
    procedures: tuple[str, ...]


_DRAW = (
    draws.c.id, draws.c.programme, draws.c.period, draws.c.window_start, draws.c.window_end, draws.c.committed,
    draws.c.commitment, draws.c.digest, draws.c.frame_size, draws.c.nonce, draws.c.nonce_origin,
)  # fmt: skip


def find_draw(connection: Connection, programme: str, period: str) -> StoredDraw | None:
    """The draw of a programme's period."""
    row = connection.execute(select(*_DRAW).where(draws.c.programme == programme, draws.c.period == period)).first()
    return StoredDraw(*row) if row is not None else None


def commit_frame(
    connection: Connection,
    programme: str,
    period: str,
    window: tuple[str, str],
    commitment: bytes,
    digest: str,
    size: int,
    now: datetime,
) -> StoredDraw:
    """Writes the commitment down; one that was never drawn from is replaced.

    Raises:
        ValueError: The period has a draw already.
    """
    before = find_draw(connection, programme, period)
    if before is not None and before.nonce:
        msg = f"{programme} {period} is drawn already"
        raise ValueError(msg)
    if before is not None:
        connection.execute(delete(draws).where(draws.c.id == before.id))
    connection.execute(
        insert(draws).values(
            programme=programme, period=period, window_start=window[0], window_end=window[1],
            committed=timestamp(now), commitment=commitment, digest=digest, frame_size=size, nonce="", nonce_origin="",
        )
    )  # fmt: skip
    made = find_draw(connection, programme, period)
    assert made is not None  # noqa: S101 - written in this transaction
    return made


def put_nonce(connection: Connection, draw: int, nonce: str, origin: str) -> None:
    """Writes the nonce of a committed frame down, once."""
    connection.execute(
        update(draws).where(draws.c.id == draw, draws.c.nonce == "").values(nonce=nonce, nonce_origin=origin)
    )


def put_cases(connection: Connection, draw: int, drawn: Sequence[StoredCase]) -> None:
    """Writes the drawn cases and reserves."""
    connection.execute(delete(cases).where(cases.c.draw == draw))
    rows = [
        {
            "draw": draw,
            "number": case.number,
            "role": case.role,
            "token": case.token,
            "patient": case.patient,
            "date": case.date,
            "category": case.category,
            "procedures": json.dumps(case.procedures),
            "sources": "{}",
            "missing": "{}",
        }
        for case in drawn
    ]
    if rows:
        connection.execute(insert(cases), rows)


def put_response(
    connection: Connection,
    draw: int,
    number: int,
    response: bytes,
    sources: Mapping[str, str],
    missing: Mapping[str, str],
) -> None:
    """Keeps the form of a case, with where its answers came from and why others are empty."""
    connection.execute(
        update(cases)
        .where(cases.c.draw == draw, cases.c.number == number)
        .values(response=response, sources=json.dumps(dict(sources)), missing=json.dumps(dict(missing)))
    )


def cases_of(connection: Connection, draw: int, role: str = "case") -> list[StoredCase]:
    """The cases (or reserves) of a draw in drawn order."""
    columns = cases.c
    query = (
        select(
            columns.number, columns.role, columns.token, columns.patient, columns.date, columns.category,
            columns.procedures,
        )
        .where(columns.draw == draw, columns.role == role)
        .order_by(columns.number)
    )  # fmt: skip
    return [StoredCase(*row[:-1], tuple(json.loads(row.procedures))) for row in connection.execute(query)]


def replace_case(connection: Connection, draw: int, number: int) -> int | None:
    """Takes a case out of the sample and puts the next reserve in its place; gives the reserve's number."""
    where = cases.c.draw == draw
    connection.execute(update(cases).where(where, cases.c.number == number).values(role="left"))
    query = select(cases.c.number).where(where, cases.c.role == "reserve").order_by(cases.c.number).limit(1)
    reserve = connection.execute(query).scalar()
    if reserve is not None:
        connection.execute(update(cases).where(where, cases.c.number == reserve).values(role="case"))
    return reserve
