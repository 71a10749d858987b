"""One case: its form in LHC-Forms, drafts, the check, the signature, and the patient's identity on demand.

Whatever is posted goes through the casework, which takes it anew; these pages only say in words what came of it.
"""

from __future__ import annotations

from http import HTTPStatus
from itertools import groupby
from typing import Any, Final

from fastapi import APIRouter, Depends
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from io_fhir_adapter.errors import AdapterError, LedgerError, ReviewError
from io_fhir_adapter.fhir.form_words import response_in
from io_fhir_adapter.fhir.forms import items, sections
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.reviews import release, take
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.review.board import CaseForm, Identity
from io_fhir_adapter.review.completing import completeness
from io_fhir_adapter.review.sample import Sample
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.forms import FORM_POLICY, Posted, for_display, script_words
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import Translate, reason_in
from io_fhir_adapter.serve.people import Person
from io_fhir_adapter.shipped import FORMS_LACKING, lacking_forms

__all__ = ["case_router"]

Json = dict[str, Any]
_SAID: Final = {"IOA-LED-020": "gone", "IOA-LED-021": "stale", "IOA-LED-022": "signed", "IOA-LED-025": "others"}
_OPEN: Final = "IOA-REV-034"
_NO_CASE: Final = {"IOA-REV-009", "IOA-LED-020"}


def case_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()
    _add_page(router, view)
    _add_drafts(router, view)
    return router


def _add_page(router: APIRouter, view: View) -> None:
    web = view.web
    reader, reviewer = Depends(web.person("reviewer", "approver")), Depends(web.person("reviewer"))
    lacking = bool(lacking_forms())

    def page(request: Request, person: Person, number: int, identity: Identity | None = None) -> Response:
        language, sample = language_of(request), _sample(view)
        t = translator(language)
        rows = {row.number: row for row in view.rows(sample, language)}
        if number not in rows:
            raise RefusedError(HTTPStatus.NOT_FOUND)
        row, form, questionnaire = rows[number], _form(view, sample, number), view.shown_form(language)
        mine = person.has("reviewer") and row.account in ("", person.account)
        editable = mine and row.state != "signed"
        opened = _opened(t, questionnaire, form)
        numbers = list(rows)
        place = numbers.index(number)
        return web.render(
            request, "case.html", person, csp=FORM_POLICY if editable else None,
            row=row, identity=identity, editable=editable,
            before=numbers[place - 1] if place else 0, after=numbers[place + 1] if place + 1 < len(numbers) else 0,
            comment=form.comment, returned_by=view.names().get(form.returned_by, form.returned_by),
            may_take=editable and not row.account, may_release=editable and bool(row.account),
            may_identify=person.has("reviewer"), open=opened, forms_lacking=FORMS_LACKING if lacking else "",
            open_groups=[(name, list(found)) for name, found in groupby(opened, key=lambda one: one["group"])],
            sections=() if editable else sections(questionnaire, form.response, _yes_no(t)),
            data=_data(request, questionnaire, form) if editable and not lacking else {},
        )  # fmt: skip

    @router.get("/cases/{number}")
    def case(request: Request, number: int, person: Person = reader) -> Response:
        return page(request, person, number)

    @router.post("/cases/{number}/identity")
    def identity(request: Request, number: int, person: Person = reviewer) -> Response:
        sample = _sample(view)
        try:
            found = view.desk().casework.identity(sample, number)
        except ReviewError as exc:
            raise RefusedError(HTTPStatus.NOT_FOUND) from exc
        with web.ledger.begin() as connection:
            note(
                connection, at=web.now(), agent=person.account, role=person.role_text, action="R",
                entity=f"Case/{sample.draw.id}/{number}", detail="identity",
            )  # fmt: skip
        return page(request, person, number, found)

    @router.post("/cases/{number}/take")
    def take_it(number: int, person: Person = reviewer) -> Response:
        sample = _sample(view)
        with web.ledger.begin() as connection:
            _told(lambda: take(connection, sample.draw.id, number, person.account))
        return RedirectResponse(f"/cases/{number}", HTTPStatus.SEE_OTHER)

    @router.post("/cases/{number}/release")
    def release_it(number: int, person: Person = reviewer) -> Response:
        sample = _sample(view)
        with web.ledger.begin() as connection:
            _told(lambda: take(connection, sample.draw.id, number, person.account))  # nobody frees another's case
            release(connection, sample.draw.id, number)
        return RedirectResponse(f"/cases?released={number}", HTTPStatus.SEE_OTHER)


def _add_drafts(router: APIRouter, view: View) -> None:
    web = view.web
    reviewer = Depends(web.person("reviewer"))

    def saved(request: Request, number: int, posted: Posted, person: Person) -> tuple[Sample, int] | Response:
        sample = _sample(view)
        try:
            review = view.desk().casework.save(
                sample, number, posted.answers, view.form(), by=person.account, revision=posted.revision
            )
        except (LedgerError, ReviewError) as exc:
            return _refusal(request, view, exc)
        return sample, review.revision

    @router.post("/cases/{number}/draft")
    def draft(request: Request, number: int, posted: Posted, person: Person = reviewer) -> Response:
        done = saved(request, number, posted, person)
        return done if isinstance(done, Response) else JSONResponse({"revision": done[1]})

    @router.post("/cases/{number}/check")
    def check(request: Request, number: int, posted: Posted, person: Person = reviewer) -> Response:
        done = saved(request, number, posted, person)
        if isinstance(done, Response):
            return done
        t = translator(language_of(request))
        opened = _opened(t, view.shown_form(language_of(request)), _form(view, done[0], number))
        return JSONResponse({"revision": done[1], "open": opened, "message": _count(t, len(opened))})

    @router.post("/cases/{number}/sign")
    def sign(request: Request, number: int, posted: Posted, person: Person = reviewer) -> Response:
        done = saved(request, number, posted, person)
        if isinstance(done, Response):
            return done
        sample, revision = done

        def noted(connection: Connection) -> None:
            note(
                connection, at=web.now(), agent=person.account, role=person.role_text, action="E",
                entity=f"Case/{sample.draw.id}/{number}", detail="signed",
            )  # fmt: skip

        try:
            view.desk().casework.sign(sample, number, view.form(), by=person.account, revision=revision, witness=noted)
        except ReviewError as exc:
            if exc.code != _OPEN:
                return _refusal(request, view, exc)
            t = translator(language_of(request))
            opened = _opened(t, view.shown_form(language_of(request)), _form(view, sample, number))
            said = {"revision": revision, "open": opened, "message": _count(t, len(opened))}
            return JSONResponse(said, HTTPStatus.UNPROCESSABLE_ENTITY)
        except LedgerError as exc:
            return _refusal(request, view, exc)
        return JSONResponse({"next": f"/cases?signed={number}"})


def _sample(view: View) -> Sample:
    sample = view.sample()
    if sample is None:
        raise RefusedError(HTTPStatus.NOT_FOUND)
    return sample


def _form(view: View, sample: Sample, number: int) -> CaseForm:
    try:
        return view.desk().casework.case_form(sample, number)
    except ReviewError as exc:
        raise RefusedError(HTTPStatus.NOT_FOUND) from exc


def _told(step: Any) -> None:
    try:
        step()
    except LedgerError as exc:
        raise RefusedError(HTTPStatus.NOT_FOUND if exc.code in _NO_CASE else HTTPStatus.CONFLICT) from exc


def _refusal(request: Request, view: View, exc: AdapterError) -> Response:
    """Why a form was not taken, in words; with the questions' own texts where answers are named."""
    t = translator(language_of(request))
    if exc.code in _SAID:
        status = HTTPStatus.NOT_FOUND if exc.code in _NO_CASE else HTTPStatus.CONFLICT
        return JSONResponse({"code": exc.code, "message": t(f"case.message.{_SAID[exc.code]}")}, status)
    named = [
        str(item["text"])
        for item in items(view.shown_form(language_of(request)))
        if f" {item['linkId']} " in f" {exc.what} "
    ]
    message = t("case.message.not_accepted", items="; ".join(named) or exc.what)
    return JSONResponse({"code": exc.code, "message": message}, HTTPStatus.UNPROCESSABLE_ENTITY)


def _opened(t: Translate, questionnaire: Json, form: CaseForm) -> list[dict[str, str]]:
    return [
        {
            "link_id": one.link_id, "text": one.text, "group": one.group,
            "reason": reason_in(t, form.missing.get(one.link_id, "")),
        }
        for one in completeness(questionnaire, form.response)
    ]  # fmt: skip


def _count(t: Translate, number: int) -> str:
    return t("case.message.open_one") if number == 1 else t("case.message.open_many", number=number)


def _yes_no(t: Translate) -> dict[bool, str]:
    return {True: t("case.answer_yes"), False: t("case.answer_no")}


def _data(request: Request, questionnaire: Json, form: CaseForm) -> Json:
    """What the page's script works with; the form is the one that is shown."""
    language = language_of(request)
    t = translator(language)
    path = f"/cases/{form.number}"
    return {
        "questionnaire": for_display(questionnaire),
        "response": response_in(questionnaire, form.response),
        "revision": form.revision,
        "reasons": {one["link_id"]: one["reason"] for one in _opened(t, questionnaire, form) if one["reason"]},
        **script_words(language),
        "path": path,
        "draftPath": f"{path}/draft",
        "checkPath": f"{path}/check",
        "signPath": f"{path}/sign",
        "signIn": f"/sign-in?next={path}",
        "draftWord": t("cases.states.draft"),
        "savedText": "" if form.revision else t("case.not_saved_yet"),
    }
