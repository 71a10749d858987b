"""One facility: its years by category, its submissions, its frames."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.receiver.browse import frames, listed, reports, standing
from io_fhir_adapter.receiver.pages.charts import YearsChart, years_chart
from io_fhir_adapter.receiver.pages.shell import Body, absent
from io_fhir_adapter.receiver.reading import Tally, Volume, volume_of

__all__ = ["Table", "facility_router"]


@dataclass(frozen=True)
class Table:
    """The volumes of one programme, the newest period first.

    Attributes:
        programme: Code of the programme.
        periods: What each column is: label and number of the submission.
        totals: All sessions of each column.
        rows: Category, and its sessions in each column.
        threshold: What the programme asks for in a year.
        chart: The same as a picture.
    """

    programme: str
    periods: tuple[tuple[str, int], ...]
    totals: tuple[Tally, ...]
    rows: tuple[tuple[str, tuple[Tally, ...]], ...]
    threshold: int | None
    chart: YearsChart


def _table(programme: str, columns: list[tuple[str, int, Volume]], threshold: int | None) -> Table:
    categories: dict[str, int] = {}
    for _, _, volume in columns:
        for code, tally in volume.by_category.items():
            categories[code] = categories.get(code, 0) + 10_000 * tally.counted + tally.review
    shown = [code for code, weight in sorted(categories.items(), key=lambda one: (-one[1], one[0])) if weight]
    return Table(
        programme=programme,
        periods=tuple((label, number) for label, number, _ in columns),
        totals=tuple(volume.total for *_, volume in columns),
        rows=tuple((code, tuple(v.by_category.get(code, Tally()) for *_, v in columns)) for code in shown),
        threshold=threshold,
        chart=years_chart([(label, volume) for label, _, volume in reversed(columns)], threshold),
    )


def facility_router(body: Body) -> APIRouter:
    """The page ``/facilities/{code}``."""
    router = APIRouter()

    @router.get("/facilities/{code}")
    def facility(request: Request, code: str) -> Response:
        person = body.person(request)
        rows, announced = listed(body.store, code), frames(body.store, code)
        if not rows and not announced:
            raise absent()
        stand = sorted(standing(rows), key=lambda row: (row.period_end, row.period_start), reverse=True)
        said = {number: volume_of(report) for number, report in reports(body.store, [r.number for r in stand]).items()}
        tables = []
        for programme in sorted({row.programme for row in stand}):
            columns = [
                (row.period, row.number, said[row.number])
                for row in stand
                if row.programme == programme and row.number in said
            ]
            tables.append(_table(programme, columns, body.threshold(programme)))
        return body.render(
            request, "facility.html", person=person, code=code, rows=rows, frames=announced, tables=tables
        )

    return router
