"""One submission: what it says, how it came about, what the body said of it, and the form for saying it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final, get_args

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from io_fhir_adapter.fhir.forms import answered_items, items
from io_fhir_adapter.look.language import language_of
from io_fhir_adapter.receiver.browse import Listed, bundle_of, history, listed, standing
from io_fhir_adapter.receiver.pages.case import form_of, read
from io_fhir_adapter.receiver.pages.shell import Body, absent
from io_fhir_adapter.receiver.reading import (
    Case,
    assessments_of,
    cases_of,
    of_kind,
    statement_of,
    volume_of,
)
from io_fhir_adapter.receiver.verdicts import NOTE_LENGTH, Verdict, give_verdict
from io_fhir_adapter.receiver.wire import FHIR_JSON, RefusedError
from io_fhir_adapter.trust.verify import nonce_origin, verify_submission

__all__ = ["CaseLine", "submission_router"]

Json = dict[str, Any]
_REASONED = frozenset({"correction-asked", "rejected"})
"""Verdicts that a facility cannot act on without a word."""
_REFUSED: Final = {"conflict": "withdrawn", "value": "long"}
"""Code of the issue for which a verdict is refused, to a key below ``verdict.problem``."""
_VERDICTS: Final = get_args(Verdict)


@dataclass(frozen=True)
class CaseLine:
    """A case as the list shows it: how many of the form's questions are answered."""

    number: int
    token: str
    category: str
    answered: int
    asked: int


def submission_router(body: Body) -> APIRouter:
    """The pages below ``/submissions/{number}`` but for its cases."""
    router = APIRouter()

    @router.get("/submissions/{number}")
    def submission(request: Request, number: int) -> Response:
        return _page(body, request, number)

    @router.get("/submissions/{number}/bundle.json")
    def bundle(request: Request, number: int) -> Response:
        body.person(request)
        found = bundle_of(body.store, number)
        if found is None:
            raise absent()
        headers = {"Content-Disposition": f'attachment; filename="submission-{number}.json"'}
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        return Response(text, media_type=FHIR_JSON, headers=headers)

    @router.post("/submissions/{number}/verdict")
    def verdict(
        request: Request,
        number: int,
        given: Annotated[str, Form(alias="verdict")] = "",
        note: Annotated[str, Form()] = "",
    ) -> Response:
        person = body.person(request)
        row = _row(body, number)
        words = note.replace("\r\n", "\n").strip()
        problem = _problem(given, words)
        if problem:
            return _page(body, request, number, HTTPStatus.UNPROCESSABLE_ENTITY, problem, given, note)
        try:
            give_verdict(body.store, row.identifier, given, words, person)
        except RefusedError as exc:
            problem = _REFUSED.get(exc.issues[0].code, "") if exc.issues else ""
            if not problem:
                raise
            return _page(body, request, number, exc.status, problem, given, note)
        return RedirectResponse(f"/submissions/{number}#verdict", HTTPStatus.SEE_OTHER)

    return router


def _problem(verdict: str, note: str) -> str:
    """What is wrong with the form, a key below ``verdict.problem``; empty for nothing."""
    if verdict not in _VERDICTS:
        return "none"
    if verdict in _REASONED and not note:
        return "note"
    return "long" if len(note) > NOTE_LENGTH else ""


def _row(body: Body, number: int) -> Listed:
    found = listed(body.store, number=number)
    if not found:
        raise absent()
    return found[0]


def _page(
    body: Body, request: Request, number: int, status: int = 200, problem: str = "", given: str = "", note: str = ""
) -> Response:
    person = body.person(request)
    row = _row(body, number)
    bundle: Json = bundle_of(body.store, number) or {}
    siblings = listed(body.store, row.facility)
    known = {one.identifier: one.number for one in siblings}
    holds = [one for one in standing(siblings) if _same_place(one, row)]
    groups, report = of_kind(bundle, "Group"), of_kind(bundle, "MeasureReport")
    statement = statement_of(bundle)
    language = language_of(request)
    return body.render(
        request,
        "submission.html",
        status,
        person=person,
        here=f"/submissions/{number}",
        row=row,
        volume=volume_of(report[0][1]) if report else None,
        threshold=body.threshold(row.programme),
        statement=statement,
        origin=nonce_origin(bundle),
        patients=groups[0][1].get("quantity") if groups else None,
        checks=verify_submission(bundle) if report else [],
        cases=[_case_line(body, row, case) for case in cases_of(bundle)],
        assessments=[read(form, response, language, body) for form, response in assessments_of(bundle)],
        replaces=[(one, known.get(one)) for one in statement.replaces],
        newer=next((one.number for one in holds if one.number > row.number), None),
        history=history(body.store, row),
        verdict_choices=_VERDICTS,
        longest=NOTE_LENGTH,
        problem=problem,
        given=given,
        note=note,
    )


def _same_place(one: Listed, other: Listed) -> bool:
    return (one.programme, one.period_start, one.period_end) == (other.programme, other.period_start, other.period_end)


def _case_line(body: Body, row: Listed, case: Case) -> CaseLine:
    form = form_of(body, row, case)
    asked = {item["linkId"] for item in items(form or {}) if item.get("type") not in ("group", "display")}
    answered = {item["linkId"] for item in answered_items(case.response)}
    return CaseLine(case.number, case.token, case.category, len(answered), len(asked | answered))
