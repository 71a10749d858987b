"""The outbox in words: every submission, its attempts and answers, what the body says of it, and trying once more."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Form
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM
from io_fhir_adapter.errors import AdapterError, LedgerError
from io_fhir_adapter.handover.withdrawing import Approver, withdraw
from io_fhir_adapter.ledger.approvals import Approval, approval_of
from io_fhir_adapter.ledger.audited import note_retried
from io_fhir_adapter.ledger.outbox import OutboxItem, Receipt, items, receipts_of, retry
from io_fhir_adapter.ledger.verdicts import BodyVerdict, verdicts_of
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.people import Person
from io_fhir_adapter.submit.withdrawal import WITHDRAWING, labelled_period

__all__ = ["Sent", "submissions_of", "submissions_router"]

_RETRIED: Final = frozenset({"parked", "rejected"})

Kind = Literal["submission", "correction", "withdrawal"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A submission with all that came of it.

    Attributes:
        item: As it is in the outbox.
        kind: What it is.
        receipts: Every answer, the newest first.
        verdicts: Everything that the body said of it, the newest first.
        approval: What an approver said last, None where nobody did.
    """

    item: OutboxItem
    kind: Kind
    receipts: tuple[Receipt, ...]
    verdicts: tuple[BodyVerdict, ...]
    approval: Approval | None

    @property
    def retried(self) -> bool:
        """Whether it can be tried once more."""
        return self.item.state in _RETRIED

    @property
    def period(self) -> str:
        """What it is about."""
        return labelled_period(self.item.period)

    @property
    def may_be_withdrawn(self) -> bool:
        """Whether the body has it, and it is none that takes another one back."""
        return self.item.state == "accepted" and self.kind != "withdrawal"


def submissions_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()

    @router.get("/submissions")
    def submissions(
        request: Request,
        person: Person = Depends(view.web.person()),  # noqa: B008
        done: str = "",
    ) -> Response:
        return _page(view, request, person, done=done if done in {"retried", "withdrawn"} else "")

    @router.post("/submissions/retry")
    def again(
        identifier: Annotated[str, Form(max_length=200)],
        person: Person = Depends(view.web.person("approver", "administrator")),  # noqa: B008
    ) -> Response:
        try:
            with view.web.ledger.begin() as connection:
                retry(connection, identifier, view.web.now())
                note_retried(connection, identifier, view.web.now(), agent=person.account, role=person.role_text)
        except LedgerError as exc:
            raise RefusedError(HTTPStatus.CONFLICT) from exc
        return RedirectResponse("/submissions?done=retried", HTTPStatus.SEE_OTHER)

    @router.post("/submissions/withdraw")
    def take_back(
        request: Request,
        identifier: Annotated[str, Form(max_length=200)],
        person: Person = Depends(view.web.person("approver")),  # noqa: B008
        reason: Annotated[str, Form(max_length=40)] = "",
    ) -> Response:
        if reason not in WITHDRAWING:
            return _page(view, request, person, HTTPStatus.UNPROCESSABLE_ENTITY, unsaid=identifier)
        says = Approver(person.account, person.name, person.roles)
        try:
            asyncio.run(withdraw(view.web.config, view.web.ledger, identifier, reason, approver=says))
        except AdapterError as exc:
            return _page(view, request, person, HTTPStatus.CONFLICT, problem=exc.sentence)
        return RedirectResponse("/submissions?done=withdrawn", HTTPStatus.SEE_OTHER)

    return router


def _page(
    view: View,
    request: Request,
    person: Person,
    status: int = HTTPStatus.OK,
    *,
    done: str = "",
    unsaid: str = "",
    problem: str = "",
) -> Response:
    """The page; ``unsaid`` is the submission that somebody wanted to withdraw and gave no reason for."""
    with view.web.ledger.read() as connection:
        found = submissions_of(connection)
    return view.web.render(
        request, "submissions.html", person, status, found=found, names=view.names(), done=done, unsaid=unsaid,
        problem=problem, may_retry=person.has("approver", "administrator"), may_withdraw=person.has("approver"),
        reasons=list(WITHDRAWING),
    )  # fmt: skip


def submissions_of(connection: Connection, most: int | None = None) -> list[Sent]:
    """The submissions, the newest first, with all that came of them."""
    return [
        Sent(
            item,
            _kind(item.body),
            tuple(reversed(receipts_of(connection, item.identifier))),
            tuple(reversed(verdicts_of(connection, item.identifier))),
            approval_of(connection, item.identifier),
        )
        for item in items(connection)[:most]
    ]


def _kind(body: bytes) -> Kind:
    """What a sealed Bundle is: a withdrawal is one Provenance alone, a correction names the submission before it."""
    resources = [entry.get("resource", {}) for entry in json.loads(body).get("entry", ())]
    if [resource.get("resourceType") for resource in resources] == ["Provenance"]:
        return "withdrawal"
    corrects = any(
        entity.get("role") == "revision"
        and entity.get("what", {}).get("identifier", {}).get("system") == SUBMISSION_SYSTEM
        for resource in resources
        if resource.get("resourceType") == "Provenance"
        for entity in resource.get("entity", ())
    )
    return "correction" if corrects else "submission"
