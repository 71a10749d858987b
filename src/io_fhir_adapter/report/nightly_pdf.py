"""The nightly report on one page of paper: the numbers of the page (:mod:`.nightly`), with less of the detail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from io_fhir_adapter.look.theme import LIGHT
from io_fhir_adapter.report.nightly import ReportData, category_rows, pace_words, ranked, render_report
from io_fhir_adapter.report.typeset import typeset
from io_fhir_adapter.report.wording import day_words, number, reason_words, sentence

__all__ = ["report_files", "report_pdf", "shown_on_paper"]

_CATEGORIES: Final = 10
_REASONS: Final = 4
_CODES: Final = 4
_READINGS: Final = 8
_NOTES: Final = 4


def report_files(data: ReportData, *, pdf: bool = False) -> dict[str, bytes]:
    """The report by file names: the page, and with ``pdf`` the paper beside it."""
    files = {"report.html": render_report(data).encode()}
    return files | {"report.pdf": report_pdf(data)} if pdf else files


def report_pdf(data: ReportData) -> bytes:
    """One A4 page; the same data give the same bytes, with the same versions of the libraries."""
    return typeset("nightly.typ", shown_on_paper(data), datetime.fromisoformat(data.as_of).replace(tzinfo=UTC))


def shown_on_paper(data: ReportData) -> dict[str, Any]:
    """All that the page shows, as JSON values; the template adds fixed words alone."""
    # Here, because what draws takes 50 MiB and most of a second to load, and a service draws once a night.
    from io_fhir_adapter.report.charts import cumulative_chart, monthly_chart  # noqa: PLC0415

    volume, previous = data.volume, data.previous
    figures = [("left for review", volume.review), ("counted and for review together", volume.possible)]
    figures.append(("sessions not counted", volume.not_counted))
    figures.append(
        (f"counted in {previous.period.label}", previous.counted)
        if previous
        else ("Procedures read in the period", volume.seen.procedures)
    )
    return {
        "facility": data.facility_name,
        "code": data.facility_code,
        "programme": data.programme_title,
        "period": volume.period.label,
        "as_of": day_words(data.as_of),
        "synthetic": data.synthetic,
        "counted": volume.counted,
        "review": volume.review,
        "threshold": volume.threshold,
        "reached": volume.reached,
        "words": {"counted": number(volume.counted), "threshold": number(volume.threshold)},
        "pace": pace_words(volume, data.as_of),
        "figures": [{"name": name, "value": number(value)} for name, value in figures],
        "charts": [
            cumulative_chart(volume, as_of=data.as_of, previous=previous, size="narrow"),
            monthly_chart(volume, size="narrow"),
        ],
        "categories": _categories(data),
        "reasons": [
            {"title": "Left for review, and why", "rows": _reasons(volume.review_by_reason)},
            {"title": "Not counted, and why", "rows": _reasons(volume.not_counted_by_reason)},
        ],
        "readings": _readings(data),
        "complete": all(run.complete for run in data.runs),
        "aside": number(sum(row.count for row in data.quarantine)),
        "codes": [
            [row.code or "–", row.system, number(row.procedures), number(row.patients)]
            for row in data.unmapped[:_CODES]
        ],
        "codes_total": number(len(data.unmapped) if data.unmapped_total is None else data.unmapped_total),
        "notes": [data.scope] * bool(data.scope) + _first(data.notes, _NOTES),
        "cases": _cases(data),
        "submission": _submission(data),
        "ruleset": data.ruleset_digest,
        "software": data.software_version,
        "colours": LIGHT,
    }


def _categories(data: ReportData) -> list[list[str]]:
    """Family, title, counted, for review; the last row adds up what has none of its own."""
    rows = category_rows(data)
    shown = [[row.family, row.title, number(row.counted), number(row.review)] for row in rows[:_CATEGORIES]]
    rest = rows[_CATEGORIES:]
    if rest:
        counted, review = sum(row.counted for row in rest), sum(row.review for row in rest)
        shown.append(["", f"{len(rest)} more", number(counted), number(review)])
    return shown


def _reasons(reasons: Mapping[str, int]) -> list[list[str]]:
    rows = ranked(reasons)
    shown = [[sentence(reason_words(code)), number(count)] for code, count in rows[:_REASONS]]
    rest = rows[_REASONS:]
    return [*shown, [f"{len(rest)} more", number(sum(count for _, count in rest))]] if rest else shown


def _readings(data: ReportData) -> list[list[str]]:
    """Resource, read, what the server says there is, gone, set aside, whether complete; what is not complete first."""
    return [
        [
            run.resource_type, number(run.read), "–" if run.total is None else number(run.total), number(run.removed),
            number(run.quarantined), "yes" if run.complete else "no",
        ]
        for run in sorted(data.runs, key=lambda run: run.complete)[:_READINGS]
    ]  # fmt: skip


def _cases(data: ReportData) -> str:
    if data.cases is None:
        return "No cases have been drawn for this period."
    cases = data.cases
    return f"{number(cases.drawn)} of {number(cases.wanted)} patients were drawn from {number(cases.frame_size)}."


def _submission(data: ReportData) -> str:
    sent = data.submission
    if sent is None:
        return "Nothing has been submitted for this period."
    return f"{sent.identifier}: {sent.state}. {sentence(sent.receipt) if sent.receipt else 'No receipt yet.'}"


def _first(notes: tuple[str, ...], most: int) -> list[str]:
    left = len(notes) - most
    return [*notes[:most], *([f"{left} more on the page of the report."] if left > 0 else [])]
