"""The first page: every facility with its volumes against the threshold, and what waits for a verdict."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.receiver.browse import Listed, listed, standing
from io_fhir_adapter.receiver.pages.shell import Body

__all__ = ["OPEN_STATES", "Line", "lines", "overview_router"]

OPEN_STATES = frozenset({"received"})
"""States in which the body's next word is awaited."""
_SHOWN = 8


@dataclass(frozen=True)
class Line:
    """A facility under one programme.

    Attributes:
        facility: Its code.
        programme: Code of the programme.
        years: What stands for each year asked for, None where nothing does.
        last: The newest submission, whatever became of it.
        threshold: What the programme asks for in a year.
    """

    facility: str
    programme: str
    years: tuple[Listed | None, ...]
    last: Listed
    threshold: int | None

    @property
    def reached(self) -> bool | None:
        """Whether the newest year has reached the threshold; None where that cannot be said."""
        first = self.years[0] if self.years else None
        return None if first is None or not self.threshold else first.counted >= self.threshold


def lines(rows: Collection[Listed], years: tuple[str, ...], body: Body) -> list[Line]:
    """One line for each facility and programme, by name."""
    newest: dict[tuple[str, str], Listed] = {}
    for row in sorted(rows, key=lambda one: one.number):
        newest[row.facility, row.programme] = row
    of_year: dict[tuple[str, str, str], Listed] = {}
    for row in sorted(standing(rows), key=lambda one: one.period_end):
        of_year[row.facility, row.programme, row.period_end[:4]] = row
    found = [
        Line(
            facility,
            programme,
            tuple(of_year.get((facility, programme, year)) for year in years),
            last,
            body.threshold(programme),
        )
        for (facility, programme), last in newest.items()
    ]
    return sorted(found, key=lambda line: (body.name(line.facility).casefold(), line.facility, line.programme))


def overview_router(body: Body) -> APIRouter:
    """The page ``/`` and the list ``/submissions``."""
    router = APIRouter()

    @router.get("/")
    def overview(request: Request, programme: str = "") -> Response:
        person = body.person(request)
        everything = listed(body.store)
        codes = sorted({row.programme for row in everything})
        rows = [row for row in everything if programme in ("", row.programme)]
        latest = max((row.period_end[:4] for row in rows), default="")
        years = (latest, str(int(latest) - 1)) if latest.isdecimal() else ()
        shown = lines(rows, years, body)
        waiting = [row for row in rows if row.verdict.state in OPEN_STATES]
        return body.render(
            request,
            "overview.html",
            person=person,
            programmes=codes,
            programme=programme,
            years=years,
            lines=shown,
            scale=_scale(shown),
            facilities=len({line.facility for line in shown}),
            reached=sum(line.reached is True for line in shown),
            measured=sum(line.reached is not None for line in shown),
            waiting=waiting[:_SHOWN],
            waiting_count=len(waiting),
            submissions=len(rows),
        )

    @router.get("/submissions")
    def submissions(request: Request, state: str = "", programme: str = "") -> Response:
        person = body.person(request)
        everything = listed(body.store)
        states = {one: sum(row.verdict.state == one for row in everything) for one in _states(everything)}
        rows = [row for row in everything if state in ("", row.verdict.state) and programme in ("", row.programme)]
        return body.render(
            request,
            "submissions.html",
            person=person,
            rows=rows,
            states=states,
            state=state,
            programme=programme,
            programmes=sorted({row.programme for row in everything}),
            total=len(everything),
        )

    return router


def _states(rows: Collection[Listed]) -> list[str]:
    order = ("received", "correction-asked", "accepted", "rejected", "withdrawn")
    present = {row.verdict.state for row in rows}
    return [state for state in order if state in present]


def _scale(shown: Collection[Line]) -> int:
    """What the full length of a bar stands for: all bars of the page can be compared."""
    tops = [row.counted + row.review for line in shown for row in line.years if row is not None]
    asked = [line.threshold for line in shown if line.threshold]
    return max([*tops, *(round(1.25 * one) for one in asked), 1])
