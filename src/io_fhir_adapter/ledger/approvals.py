"""What an approver said: of a submission as a whole, of a free text, of a case that is still rare.

An approval is about the very bytes of one body. A submission that changes is another body and needs another approval.
What leaves is made of the approved body in the same transaction: it says beside that who approved, and is signed. Both
digests are kept, and nothing is sent whose bytes are not those that an approval made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import Connection, insert, select

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import timestamp, upsert
from io_fhir_adapter.ledger.outbox import OutboxItem, item, pending, put_body, settle
from io_fhir_adapter.ledger.reviews import send_back, signers_of
from io_fhir_adapter.ledger.schema import approvals, cleared
from io_fhir_adapter.trust.canonical import digest_bytes
from io_fhir_adapter.trust.submission import is_volume_alone, speaks_of_cases

__all__ = [
    "CLEARING",
    "Approval",
    "approval_of",
    "approve",
    "approve_text",
    "approved_texts",
    "clear",
    "cleared_of",
    "clears",
    "hold_unapproved",
    "return_submission",
]

CLEARING: Final = {
    "patient-agreed": "the patient agreed to this case leaving",
    "known-to-body": "the accreditation body knows the patient already",
    "not-recognisable": "the authority looked at the case and holds that nobody could tell who it is",
}
"""Why a case may leave although too few others look like it; this project's proposal."""

_RARE: Final = "rare"
_AS_APPROVED: Final = "look at it again and approve what it says now"


@dataclass(frozen=True, slots=True)
class Approval:
    """What an approver said of a submission.

    Attributes:
        identifier: The submission.
        digest: Of the very bytes, ``sha256:…``.
        by: Account of the approver.
        role: The role in which they said it.
        at: When, as the ledger writes it.
        verdict: ``approved`` or ``returned``.
        comment: Why it was returned.
        sealed_digest: Of the bytes that were made of those, which alone may leave; empty where it was returned.
    """

    identifier: str
    digest: str
    by: str
    role: str
    at: str
    verdict: Literal["approved", "returned"]
    comment: str
    sealed_digest: str = ""


def clears(said: Approval | None, body: bytes) -> bool:
    """Whether what was said of a submission lets these very bytes leave."""
    return said is not None and said.verdict == "approved" and said.sealed_digest == digest_bytes(body)


def approval_of(connection: Connection, identifier: str) -> Approval | None:
    """What was said last of a submission, None where nothing was."""
    columns = approvals.c
    query = (
        select(
            columns.identifier, columns.digest, columns.account, columns.role, columns.at, columns.verdict,
            columns.comment, columns.sealed_digest,
        )
        .where(columns.identifier == identifier)
        .order_by(columns.id.desc())
        .limit(1)
    )  # fmt: skip
    row = connection.execute(query).first()
    return Approval(*row) if row is not None else None


def approve(
    connection: Connection,
    draw: int | None,
    identifier: str,
    digest: str,
    *,
    by: str,
    role: str,
    at: datetime,
    finish: Callable[[bytes], bytes] = bytes,
) -> Approval:
    """Lets a held submission leave.

    Args:
        connection: An open transaction.
        draw: The draw that its cases are of, None where it has none.
        identifier: The submission.
        digest: Of the body that the approver saw.
        by: Account of the approver.
        role: The role in which they approve.
        at: When.
        finish: Makes of the approved body what leaves; the body itself leaves where omitted.

    Raises:
        LedgerError: It does not wait for approval, its body is another one, or the approver signed one of its cases.
    """
    found = _waiting(connection, identifier, ("held",))
    if digest_bytes(found.body) != digest:
        raise LedgerError("the submission is not the one that was looked at", do=_AS_APPROVED, number=27)
    if draw is not None and by in signers_of(connection, draw):
        raise LedgerError(
            "who signed one of its cases cannot approve a submission", do="another approver is needed", number=28
        )
    body = finish(found.body)
    made = _said(connection, Approval(identifier, digest, by, role, timestamp(at), "approved", "", digest_bytes(body)))
    put_body(connection, identifier, body)
    settle(connection, identifier, "queued", "approved, not sent yet", at)
    return made


def return_submission(
    connection: Connection,
    draw: int,
    identifier: str,
    *,
    by: str,
    role: str,
    at: datetime,
    comment: str,
    numbers: Collection[int] = (),
) -> list[int]:
    """Keeps a submission from leaving and opens its cases again; gives their numbers.

    Args:
        connection: An open transaction.
        draw: The draw that its cases are of.
        identifier: The submission.
        by: Account of the approver.
        role: The role in which they return it.
        at: When.
        comment: What the reviewers are to look at.
        numbers: The cases to be looked at again; all of them where empty.

    Raises:
        LedgerError: It left already, or a named case is not signed.
    """
    found = _waiting(connection, identifier, ("held", "queued", "parked", "rejected"))
    _said(connection, Approval(identifier, digest_bytes(found.body), by, role, timestamp(at), "returned", comment))
    settle(connection, identifier, "returned", "returned by an approver")
    if not numbers:
        return send_back(connection, draw, None, by, at, comment)
    return [one for number in sorted(set(numbers)) for one in send_back(connection, draw, number, by, at, comment)]


def hold_unapproved(connection: Connection, *, cases_alone: bool = False) -> None:
    """Holds back what is about to be sent without an approval of its very bytes; a volume alone needs none.

    Args:
        connection: An open transaction.
        cases_alone: Hold back only what says anything of cases, and no withdrawal: where nobody signs in.
    """
    for waiting in pending(connection):
        if not clears(approval_of(connection, waiting.identifier), waiting.body) and _needs_one(
            waiting.body, cases_alone
        ):
            settle(connection, waiting.identifier, "held", "waits for approval")


def _needs_one(body: bytes, cases_alone: bool) -> bool:
    """Whether a body needs an approval; one that cannot be read does."""
    try:
        bundle = json.loads(body)
        return speaks_of_cases(bundle) if cases_alone else not is_volume_alone(bundle)
    except (ValueError, TypeError, KeyError):
        return True


def approve_text(connection: Connection, draw: int, number: int, text: str, *, by: str, at: datetime) -> None:
    """Lets one free text of a case leave.

    Args:
        connection: An open transaction.
        draw: The draw.
        number: The case.
        text: The text's digest, 64 hexadecimal digits.
        by: Account of the approver.
        at: When.
    """
    _clear(connection, draw, number, text, by, at, "")


def approved_texts(connection: Connection, draw: int) -> frozenset[str]:
    """Digests of the free texts that may leave."""
    query = select(cleared.c.what).where(cleared.c.draw == draw, cleared.c.what.not_like(f"{_RARE} %"))
    return frozenset(connection.execute(query).scalars())


def clear(connection: Connection, draw: int, number: int, alike: int, *, reason: str, by: str, at: datetime) -> None:
    """Lets a case leave although too few others look like it.

    Args:
        connection: An open transaction.
        draw: The draw.
        number: The case.
        alike: How many look like it; where they become fewer, somebody has to look again.
        reason: One of :data:`CLEARING`.
        by: Account of the approver.
        at: When.

    Raises:
        LedgerError: The reason is none of the list.
    """
    if reason not in CLEARING:
        raise LedgerError(
            f"{reason!r} is no reason for a rare case to leave", do=f"give one of {', '.join(CLEARING)}", number=29
        )
    _clear(connection, draw, number, f"{_RARE} {alike}", by, at, reason)


def cleared_of(connection: Connection, draw: int) -> dict[int, int]:
    """Case number to how few may look like it; only cases that an approver let leave."""
    query = select(cleared.c.number, cleared.c.what).where(cleared.c.draw == draw, cleared.c.what.like(f"{_RARE} %"))
    found: dict[int, int] = {}
    for row in connection.execute(query):
        alike = int(row.what.partition(" ")[2])
        found[row.number] = min(alike, found.get(row.number, alike))
    return found


def _clear(connection: Connection, draw: int, number: int, what: str, by: str, at: datetime, reason: str) -> None:
    row = {"draw": draw, "number": number, "what": what, "account": by, "at": timestamp(at), "reason": reason}
    upsert(connection, cleared, [row], ("draw", "number", "what"))


def _waiting(connection: Connection, identifier: str, states: Collection[str]) -> OutboxItem:
    found = item(connection, identifier)
    if found is None or found.state not in states:
        state = found.state if found is not None else "unknown"
        raise LedgerError(f"the submission does not wait for approval, it is {state}", do=_AS_APPROVED, number=26)
    return found


def _said(connection: Connection, approval: Approval) -> Approval:
    connection.execute(
        insert(approvals).values(
            identifier=approval.identifier, digest=approval.digest, account=approval.by, role=approval.role,
            at=approval.at, verdict=approval.verdict, comment=approval.comment, sealed_digest=approval.sealed_digest,
        )
    )  # fmt: skip
    return approval
