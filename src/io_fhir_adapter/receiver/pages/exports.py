"""What the body takes along: volumes and submissions as CSV, case reviews as NDJSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from io_fhir_adapter.look.csv_file import Cell, csv_file
from io_fhir_adapter.receiver.browse import Listed, bundle_of, listed, reports, standing
from io_fhir_adapter.receiver.pages.shell import Body, category_words
from io_fhir_adapter.receiver.reading import Tally, cases_of, statement_of, volume_of

__all__ = ["export_router"]

_VOLUMES = (
    "facility", "facility_name", "programme", "period_start", "period_end", "submission", "state", "category", "title",
    "counted", "review", "not_counted", "threshold",
)  # fmt: skip
_SUBMISSIONS = (
    "number", "identifier", "facility", "facility_name", "programme", "period_start", "period_end", "counted", "review",
    "cases", "received", "times", "signed", "key", "state", "state_since", "note", "operator", "replaces", "ruleset",
    "frame", "software",
)  # fmt: skip
_ALL = "all"


def export_router(body: Body) -> APIRouter:
    """The pages below ``/exports``. ``programme`` and ``year`` choose; without them it is everything."""
    router = APIRouter()

    @router.get("/exports")
    def exports(request: Request, programme: str = "", year: str = "") -> Response:
        person = body.person(request)
        rows = listed(body.store)
        chosen = _chosen(rows, programme, year)
        return body.render(
            request,
            "exports.html",
            person=person,
            programmes=sorted({row.programme for row in rows}),
            years=sorted({row.period_end[:4] for row in rows}, reverse=True),
            programme=programme,
            year=year,
            counts=(len(standing(chosen)), len(chosen), sum(row.cases for row in standing(chosen))),
        )

    @router.get("/exports/volumes.csv")
    def volumes(request: Request, programme: str = "", year: str = "") -> Response:
        body.person(request)
        rows = standing(_chosen(listed(body.store), programme, year))
        return _csv("volumes", csv_file(_VOLUMES, _volume_rows(body, rows)))

    @router.get("/exports/submissions.csv")
    def submissions(request: Request, programme: str = "", year: str = "") -> Response:
        body.person(request)
        rows = sorted(_chosen(listed(body.store), programme, year), key=lambda row: row.number)
        return _csv("submissions", csv_file(_SUBMISSIONS, _submission_rows(body, rows)))

    @router.get("/exports/case-reviews.ndjson")
    def case_reviews(request: Request, programme: str = "", year: str = "") -> Response:
        body.person(request)
        rows = standing(_chosen(listed(body.store), programme, year))
        headers = _attached("case-reviews.ndjson")
        return StreamingResponse(_responses(body, rows), media_type="application/fhir+ndjson", headers=headers)

    return router


def _chosen(rows: list[Listed], programme: str, year: str) -> list[Listed]:
    return [row for row in rows if programme in ("", row.programme) and year in ("", row.period_end[:4])]


def _volume_rows(body: Body, rows: list[Listed]) -> Iterator[list[Cell]]:
    found = reports(body.store, [row.number for row in rows])
    for row in rows:
        volume = volume_of(found.get(row.number, {}))
        head: list[Cell] = [
            row.facility, body.name(row.facility), row.programme, row.period_start, row.period_end, row.number,
            row.verdict.state,
        ]  # fmt: skip
        threshold = body.threshold(row.programme)
        yield [*head, _ALL, "", *_cells(volume.total), "" if threshold is None else threshold]
        for code, tally in sorted(volume.by_category.items()):
            yield [*head, code, category_words(code, "en"), *_cells(tally), ""]


def _cells(tally: Tally) -> tuple[Cell, ...]:
    return tally.counted, tally.review, tally.not_counted


def _submission_rows(body: Body, rows: list[Listed]) -> Iterator[list[Cell]]:
    for row in rows:
        statement = statement_of(bundle_of(body.store, row.number) or {})
        said = row.verdict
        yield [
            row.number, row.identifier, row.facility, body.name(row.facility), row.programme, row.period_start,
            row.period_end, row.counted, row.review, row.cases, row.received, row.times, row.signed, row.key,
            said.state, said.at, said.note, said.by, " ".join(row.replaces), statement.ruleset, statement.frame,
            statement.software,
        ]  # fmt: skip


def _responses(body: Body, rows: list[Listed]) -> Iterator[str]:
    """One QuestionnaireResponse a line, tagged with nothing: as it was submitted."""
    for row in rows:
        for case in cases_of(bundle_of(body.store, row.number) or {}):
            yield json.dumps(case.response, ensure_ascii=False, separators=(",", ":")) + "\n"


def _attached(name: str) -> dict[str, str]:
    day = datetime.now(UTC).date().isoformat()
    return {"Content-Disposition": f'attachment; filename="{day}-{name}"'}


def _csv(name: str, content: bytes) -> Response:
    return Response(content, media_type="text/csv; charset=utf-8", headers=_attached(f"{name}.csv"))
