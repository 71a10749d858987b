"""Case reviews: what a reviewer wrote into a case's form, and the signature under it.

A row stands beside each case that somebody began. It is changed only by who says which revision they saw, so that two
browsers never overwrite each other, and a signed one is read-only until it is sent back. A case that left the sample
keeps its row and is not asked for any more; a new draw starts anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, insert, select, update

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import timestamp, upsert
from io_fhir_adapter.ledger.schema import cases, draws, reviews, signatures
from io_fhir_adapter.trust.canonical import digest_bytes

__all__ = ["CaseReview", "release", "reviews_of", "save_draft", "send_back", "sign", "signers_of", "take"]

State = Literal["open", "draft", "signed", "returned"]

_AGAIN: Final = "load the case again; what you typed was not saved"


@dataclass(frozen=True, slots=True)
class CaseReview:
    """Where the review of one case stands. Times are as the ledger writes them, empty where it never happened.

    Attributes:
        draw: The draw.
        number: The case's place in it.
        state: ``open`` where somebody took it and wrote nothing yet, ``draft``, ``signed`` or ``returned``.
        answers: The QuestionnaireResponse as a person left it, JSON; None where nobody wrote anything.
        reviewer: Account of who works on it, or signed it; empty where nobody does.
        saved: When the answers were saved last.
        signed: When it was signed.
        comment: Why it was sent back.
        revision: Counts the changes, from 0; whoever changes it says which one they saw.
        returned_by: Account of who sent it back.
    """

    draw: int
    number: int
    state: State
    answers: bytes | None
    reviewer: str
    saved: str
    signed: str
    comment: str
    revision: int
    returned_by: str = ""


def reviews_of(connection: Connection, draw: int) -> dict[int, CaseReview]:
    """Every review of a draw by the case's number, also of cases that left; nothing for a case nobody began."""
    query = select(reviews).where(reviews.c.draw == draw).order_by(reviews.c.number)
    return {row.number: _review(row) for row in connection.execute(query)}


def save_draft(
    connection: Connection, draw: int, number: int, answers: bytes, by: str, at: datetime, revision: int
) -> CaseReview:
    """Keeps the answers of a case; whoever saves works on it from then on.

    Args:
        connection: An open transaction.
        draw: The draw.
        number: The case.
        answers: A QuestionnaireResponse that was accepted, JSON.
        by: Account of the reviewer.
        at: When.
        revision: The revision that the reviewer saw.

    Raises:
        LedgerError: The case is not in the sample, it was changed since, it is signed, or another works on it.
    """
    known = _to_change(connection, draw, number, revision)
    _refuse_signed(known)
    _refuse_others(known, by)
    changed = {"state": "draft", "answers": answers, "reviewer": by, "saved": timestamp(at)}
    return _changed(connection, known, changed)


def sign(connection: Connection, draw: int, number: int, by: str, at: datetime, revision: int) -> CaseReview:
    """Puts a reviewer's signature under the saved answers, which nobody changes from then on.

    Args:
        connection: An open transaction.
        draw: The draw.
        number: The case.
        by: Account of the reviewer.
        at: When.
        revision: The revision that the reviewer saw.

    Raises:
        LedgerError: As :func:`save_draft`, or nothing was saved yet.
    """
    known = _to_change(connection, draw, number, revision)
    _refuse_signed(known)
    _refuse_others(known, by)
    if known.answers is None:
        raise LedgerError("nothing was saved that could be signed", where=_where(number), do="save it first", number=23)
    moment = timestamp(at)
    connection.execute(
        insert(signatures).values(
            draw=draw, number=number, account=by, at=moment, digest=digest_bytes(known.answers)
        )
    )  # fmt: skip
    changed = {"state": "signed", "reviewer": by, "signed": moment, "comment": "", "returned_by": ""}
    return _changed(connection, known, changed)


def send_back(connection: Connection, draw: int, number: int | None, by: str, at: datetime, comment: str) -> list[int]:
    """Opens signed cases again, with why; gives their numbers.

    Args:
        connection: An open transaction.
        draw: The draw.
        number: The case, or None for every signed case of the sample.
        by: Account of who sends it back; empty where the adapter does.
        at: When.
        comment: What the reviewer is to look at.

    Raises:
        LedgerError: There is no such case in the sample, or it is not signed.
    """
    known = reviews_of(connection, draw)
    if number is not None:
        _refuse_gone(connection, draw, number)
        if number not in known or known[number].state != "signed":
            raise LedgerError("it is not signed, so it cannot be sent back", where=_where(number), number=24)
        chosen = [number]
    else:
        chosen = [one for one in _standing(connection, draw) if one in known and known[one].state == "signed"]
    changed = {"state": "returned", "signed": "", "comment": comment, "returned_by": by, "saved": timestamp(at)}
    for one in chosen:
        _changed(connection, known[one], changed)
    return chosen


def take(connection: Connection, draw: int, number: int, by: str) -> CaseReview:
    """Notes who works on a case.

    Raises:
        LedgerError: The case is not in the sample, it is signed, or another works on it.
    """
    known = _known(connection, draw, number)
    _refuse_signed(known)
    _refuse_others(known, by)
    return _changed(connection, known, {"reviewer": by}, counts=False)


def release(connection: Connection, draw: int, number: int) -> CaseReview:
    """Lets another reviewer take a case; what was saved stays.

    Raises:
        LedgerError: The case is not in the sample, or it is signed.
    """
    known = _known(connection, draw, number)
    _refuse_signed(known)
    return _changed(connection, known, {"reviewer": ""}, counts=False)


def signers_of(connection: Connection, draw: int) -> frozenset[str]:
    """Accounts of all who ever signed a case that is in the sample of a draw."""
    query = select(signatures.c.account).where(
        signatures.c.draw == draw, signatures.c.number.in_(_standing(connection, draw))
    )
    return frozenset(connection.execute(query).scalars())


def _review(row: Row[Any]) -> CaseReview:
    return CaseReview(
        row.draw, row.number, row.state, row.answers, row.reviewer, row.saved, row.signed, row.comment, row.revision,
        row.returned_by,
    )  # fmt: skip


def _standing(connection: Connection, draw: int) -> list[int]:
    """The numbers of the cases that are asked for."""
    query = (
        select(cases.c.number)
        .join(draws, draws.c.id == cases.c.draw)
        .where(cases.c.draw == draw, cases.c.role == "case", draws.c.superseded == "")
        .order_by(cases.c.number)
    )
    return list(connection.execute(query).scalars())


def _known(connection: Connection, draw: int, number: int) -> CaseReview:
    """The row of a case in the sample, as it would be where there is none yet."""
    _refuse_gone(connection, draw, number)
    row = connection.execute(select(reviews).where(reviews.c.draw == draw, reviews.c.number == number)).first()
    return _review(row) if row is not None else CaseReview(draw, number, "open", None, "", "", "", "", 0)


def _to_change(connection: Connection, draw: int, number: int, revision: int) -> CaseReview:
    known = _known(connection, draw, number)
    if known.revision != revision:
        raise _stale(number)
    return known


def _changed(
    connection: Connection, known: CaseReview, values: Mapping[str, object], *, counts: bool = True
) -> CaseReview:
    """Writes a change, unless another was made in between, and gives the row."""
    first = {
        "draw": known.draw, "number": known.number, "state": "open", "answers": None, "reviewer": "", "saved": "",
        "signed": "", "comment": "", "revision": 0, "returned_by": "",
    }  # fmt: skip
    upsert(connection, reviews, [first], ("draw", "number"), replace=False)
    own = (reviews.c.draw == known.draw, reviews.c.number == known.number)
    done = connection.execute(
        update(reviews)
        .where(*own, reviews.c.revision == known.revision, reviews.c.reviewer == known.reviewer)
        .values(**values, revision=known.revision + counts)
    )
    if not done.rowcount:
        raise _stale(known.number)
    return _review(connection.execute(select(reviews).where(*own)).one())


def _refuse_gone(connection: Connection, draw: int, number: int) -> None:
    if number not in _standing(connection, draw):
        raise LedgerError(
            "the case is not in the sample (any more)", where=_where(number), do="see the list of cases", number=20
        )


def _refuse_signed(known: CaseReview) -> None:
    if known.state == "signed":
        do = "it is changed only after an approver sent it back"
        raise LedgerError("the case is signed", where=_where(known.number), do=do, number=22)


def _refuse_others(known: CaseReview, by: str) -> None:
    if known.reviewer not in ("", by):
        do = "it can be worked on by another once it is released"
        raise LedgerError("another reviewer works on the case", where=_where(known.number), do=do, number=25)


def _stale(number: int) -> LedgerError:
    return LedgerError("the case was changed in the meantime", where=_where(number), do=_AGAIN, number=21)


def _where(number: int) -> str:
    return f"case {number}"
