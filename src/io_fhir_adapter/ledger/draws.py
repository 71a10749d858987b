"""Draws and cases: the commitment first, the nonce after it, and then who was drawn.

Whatever happens to a draw is also added to the ledger's chain, in the same transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, true, update

from io_fhir_adapter.ledger.chain import add_link
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.schema import cases, draws

__all__ = [
    "StoredCase",
    "StoredDraw",
    "StoredForm",
    "cases_of",
    "commit_frame",
    "find_draw",
    "forms_of",
    "leave_case",
    "put_announced",
    "put_cases",
    "put_nonce",
    "put_response",
    "supersede",
    "superseded",
]


@dataclass(frozen=True, slots=True)
class StoredDraw:
    """A draw as the ledger has it; ``nonce`` is empty between commitment and drawing.

    ``frame`` is the JSON of who was committed to, which never leaves; ``superseded`` is why another draw took its
    place; ``announced`` is when the accreditation system took note of the frame.
    """

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
    frame: bytes = b"{}"
    superseded: str = ""
    announced: str = ""


@dataclass(frozen=True, slots=True)
class StoredCase:
    """One drawn patient, local only; ``role`` is case, reserve, or left for one replaced, whose ``reason`` says why."""

    number: int
    role: str
    token: str
    patient: str
    date: str
    category: str
    procedures: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StoredForm:
    """The pre-filled form of a case: the QuestionnaireResponse, None where it was not filled yet; local only.

    ``sources`` is linkId to where its answer was read from, ``missing`` linkId to why there is none.
    """

    response: dict[str, Any] | None
    sources: Mapping[str, str]
    missing: Mapping[str, str]

    @property
    def share(self) -> float:
        """The share of the form that the record answered, from 0 to 1."""
        answered = len(self.sources)
        return answered / (answered + len(self.missing)) if answered else 0.0


_DRAW = (
    draws.c.id, draws.c.programme, draws.c.period, draws.c.window_start, draws.c.window_end, draws.c.committed,
    draws.c.commitment, draws.c.digest, draws.c.frame_size, draws.c.nonce, draws.c.nonce_origin,
    draws.c.frame, draws.c.superseded, draws.c.announced,
)  # fmt: skip


def find_draw(connection: Connection, programme: str, period: str) -> StoredDraw | None:
    """The draw of a programme's period that stands."""
    query = select(*_DRAW).where(draws.c.programme == programme, draws.c.period == period, draws.c.superseded == "")
    row = connection.execute(query).first()
    return StoredDraw(*row) if row is not None else None


def superseded(connection: Connection, programme: str, period: str) -> list[StoredDraw]:
    """Earlier draws of the period, the first first."""
    query = select(*_DRAW).where(draws.c.programme == programme, draws.c.period == period, draws.c.superseded != "")
    return [StoredDraw(*row) for row in connection.execute(query.order_by(draws.c.id))]


def commit_frame(
    connection: Connection,
    programme: str,
    period: str,
    window: tuple[str, str],
    commitment: bytes,
    digest: str,
    size: int,
    now: datetime,
    frame: bytes = b"{}",
) -> StoredDraw:
    """Writes the commitment down, before there is any randomness.

    Raises:
        ValueError: The period has a commitment that stands.
    """
    if find_draw(connection, programme, period) is not None:
        msg = f"{programme} {period} is committed to already"
        raise ValueError(msg)
    connection.execute(
        insert(draws).values(
            programme=programme, period=period, window_start=window[0], window_end=window[1],
            committed=timestamp(now), commitment=commitment, digest=digest, frame_size=size, nonce="", nonce_origin="",
            frame=frame, superseded="", announced="",
        )
    )  # fmt: skip
    what = {"programme": programme, "period": period, "window": list(window), "frame": digest, "size": size}
    add_link(connection, "frame-committed", what, now)
    made = find_draw(connection, programme, period)
    assert made is not None  # noqa: S101 - written in this transaction
    return made


def put_announced(connection: Connection, draw: StoredDraw, now: datetime) -> None:
    """Writes down that the accreditation system took note of the frame, once."""
    done = connection.execute(
        update(draws).where(draws.c.id == draw.id, draws.c.announced == "").values(announced=timestamp(now))
    )
    if done.rowcount:
        add_link(connection, "frame-announced", {"frame": draw.digest}, now)


def put_nonce(
    connection: Connection, draw: StoredDraw, nonce: str, origin: str, now: datetime, *, because: str = ""
) -> None:
    """Writes the nonce of a committed frame down, once.

    Args:
        connection: An open transaction.
        draw: The committed frame.
        nonce: 64 hexadecimal digits.
        origin: ``task`` where the accreditation system gave it, ``local`` where it was drawn here.
        now: When.
        because: Which Task gave it, or why none did.
    """
    done = connection.execute(
        update(draws).where(draws.c.id == draw.id, draws.c.nonce == "").values(nonce=nonce, nonce_origin=origin)
    )
    if done.rowcount:
        add_link(connection, "nonce", {"frame": draw.digest, "nonce": nonce, "origin": origin, "because": because}, now)


def supersede(connection: Connection, draw: StoredDraw, reason: str, now: datetime) -> None:
    """Takes a draw out of force, so that the period can be drawn anew; it stays on record."""
    connection.execute(update(draws).where(draws.c.id == draw.id).values(superseded=reason))
    add_link(connection, "draw-superseded", {"frame": draw.digest, "nonce": draw.nonce, "reason": reason}, now)


def put_cases(connection: Connection, draw: StoredDraw, drawn: Sequence[StoredCase], now: datetime) -> None:
    """Writes the drawn cases and reserves."""
    connection.execute(delete(cases).where(cases.c.draw == draw.id))
    rows = [
        {
            "draw": draw.id,
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
    tokens = {role: [case.token for case in drawn if case.role == role] for role in ("case", "reserve")}
    add_link(connection, "drawn", {"frame": draw.digest, "cases": tokens["case"], "reserves": tokens["reserve"]}, now)


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


def forms_of(connection: Connection, draw: int) -> dict[int, StoredForm]:
    """The pre-filled forms of a draw by the case's number, also of reserves and of those who left."""
    query = select(cases.c.number, cases.c.response, cases.c.sources, cases.c.missing).where(cases.c.draw == draw)
    return {
        row.number: StoredForm(
            json.loads(row.response) if row.response is not None else None,
            json.loads(row.sources),
            json.loads(row.missing),
        )
        for row in connection.execute(query)
    }


def cases_of(connection: Connection, draw: int, role: str | None = "case") -> list[StoredCase]:
    """The cases (or reserves, or those that left, or with None everybody) of a draw in drawn order."""
    columns = cases.c
    query = (
        select(
            columns.number, columns.role, columns.token, columns.patient, columns.date, columns.category,
            columns.procedures, columns.reason,
        )
        .where(columns.draw == draw, true() if role is None else columns.role == role)
        .order_by(columns.number)
    )  # fmt: skip
    return [
        StoredCase(*row[:6], procedures=tuple(json.loads(row.procedures)), reason=row.reason)
        for row in connection.execute(query)
    ]


def leave_case(connection: Connection, draw: StoredDraw, case: StoredCase, reason: str, now: datetime) -> int | None:
    """Takes a case out of the sample and puts the next reserve in its place; gives the reserve's number."""
    where = cases.c.draw == draw.id
    connection.execute(update(cases).where(where, cases.c.number == case.number).values(role="left", reason=reason))
    query = select(cases.c.number, cases.c.token).where(where, cases.c.role == "reserve").order_by(cases.c.number)
    reserve = connection.execute(query.limit(1)).first()
    if reserve is not None:
        connection.execute(update(cases).where(where, cases.c.number == reserve.number).values(role="case"))
    follows = reserve.token if reserve is not None else None
    add_link(
        connection, "case-left", {"frame": draw.digest, "token": case.token, "reason": reason, "follows": follows}, now
    )
    return reserve.number if reserve is not None else None
