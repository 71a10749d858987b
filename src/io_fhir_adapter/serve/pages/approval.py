"""What is about to leave, for the approver: the very bytes, the counts beside last year's, and the decision."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.handover.desk import Desk
from io_fhir_adapter.handover.proposal import Proposal
from io_fhir_adapter.ledger.approvals import CLEARING
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.review.forms import items
from io_fhir_adapter.review.profile import load_profile
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.leaving import leaving_cases, leaving_standards, resource_counts
from io_fhir_adapter.serve.pages.view import Row, View
from io_fhir_adapter.serve.pages.wording import Translate, reason_words_in
from io_fhir_adapter.serve.people import Person

__all__ = ["CountRow", "approval_router"]

Json = dict[str, Any]
_STATES: Final = {"held": "waiting", "sending": "queued"}
_SAID: Final = {
    "IOA-LED-024": "numbers", "IOA-LED-026": "stale", "IOA-LED-027": "stale", "IOA-LED-028": "own",
    "IOA-LED-029": "reason", "IOA-REV-035": "changed", "IOA-REV-036": "rare", "IOA-REV-037": "stale",
    "IOA-REV-038": "stale",
}  # fmt: skip
_NUMBERS: Final = re.compile(r"\s*(\d{1,4}\s*([,;\s]\s*\d{1,4}\s*)*)?")
_MOST_CODES: Final = 20


@dataclass(frozen=True, slots=True)
class CountRow:
    """The counted sessions of one category, this year and the year before."""

    title: str
    this: int
    last: int


def approval_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()
    _add_page(router, view)
    _add_decision(router, view)
    return router


def _add_page(router: APIRouter, view: View) -> None:
    reader = Depends(view.web.person("approver", "reviewer"))

    @router.get("/approval")
    def approval(request: Request, person: Person = reader, done: str = "") -> Response:
        return _page(view, request, person, done=done)

    @router.get("/approval/submission.json")
    def submission(person: Person = Depends(view.web.person("approver"))) -> Response:  # noqa: B008
        made = _proposal(view)
        if made is None:
            raise RefusedError(HTTPStatus.NOT_FOUND)
        _note(view, person, made.identifier, "R", "submission downloaded")
        headers = {"Content-Disposition": 'attachment; filename="submission.json"'}
        return Response(made.body, media_type="application/fhir+json", headers=headers)


def _add_decision(router: APIRouter, view: View) -> None:
    approver = Depends(view.web.person("approver"))

    def decided(
        request: Request,
        person: Person,
        step: Callable[[Desk], object],
        entity: str,
        detail: str,
        done: str,
        noted: bool = False,
    ) -> Response:
        """Does one thing, notes it, and goes back to the page; a refusal is noted and said there in words.

        ``noted`` says that the step itself notes what it did, in the same transaction.
        """
        try:
            step(view.desk())
        except AdapterError as exc:
            _note(view, person, entity, "E", f"{detail}: {exc.code}", "4")
            return _page(view, request, person, HTTPStatus.CONFLICT, problem=exc)
        if not noted:
            _note(view, person, entity, "E", detail)
        return RedirectResponse(f"/approval?done={done}", HTTPStatus.SEE_OTHER)

    @router.post("/approval/make")
    def make(request: Request, person: Person = approver) -> Response:
        return decided(request, person, lambda desk: asyncio.run(desk.propose()), "Submission", "made", "made")

    @router.post("/approval/approve")
    def approve(
        request: Request,
        identifier: Annotated[str, Form(max_length=200)],
        digest: Annotated[str, Form(max_length=200)],
        person: Person = approver,
        seen: Annotated[str, Form(max_length=10)] = "",
    ) -> Response:
        if not seen:
            return _page(view, request, person, HTTPStatus.UNPROCESSABLE_ENTITY, missing="confirm")
        entity = f"Submission/{identifier}"

        def noted(connection: Connection) -> None:
            note(
                connection, at=view.web.now(), agent=person.account, role=person.role_text, action="E", entity=entity,
                detail="approved",
            )  # fmt: skip

        return decided(
            request, person,
            lambda desk: asyncio.run(
                desk.approve(identifier, digest, by=person.account, name=person.name, witness=noted)
            ),
            entity, "approved", "approved", noted=True,
        )  # fmt: skip

    @router.post("/approval/send")
    def send(request: Request, person: Person = approver) -> Response:
        return decided(request, person, lambda desk: asyncio.run(desk.deliver()), "Submission", "sent", "sent")

    @router.post("/approval/return")
    def send_back(
        request: Request,
        identifier: Annotated[str, Form(max_length=200)],
        person: Person = approver,
        comment: Annotated[str, Form(max_length=2_000)] = "",
        numbers: Annotated[str, Form(max_length=400)] = "",
    ) -> Response:
        missing = "" if comment.strip() else "comment"
        if not missing and not _NUMBERS.fullmatch(numbers):
            missing = "numbers"
        if missing:
            return _page(view, request, person, HTTPStatus.UNPROCESSABLE_ENTITY, missing=missing)
        named = [int(number) for number in re.findall(r"\d+", numbers)]
        return decided(
            request, person,
            lambda desk: desk.send_back(identifier, by=person.account, comment=comment.strip(), numbers=named),
            f"Submission/{identifier}", "returned", "returned",
        )  # fmt: skip

    @router.post("/approval/text")
    def approve_text(
        request: Request,
        number: Annotated[int, Form()],
        text: Annotated[str, Form(max_length=100)],
        person: Person = approver,
    ) -> Response:
        return decided(
            request, person, lambda desk: asyncio.run(desk.approve_text(number, text, by=person.account)),
            f"Case/{number}", "text approved", "text",
        )  # fmt: skip

    @router.post("/approval/clear")
    def clear(
        request: Request,
        number: Annotated[int, Form()],
        person: Person = approver,
        reason: Annotated[str, Form(max_length=40)] = "",
    ) -> Response:
        return decided(
            request, person, lambda desk: desk.clear(number, reason=reason, by=person.account),
            f"Case/{number}", "rare case cleared", "cleared",
        )  # fmt: skip


def _proposal(view: View) -> Proposal | None:
    if view.sample() is None:
        return None
    return asyncio.run(view.desk().proposal())


def _page(
    view: View,
    request: Request,
    person: Person,
    status: int = 200,
    *,
    done: str = "",
    missing: str = "",
    problem: AdapterError | None = None,
) -> Response:
    language = language_of(request)
    t = translator(language)
    sample = view.sample()
    rows = view.rows(sample, language) if sample is not None else []
    made = _proposal(view)
    signed = sum(row.state == "signed" for row in rows)
    current = made is not None and (made.stands or made.state == "accepted")
    return view.web.render(
        request, "approval.html", person, status, all=len(rows), signed=signed,
        made=made if current else None, outdated=made is not None and not current,
        may_make=person.has("approver") and bool(rows) and signed == len(rows) and not current,
        may_decide=person.has("approver"),
        flash=t(f"approval.done.{done}") if done in {"made", "approved", "returned", "text", "cleared", "sent"} else "",
        problem=t(f"approval.error.{missing}") if missing else _why(t, problem) if problem is not None else "",
        **(_shown(view, language, made, rows, person) if made is not None and current else {}),
    )  # fmt: skip


def _shown(view: View, language: str, made: Proposal, rows: list[Row], person: Person) -> Json:
    """What the page shows of a proposal."""
    t, form, names = translator(language), view.shown_form(language), view.names()
    texts = {item["linkId"]: str(item.get("text", item["linkId"])) for item in items(form)}
    own = [row.number for row in rows if row.account == person.account and row.state == "signed"]
    return {
        "state": _STATES.get(made.state, made.state),
        "resources": resource_counts(made.body),
        "said": made.approval,
        "said_by": names.get(made.approval.by, made.approval.by) if made.approval is not None else "",
        "counts": _counts(view, made, language),
        "review": [
            (view.title(line.category, language), reason_words_in(t, line.reason), line.sessions)
            for line in made.review_list
        ],
        "codes": made.unmapped[:_MOST_CODES],
        "texts": [(text, texts.get(text.link_id, text.link_id)) for text in made.texts],
        "clearing": [(code, t(f"approval.clearing.{code}")) for code in CLEARING],
        "k": load_profile().risk.k,
        "cases": leaving_cases(made.body, form, {True: t("case.answer_yes"), False: t("case.answer_no")}),
        "standards": leaving_standards(made.body, {True: t("case.answer_yes"), False: t("case.answer_no")}),
        "own": own,
        "signer": person.account in made.signers,
    }  # fmt: skip


def _counts(view: View, made: Proposal, language: str) -> Json:
    """Counted sessions by category, this year and the year before."""
    this, last = made.volume.by_category, made.previous.by_category if made.previous is not None else {}
    rows = [
        CountRow(
            view.title(name, language),
            this[name].counted if name in this else 0,
            last[name].counted if name in last else 0,
        )
        for name in view.ruleset.categories
        if name in this or name in last
    ]
    rows = [row for row in rows if row.this or row.last]
    return {
        "rows": rows,
        "most": max((max(row.this, row.last) for row in rows), default=1),
        "this": made.volume.counted,
        "last": made.previous.counted if made.previous is not None else None,
        "threshold": made.volume.threshold,
        "this_label": made.volume.period.label,
        "last_label": str(int(made.volume.period.label) - 1),
    }


def _why(t: Translate, exc: AdapterError) -> str:
    return t(f"approval.error.{_SAID[exc.code]}") if exc.code in _SAID else exc.sentence


def _note(view: View, person: Person, entity: str, action: Any, detail: str, outcome: Any = "0") -> None:
    with view.web.ledger.begin() as connection:
        note(
            connection, at=view.web.now(), agent=person.account, role=person.role_text, action=action, entity=entity,
            outcome=outcome, detail=detail,
        )  # fmt: skip
