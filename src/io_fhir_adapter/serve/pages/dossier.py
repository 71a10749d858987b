"""The papers for a body that takes only papers, made from the sealed submission when somebody asks for them."""

from __future__ import annotations

import mimetypes
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.errors import SubmitError
from io_fhir_adapter.handover.papers import dossier_of
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.report.dossier import Dossier
from io_fhir_adapter.report.dossier_files import LIBRARIES, archive, dossier_files, lacking_libraries, tables
from io_fhir_adapter.serve.language import language_of
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import day_in, number_in
from io_fhir_adapter.serve.people import Person

__all__ = ["dossier_router"]

_ALL: Final = "dossier.zip"
_NOTHING_SEALED: Final = "IOA-SUB-040"
_DRAFTS: Final = {
    "it waits for approval": "held", "nobody approved the submission yet": "held",
    "an approver returned it": "returned", "what it rests on has changed": "superseded",
    "the accreditation system rejected it": "rejected",
}  # fmt: skip


def dossier_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()
    approver = Depends(view.web.person("approver"))

    @router.get("/dossier")
    def dossier(request: Request, person: Person = approver) -> Response:
        found, language = _dossier(view), language_of(request)
        lacking = lacking_libraries()
        return view.web.render(
            request, "dossier.html", person, found=found, archive=_ALL,
            made=[name for name, *_ in LIBRARIES if name not in lacking],
            lacking=[(name, extra) for name, _, _, extra, _ in LIBRARIES if name in lacking],
            tables=[f"{table.name}.csv" for table in tables(found)] if found is not None else [],
            draft=_DRAFTS.get(found.draft, "") if found is not None else "",
            groups=[line for line in found.volume if line.is_group] if found is not None else [],
            sealed=day_in(language, found.sealed[:10]) if found is not None else "",
            number=lambda value: number_in(language, value),
        )  # fmt: skip

    @router.get("/dossier/{name}")
    def download(name: str, person: Person = approver, evidence: str = "") -> Response:
        found = _dossier(view)
        if found is None:
            raise RefusedError(HTTPStatus.NOT_FOUND)
        files = dossier_files(found, evidence=bool(evidence), only="" if name == _ALL else name).files
        if name != _ALL and name not in files:
            raise RefusedError(HTTPStatus.NOT_FOUND)
        content = archive(files) if name == _ALL else files[name]
        with view.web.ledger.begin() as connection:
            note(
                connection, at=view.web.now(), agent=person.account, role=person.role_text, action="R",
                entity=f"Submission/{found.identifier}",
                detail=f"dossier downloaded: {name}" + (", with the evidence named" if evidence else ""),
            )  # fmt: skip
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {"Content-Disposition": f'attachment; filename="{found.code}-{found.period}-{name}"'}
        return Response(content, media_type=kind, headers=headers)

    return router


def _dossier(view: View) -> Dossier | None:
    """The dossier of the year that is due, None where nothing is sealed yet."""
    try:
        return dossier_of(view.web.ledger, view.ruleset, view.today)
    except SubmitError as exc:
        if exc.code == _NOTHING_SEALED:
            return None
        raise
