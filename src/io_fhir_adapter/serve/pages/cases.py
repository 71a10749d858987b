"""The list of the drawn cases: how far each is, and who works on it."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.view import Row, View
from io_fhir_adapter.serve.pages.wording import day_in
from io_fhir_adapter.serve.people import Person

__all__ = ["cases_router"]

_FILTERS: Final = ("all", "todo", "mine", "signed", "returned")


def cases_router(view: View) -> APIRouter:
    """The page."""
    router = APIRouter()
    web = view.web

    @router.get("/cases")
    def cases(
        request: Request,
        person: Person = Depends(web.person("viewer", "reviewer", "approver")),  # noqa: B008
        show: str = "all",
        signed: int | None = None,
        released: int | None = None,
    ) -> Response:
        language = language_of(request)
        t = translator(language)
        sample = view.sample()
        rows = view.rows(sample, language) if sample is not None else []
        chosen = show if show in _FILTERS else "all"
        found = {name: [row for row in rows if _shown(row, name, person)] for name in _FILTERS}
        flash = t("case.done", number=signed) if signed else t("case.released", number=released) if released else ""
        return web.render(
            request, "cases.html", person, rows=rows, shown=found[chosen], show=chosen, flash=flash,
            filters={name: len(rows) for name, rows in found.items() if name != "mine" or person.has("reviewer")},
            signed=len(found["signed"]), may_open=person.has("reviewer", "approver"),
            unread=any(not row.prefilled for row in rows),
            period=sample.draw.period if sample is not None else "",
            about=t(
                "cases.about", drawn=len(rows), frame=sample.draw.frame_size,
                start=day_in(language, sample.draw.window_start),
                end=day_in(language, sample.draw.window_end),
            ) if sample is not None else t("cases.none"),
        )  # fmt: skip

    return router


def _shown(row: Row, name: str, person: Person) -> bool:
    if name == "todo":
        return row.state != "signed"
    if name == "mine":
        return row.account == person.account
    return name in ("all", row.state)
