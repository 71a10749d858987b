"""The runs: what each read and from where, the proof that nothing is missing, what was set aside, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.ledger.facts import quarantined_by
from io_fhir_adapter.ledger.runs import recent_runs, run_numbered
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.nights import funnel_in, night_of
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import number_in, worded
from io_fhir_adapter.serve.people import Person
from io_fhir_adapter.volume.count import FunnelStep

__all__ = ["runs_router"]

_ON_A_PAGE: Final = 30


def runs_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()
    web = view.web
    anybody = Depends(web.person())

    @router.get("/runs")
    def runs(request: Request, person: Person = anybody, before: int | None = None) -> Response:
        language = language_of(request)
        with web.ledger.read() as connection:
            found = recent_runs(connection, _ON_A_PAGE + 1, before=before)
        nights = [night_of(run) for run in found[:_ON_A_PAGE]]
        return web.render(
            request, "runs.html", person, nights=nights, before=before,
            more=found[_ON_A_PAGE - 1].id if len(found) > _ON_A_PAGE else None,
            number=lambda value: number_in(language, value),
        )  # fmt: skip

    @router.get("/runs/{number}")
    def one(request: Request, number: int, person: Person = anybody) -> Response:
        language = language_of(request)
        t = translator(language)
        with web.ledger.read() as connection:
            run = run_numbered(connection, number)
            aside = quarantined_by(connection, number)
        if run is None:
            raise RefusedError(HTTPStatus.NOT_FOUND)
        steps = [_step(step) for step in run.summary.get("funnel", ())]
        return web.render(
            request, "run.html", person, night=night_of(run), run=run, aside=aside,
            sources=run.summary.get("sources", ()), counted=run.summary.get("counted"),
            funnel=funnel_in(t, language, steps), number=lambda value: number_in(language, value),
            strategy=lambda name: worded(t, f"runs.strategies.{name}", name),
        )  # fmt: skip

    return router


def _step(kept: Mapping[str, Any]) -> FunnelStep:
    """A step as the ledger keeps it; the most frequent reason first again."""
    why = sorted(kept["why"].items(), key=lambda pair: (-pair[1], pair[0]))
    return FunnelStep(kept["code"], kept["name"], kept["unit"], kept["count"], kept["lost"], tuple(why))
