"""The first page after signing in: how far the year is, what the last nights did, and what waits for somebody."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.ledger.runs import recent_runs
from io_fhir_adapter.look.theme import FAMILIES, LIGHT, families_present
from io_fhir_adapter.report.gather import run_facts
from io_fhir_adapter.report.readiness_facts import Year
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.figures import Figures, Years
from io_fhir_adapter.serve.pages.nights import funnel_in, night_of
from io_fhir_adapter.serve.pages.plots import month_plot, months_by_family, running_plot
from io_fhir_adapter.serve.pages.readiness import cards_of, readiness_with
from io_fhir_adapter.serve.pages.submissions import submissions_of
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import Translate, day_in, number_in
from io_fhir_adapter.serve.people import Person
from io_fhir_adapter.volume.count import Volume

__all__ = ["dashboard_router"]

_NIGHTS: Final = 7
_SUBMISSIONS: Final = 3
_EARLY_DAYS: Final = 90
"""So long into a year people still work on the one before: that one is shown first."""


def dashboard_router(view: View, figures: Figures) -> APIRouter:
    """The page."""
    router = APIRouter()

    @router.get("/")
    def dashboard(
        request: Request,
        person: Person = Depends(view.web.person()),  # noqa: B008
        year: str = "",
    ) -> Response:
        language = language_of(request)
        t = translator(language)
        years = figures.years()
        with view.web.ledger.read() as connection:
            runs = recent_runs(connection, _NIGHTS)
            sent = submissions_of(connection, _SUBMISSIONS)
        ended = next((run for run in runs if run.finished), None)
        proof = run_facts(ended.summary.get("sources", ())) if ended is not None else []
        newer = years is not None and ended is not None and years.ended != ended.finished
        response = view.web.render(
            request, "dashboard.html", person, nights=[night_of(run) for run in runs], proof=proof, sent=sent,
            number=lambda value: number_in(language, value), colour=LIGHT, months=t("dashboard.months").split(),
            ended=ended, as_of=years.ended if years is not None else "", newer=newer,
            **(_counted(view, t, language, years, year) if years is not None else {"years": None}),
        )  # fmt: skip
        if years is None or newer:
            response.headers["Refresh"] = "4"
        return response

    return router


def _counted(view: View, t: Translate, language: str, years: Years, wanted: str) -> dict[str, Any]:
    """What rests on the counted years."""
    facts, found = readiness_with(view, years)
    labels = (facts.last.label, facts.running.label)
    early = facts.last.label if facts.running.gone <= _EARLY_DAYS else facts.running.label
    label = wanted if wanted in labels else early
    shown: Year = facts.last if label == facts.last.label else facts.running
    volume, before = years.volumes(label)
    projected = None if shown.ended else shown.projected
    families = families_present(code for code, tally in volume.by_category.items() if tally.counted)
    return {
        "years": labels,
        "outdated": years.outdated,
        "label": label,
        "year": shown,
        "volume": volume,
        "before": before,
        "projected": projected,
        "pace": _pace(t, language, shown, volume),
        "bar": _bar(volume),
        "running": [running_plot(volume, before, years.today, projected, size) for size in ("wide", "narrow")],
        "monthly": [month_plot(volume, size) for size in ("wide", "narrow")],
        "by_month": months_by_family(volume),
        "by_end": _by_end(volume, before),
        "families": {name: t(f"dashboard.families.{name}") for name in FAMILIES if name in families},
        "funnel": funnel_in(t, language, volume.funnel),
        "found": found,
        "facts": facts,
        "cards": list(cards_of(t, language, years.rules.programme, facts, found)),
    }


def _pace(t: Translate, language: str, year: Year, volume: Volume) -> str:
    """How the year goes, in a sentence."""
    missing = volume.threshold - volume.counted
    if volume.reached_on:
        return t("dashboard.reached", day=day_in(language, volume.reached_on))
    if year.ended:
        return t("dashboard.short", number=number_in(language, missing))
    if year.projected is None:
        return ""
    key = "dashboard.pace_good" if year.projected >= volume.threshold else "dashboard.pace_low"
    return t(key, number=number_in(language, missing), projected=number_in(language, year.projected))


def _bar(volume: Volume) -> dict[str, float]:
    """Counted, for review and threshold in per cent of the headline's bar."""
    full = max(volume.possible, volume.threshold) * 1.04 or 1
    shown = {"counted": volume.counted, "review": volume.review, "threshold": volume.threshold}
    return {name: round(100 * value / full, 2) for name, value in shown.items()}


def _by_end(volume: Volume, before: Volume | None) -> list[tuple[int, int, int]]:
    """Number of the month, and what was counted by its end: in the year before, and in the year."""
    return [(month, _until(before, month), _until(volume, month)) for month in range(1, 13)]


def _until(volume: Volume | None, month: int) -> int:
    if volume is None:
        return 0
    return max((many for day, many in volume.cumulative if int(day[5:7]) <= month), default=0)
