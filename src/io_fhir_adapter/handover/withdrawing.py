"""Withdrawing a submission that was accepted: who may, once, through the same outbox and gate as everything."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from io_fhir_adapter import __version__
from io_fhir_adapter.config import Config, Role
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.handover.sealing import approved_form
from io_fhir_adapter.ledger.approvals import approve
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.lease import only_job
from io_fhir_adapter.ledger.outbox import OutboxItem, enqueue, find_item
from io_fhir_adapter.ledger.sign_ins import roles_text
from io_fhir_adapter.submit.deliver import deliver_due, needs_approval
from io_fhir_adapter.submit.signing import Finish, signing_key
from io_fhir_adapter.submit.withdrawal import find_withdrawal, seal_withdrawal, to_withdraw, withdrawal_label
from io_fhir_adapter.trust.canonical import canonical_json, digest_bytes

__all__ = ["Approver", "Withdrawal", "withdraw"]


@dataclass(frozen=True, slots=True)
class Approver:
    """Who withdraws a submission, proved to be themselves: the account, the name for people, what they may do."""

    account: str
    name: str
    roles: Collection[Role]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A withdrawal as the outbox has it, and whether it was made just now."""

    item: OutboxItem
    fresh: bool


async def withdraw(
    config: Config, ledger: Ledger, identifier: str, reason: str, *, approver: Approver | None = None
) -> Withdrawal:
    """Takes a submission back, once, and sends that; the submission itself and its receipts stay as they are.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        identifier: The submission.
        reason: One of :data:`~io_fhir_adapter.submit.withdrawal.WITHDRAWING`.
        approver: Who says so; needed where people sign in.

    Raises:
        UsageError: People sign in, and none of them who may approve says so.
        SubmitError: It was not accepted, or the reason is none of the list.
        LedgerError: Another job is under way.
    """
    if needs_approval(config) and (approver is None or "approver" not in approver.roles):
        raise UsageError(
            "where people sign in, only an approver withdraws a submission",
            where="--by",
            do="name a local account with the role approver, or use the page of the submissions",
            number=70,
        )
    with only_job(ledger):
        made = _make(config, ledger, identifier, reason, approver)
        if config.submission is not None and made.item.state == "queued":
            await deliver_due(
                ledger, config.submission, hold="all" if needs_approval(config) else "cases", only=made.item.identifier
            )
    with ledger.read() as connection:
        return Withdrawal(find_item(connection, made.item.identifier), made.fresh)


def _make(config: Config, ledger: Ledger, identifier: str, reason: str, approver: Approver | None) -> Withdrawal:
    now = datetime.now(UTC)
    finish = (
        approved_form(config, approver.account, approver.name, now)
        if approver is not None
        else Finish(signing_key(config.submission), now)
    )
    with ledger.begin() as connection:
        withdrawn = to_withdraw(connection, identifier)
        known = find_withdrawal(connection, withdrawn)
        if known is not None:
            return Withdrawal(known, fresh=False)
        programme = str(json.loads(withdrawn.body)["meta"]["tag"][0]["code"])
        bundle = seal_withdrawal(config.facility.code, programme, identifier, reason, __version__, now)
        own, body, label = (
            str(bundle["identifier"]["value"]),
            canonical_json(bundle),
            withdrawal_label(withdrawn.period),
        )
        if approver is None:
            enqueue(connection, own, label, finish(body), now)
        else:
            enqueue(connection, own, label, body, now, held=True)
            approve(
                connection, None, own, digest_bytes(body), by=approver.account, role="approver", at=now, finish=finish
            )
        note(
            connection, at=now, agent=approver.account if approver is not None else "console",
            role=roles_text(approver.roles) if approver is not None else "", action="E",
            entity=f"Submission/{identifier}", detail=f"withdrawn: {reason}",
        )  # fmt: skip
        return Withdrawal(find_item(connection, own), fresh=True)
