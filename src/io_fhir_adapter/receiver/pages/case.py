"""One case review as it was submitted, to be read."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.fhir.form_words import form_in, response_in
from io_fhir_adapter.fhir.forms import Section, answer_sections, sections
from io_fhir_adapter.look.language import language_of
from io_fhir_adapter.receiver.browse import Listed, bundle_of, listed
from io_fhir_adapter.receiver.pages.shell import Body, absent
from io_fhir_adapter.receiver.reading import Case, cases_of

__all__ = ["case_router", "form_of", "read"]

Json = dict[str, Any]


def case_router(body: Body) -> APIRouter:
    """The page ``/submissions/{number}/cases/{case}``."""
    router = APIRouter()

    @router.get("/submissions/{number}/cases/{place}")
    def case(request: Request, number: int, place: int) -> Response:
        person = body.person(request)
        rows = listed(body.store, number=number)
        cases = cases_of(bundle_of(body.store, number) or {})
        if not rows or not 1 <= place <= len(cases):
            raise absent()
        row, found = rows[0], cases[place - 1]
        form = form_of(body, row, found)
        return body.render(
            request,
            "case.html",
            person=person,
            row=row,
            case=found,
            count=len(cases),
            form_title=str((form or {}).get("title", "")),
            canonical=str(found.response.get("questionnaire", "")),
            sections=read(form, found.response, language_of(request), body),
            lacking=form is None,
        )

    return router


def form_of(body: Body, row: Listed, case: Case) -> Json | None:
    """The form of a case: that of the submission, else the one of that version that the facility sent earlier."""
    if case.form is not None:
        return case.form
    url, _, version = str(case.response.get("questionnaire", "")).partition("|")
    stored = body.store.search("Questionnaire", "url", "", url, row.facility) if url else []
    return next((one.content for one in stored if version in ("", one.content.get("version"))), None)


def read(form: Json | None, response: Json, language: str, body: Body) -> tuple[Section, ...]:
    """A response in the order of its form, open questions among it; in its own order where the form is not here."""
    t = body.shell.words.translator(language)
    yes_no = {True: t("answer.true"), False: t("answer.false")}
    if form is None:
        return answer_sections(response, yes_no)
    shown = form_in(form, language)
    return sections(shown, response_in(shown, response), yes_no, unanswered=True)
