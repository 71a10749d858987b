"""The standards self-assessment: its form in LHC-Forms, drafts, evidence by name and digest, and taking the answers.

Approvers and administrators answer, everybody reads. No content of a file comes here: the browser makes the digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import groupby
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Form
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.errors import AdapterError, LedgerError, ReviewError
from io_fhir_adapter.fhir.form_words import response_in
from io_fhir_adapter.ledger.assessments import (
    Assessment,
    Draft,
    Evidence,
    add_evidence,
    assessment_of,
    draft_of,
    drop_evidence,
    evidence_of,
    put_assessment,
    save_draft,
)
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.report.standards import Line, Requirement, checklist, questionnaire, requirements, tally
from io_fhir_adapter.review.assessing import accept_assessment
from io_fhir_adapter.review.completing import accept
from io_fhir_adapter.review.forms import canonical
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.forms import FORM_POLICY, Posted, for_display, script_words
from io_fhir_adapter.serve.pages.standards_form import (
    answers_alone,
    asked_form,
    documents,
    names_of,
    shown_form,
    titles_of,
    with_evidence,
)
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import Translate
from io_fhir_adapter.serve.people import Person, Role
from io_fhir_adapter.shipped import FORMS_LACKING, lacking_forms

__all__ = ["EDITORS", "standards_router"]

Json = dict[str, Any]
EDITORS: Final[tuple[Role, ...]] = ("approver", "administrator")
"""Who answers: neither of them is shown a patient here, and no answer is about one."""
_STALE: Final = "IOA-LED-080"
_LONGEST_NAME: Final = 255
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST: Final = 2**53


@dataclass(frozen=True, slots=True)
class Read:
    """A requirement to be read: its kind, its name, the code of its answer or nothing, and its evidence."""

    kind: str
    text: str
    answer: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class _Known:
    """All that the ledger knows of a programme's self-assessment."""

    taken: Assessment | None
    draft: Draft
    evidence: tuple[Evidence, ...]

    @property
    def answers(self) -> Json:
        """The answers as they stand: those of the draft, else those that were taken."""
        found = self.draft.response or (self.taken.response if self.taken is not None else None)
        return answers_alone(found) if found is not None else {"resourceType": "QuestionnaireResponse"}


def standards_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()
    _add_page(router, view)
    _add_answers(router, view)
    _add_evidence(router, view)
    return router


def _add_page(router: APIRouter, view: View) -> None:
    lacking = bool(lacking_forms())

    @router.get("/standards")
    def standards(
        request: Request,
        person: Person = Depends(view.web.person()),  # noqa: B008
        done: str = "",
        read: str = "",
    ) -> Response:
        programme, language = _programme(view), language_of(request)
        t, known = translator(language), _known(view)
        may_edit = person.has(*EDITORS)
        editable = may_edit and not read
        lines = checklist(programme, known.answers)
        opened, names, requirement_names = _opened(t, programme, lines), view.names(), names_of(programme, t)
        return view.web.render(
            request, "standards.html", person, csp=FORM_POLICY if editable else None,
            may_edit=may_edit, editable=editable, taken=known.taken, draft=known.draft,
            draft_by=names.get(known.draft.by, known.draft.by), done=done == "taken",
            state="draft" if known.draft.response else "signed" if known.taken else "open",
            core=tally(lines, "core"), extended=tally(lines, "extended"), open=opened,
            open_groups=[(name, list(found)) for name, found in groupby(opened, key=lambda one: one["group"])],
            shelves=_shelves(t, programme, known.evidence),
            places=[
                (title, [(one.link_id, requirement_names[one.link_id]) for one in found if one.letter])
                for title, found in _by_standard(t, programme)
            ],
            sections=_reading(t, programme, known), forms_lacking=FORMS_LACKING if lacking else "",
            data=_data(language, shown_form(programme, t), known) if editable and not lacking else {},
        )  # fmt: skip


def _add_answers(router: APIRouter, view: View) -> None:
    editor = Depends(view.web.person(*EDITORS))

    def saved(request: Request, posted: Posted, person: Person) -> Draft | Response:
        programme = _programme(view)
        form = asked_form(programme)
        head = {"resourceType": "QuestionnaireResponse", "questionnaire": canonical(form)}
        try:
            clean = accept(form, posted.answers, head)
            with view.web.ledger.begin() as connection:
                return save_draft(
                    connection, programme.id, clean, revision=posted.revision, by=person.account, now=view.web.now()
                )
        except (LedgerError, ReviewError) as exc:
            return _refusal(request, exc)

    def opened(request: Request, draft: Draft) -> list[dict[str, str]]:
        programme, t = _programme(view), translator(language_of(request))
        return _opened(t, programme, checklist(programme, draft.response))

    @router.post("/standards/draft")
    def draft(request: Request, posted: Posted, person: Person = editor) -> Response:
        done = saved(request, posted, person)
        return done if isinstance(done, Response) else JSONResponse({"revision": done.revision})

    @router.post("/standards/check")
    def check(request: Request, posted: Posted, person: Person = editor) -> Response:
        done = saved(request, posted, person)
        if isinstance(done, Response):
            return done
        found = opened(request, done)
        message = translator(language_of(request))("standards.open_items", number=len(found))
        return JSONResponse({"revision": done.revision, "open": found, "message": message})

    @router.post("/standards/take")
    def take(request: Request, posted: Posted, person: Person = editor) -> Response:
        done = saved(request, posted, person)
        if isinstance(done, Response):
            return done
        programme, t = _programme(view), translator(language_of(request))
        core = tally(checklist(programme, done.response), "core")
        if core.answered < core.total:
            said = {
                "revision": done.revision, "open": opened(request, done),
                "message": t("standards.core_open", number=core.total - core.answered),
            }  # fmt: skip
            return JSONResponse(said, HTTPStatus.UNPROCESSABLE_ENTITY)
        with view.web.ledger.begin() as connection:
            if draft_of(connection, programme.id) != done:
                return _stale(request)
            named = evidence_of(connection, programme.id)
            whole = {**with_evidence(programme, done.response or {}, named), "status": "completed"}
            clean = accept_assessment(questionnaire(programme), whole, "the form")
            put_assessment(connection, programme.id, clean, view.web.now())
            _note(view, connection, person, "E", "self-assessment taken")
        return JSONResponse({"next": "/standards?done=taken"})


def _add_evidence(router: APIRouter, view: View) -> None:
    editor = Depends(view.web.person(*EDITORS))

    def changed(person: Person, detail: str, step: Callable[[Connection], None]) -> Response:
        with view.web.ledger.begin() as connection:
            step(connection)
            _note(view, connection, person, "U", detail)
        return RedirectResponse("/standards#evidence", HTTPStatus.SEE_OTHER)

    @router.post("/standards/evidence")
    def add(
        link: Annotated[str, Form(max_length=64)],
        name: Annotated[str, Form(max_length=4_000)],
        size: Annotated[int, Form(ge=0, lt=_LARGEST)],
        sha256: Annotated[str, Form(max_length=64)],
        person: Person = editor,
    ) -> Response:
        programme = _programme(view)
        clean = _file_name(name)
        places = {one.link_id for one in requirements(programme) if one.letter}
        if link not in places or not _DIGEST.fullmatch(sha256) or not clean:
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY)
        made = Evidence(link, clean, size, sha256, timestamp(view.web.now()), person.account)
        return changed(person, "evidence named", lambda connection: add_evidence(connection, programme.id, made))

    @router.post("/standards/evidence/remove")
    def remove(
        link: Annotated[str, Form(max_length=64)],
        sha256: Annotated[str, Form(max_length=64)],
        person: Person = editor,
    ) -> Response:
        programme = _programme(view)
        return changed(
            person, "evidence taken out", lambda connection: drop_evidence(connection, programme.id, link, sha256)
        )

    @router.get("/standards/evidence.json")
    def export(person: Person = editor) -> Response:
        programme = _programme(view)
        with view.web.ledger.begin() as connection:
            named = evidence_of(connection, programme.id)
            _note(view, connection, person, "R", "evidence downloaded")
        headers = {"Content-Disposition": 'attachment; filename="evidence.json"'}
        return JSONResponse(documents(programme, named), media_type="application/fhir+json", headers=headers)


def _programme(view: View) -> Programme:
    programme = view.ruleset.programme
    if programme.standards is None:
        raise RefusedError(HTTPStatus.NOT_FOUND)
    return programme


def _known(view: View) -> _Known:
    name = view.ruleset.programme.id
    with view.web.ledger.read() as connection:
        return _Known(assessment_of(connection, name), draft_of(connection, name), evidence_of(connection, name))


def _note(view: View, connection: Connection, person: Person, action: Literal["R", "U", "E"], detail: str) -> None:
    note(
        connection, at=view.web.now(), agent=person.account, role=person.role_text, action=action,
        entity=f"Standards/{view.ruleset.programme.id}", detail=detail,
    )  # fmt: skip


def _file_name(name: str) -> str:
    """The last part of a path without control characters, as long as the form takes."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(sign for sign in last if sign.isprintable()).strip()[:_LONGEST_NAME]


def _refusal(request: Request, exc: AdapterError) -> Response:
    if exc.code == _STALE:
        return _stale(request)
    t = translator(language_of(request))
    said = {"code": exc.code, "message": t("case.message.not_accepted", items=exc.what)}
    return JSONResponse(said, HTTPStatus.UNPROCESSABLE_ENTITY)


def _stale(request: Request) -> Response:
    t = translator(language_of(request))
    return JSONResponse({"code": _STALE, "message": t("standards.stale")}, HTTPStatus.CONFLICT)


def _opened(t: Translate, programme: Programme, lines: tuple[Line, ...]) -> list[dict[str, str]]:
    """The requirements without an answer, the core ones first, as the page's script lists them."""
    names = names_of(programme, t)
    missing = [line.requirement for line in lines if line.answer is None]
    return [
        {
            "link_id": one.link_id,
            "text": f"{t('standards.standard', number=one.standard)}, {names[one.link_id]}",
            "group": t(f"standards.kinds.{one.kind}"),
            "reason": "",
        }
        for one in sorted(missing, key=lambda one: one.kind != "core")
    ]


def _by_standard(t: Translate, programme: Programme) -> Iterator[tuple[str, list[Requirement]]]:
    """The requirements below the titles of their standards."""
    titles = titles_of(programme, t)
    for number, found in groupby(requirements(programme), key=lambda one: one.standard):
        yield titles[f"standard-{number}"], list(found)


def _shelves(t: Translate, programme: Programme, evidence: tuple[Evidence, ...]) -> list[tuple[str, list[Evidence]]]:
    """The evidence by requirement, in the order of the form."""
    names = names_of(programme, t)
    found = [
        (
            f"{t('standards.standard', number=one.standard)}, {names[one.link_id]}",
            [named for named in evidence if named.link_id == one.link_id],
        )
        for one in requirements(programme)
    ]
    return [(title, named) for title, named in found if named]


def _reading(t: Translate, programme: Programme, known: _Known) -> list[tuple[str, list[tuple[str, list[Read]]]]]:
    """The answers to be read and printed: section to standard to requirements."""
    names, titles = names_of(programme, t), titles_of(programme, t)
    read = [
        (
            f"section-{line.requirement.section}",
            f"standard-{line.requirement.standard}",
            Read(
                line.requirement.kind,
                names[line.requirement.link_id],
                line.answer or "",
                tuple(one for one in known.evidence if one.link_id == line.requirement.link_id),
            ),
        )
        for line in checklist(programme, known.answers)
    ]
    return [
        (
            titles[section],
            [
                (titles[standard], [one for _, _, one in rows])
                for standard, rows in groupby(within, key=lambda row: row[1])
            ],
        )
        for section, within in groupby(read, key=lambda row: row[0])
    ]


def _data(language: str, form: Json, known: _Known) -> Json:
    """What the page's script works with; it is the one of the case pages."""
    t = translator(language)
    return {
        "questionnaire": for_display(form),
        "response": response_in(form, known.answers),
        "revision": known.draft.revision,
        "reasons": {},
        **script_words(language, "standards.js."),
        "path": "/standards",
        "draftPath": "/standards/draft",
        "checkPath": "/standards/check",
        "signPath": "/standards/take",
        "signIn": "/sign-in?next=/standards",
        "draftWord": t("standards.states.draft"),
        "savedText": "" if known.draft.response else t("case.not_saved_yet"),
    }
