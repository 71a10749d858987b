"""The nightly report: one HTML file that needs nothing but itself.

No script, no font, no picture and no address is fetched; a content security policy inside the page forbids it as well.
It holds numbers, codes and positions, never a patient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from io_fhir_adapter.look.theme import DARK, FAMILIES, FONT, LIGHT, css_variables, dark_chart_css, family_of
from io_fhir_adapter.report.wording import day_words, month_name, number, reason_words, sentence
from io_fhir_adapter.volume.count import UNKNOWN_MONTH, Volume

__all__ = [
    "CasesDrawn",
    "CategoryRow",
    "QuarantineReason",
    "ReportData",
    "RunFact",
    "SubmissionState",
    "UnmappedCode",
    "category_rows",
    "pace_words",
    "ranked",
    "render_report",
]

_MOST_POSITIONS = 5


@dataclass(frozen=True)
class RunFact:
    """What a run read of one resource type; ``seconds`` is its duration, ``complete`` whether nothing is missing.

    ``total`` is what the server said there is, None where it said nothing; ``removed`` what a complete reading did not
    find any more; ``ids`` the digest of the ids that were read.
    """

    resource_type: str
    read: int
    quarantined: int
    pages: int
    complete: bool
    seconds: float
    total: int | None = None
    removed: int = 0
    ids: str = ""


@dataclass(frozen=True)
class QuarantineReason:
    """Resources set aside for one reason; of ``positions`` (file and line, or resource id) the first five are shown."""

    reason: str
    count: int
    positions: tuple[str, ...] = ()


@dataclass(frozen=True)
class CasesDrawn:
    """The draw for the case review: ``drawn`` of ``wanted`` patients from ``frame_size``, with the frame's digest."""

    drawn: int
    wanted: int
    frame_size: int
    digest: str


@dataclass(frozen=True)
class SubmissionState:
    """What was sent: its identifier, its state and a sentence about the receipt, empty as long as there is none."""

    identifier: str
    state: str
    receipt: str = ""


@dataclass(frozen=True)
class UnmappedCode:
    """A code without a row in the tables, with how many procedures and patients have it.

    ``withheld`` is the number of displays that are not shown because too few patients share them.
    """

    system: str
    code: str
    display: str | None
    procedures: int
    patients: int
    withheld: int = 0


@dataclass(frozen=True)
class ReportData:
    """Everything that the report says.

    Attributes:
        facility_name: The facility's name for people.
        facility_code: Its code from registration.
        programme_title: Name of the programme; its threshold and the period are those of ``volume``.
        as_of: ISO date up to which the source was read.
        volume: The period's volume.
        software_version: Version of this software.
        ruleset_digest: Digest of code tables, rules and programme.
        previous: The volume of the period before.
        runs: What was read, per resource type.
        quarantine: What could not be read, per reason.
        cases: The draw, if there was one.
        submission: The submission, if there was one.
        unmapped: Codes without a row, most frequent first.
        unmapped_total: How many such codes there are, where ``unmapped`` holds only the first.
        category_titles: Category code to title; a code without one stands for itself.
        synthetic: Whether the data are synthetic; the report then says so at its head.
        scope: A sentence on the scope that the site asks for, empty where it asks for none.

    Raises:
        ValueError: ``as_of`` is no ISO date.
    """

    facility_name: str
    facility_code: str
    programme_title: str
    as_of: str
    volume: Volume
    software_version: str
    ruleset_digest: str
    previous: Volume | None = None
    runs: tuple[RunFact, ...] = ()
    quarantine: tuple[QuarantineReason, ...] = ()
    cases: CasesDrawn | None = None
    submission: SubmissionState | None = None
    unmapped: tuple[UnmappedCode, ...] = ()
    unmapped_total: int | None = None
    category_titles: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False
    scope: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        date.fromisoformat(self.as_of)


def render_report(data: ReportData) -> str:
    """The whole report as one HTML document."""
    # Here, because what draws takes 50 MiB and most of a second to load, and a service draws once a night.
    from io_fhir_adapter.report.charts import cumulative_chart, funnel_chart, monthly_chart  # noqa: PLC0415

    volume = data.volume
    template = _environment().get_template("nightly.html.j2")
    return template.render(
        data=data,
        volume=volume,
        css_light=css_variables(LIGHT),
        css_dark=css_variables(DARK),
        css_charts=Markup(dark_chart_css(".chart")),  # noqa: S704 - made of our own constants
        font=Markup(FONT),  # noqa: S704 - a constant
        pace=pace_words(volume, data.as_of),
        bar=_bar(volume),
        charts={
            "cumulative": _both_sizes(
                cumulative_chart(volume, as_of=data.as_of, previous=data.previous),
                cumulative_chart(volume, as_of=data.as_of, previous=data.previous, size="narrow"),
            ),
            "monthly": _both_sizes(monthly_chart(volume), monthly_chart(volume, size="narrow")),
            "funnel": _both_sizes(funnel_chart(volume), funnel_chart(volume, size="narrow")),
        },
        month_ends=_month_ends(data),
        categories=category_rows(data),
        not_counted=ranked(volume.not_counted_by_reason),
        review=ranked(volume.review_by_reason),
        positions=_MOST_POSITIONS,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("io_fhir_adapter.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "day": day_words,
        "reason": reason_words,
        "sentence": sentence,
        "month": _month,
        "seconds": _seconds,
        "breakable": _breakable,
    }
    return environment


def _both_sizes(wide: str, narrow: str) -> Markup:
    """Both layouts of a chart, of which the style sheet shows one; the drawing has escaped its words."""
    inline = (re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", drawing) for drawing in (wide, narrow))
    parts = "".join(
        f'<div class="chart {size}">{drawing}</div>' for size, drawing in zip(("wide", "narrow"), inline, strict=True)
    )
    return Markup(parts)  # noqa: S704


def pace_words(volume: Volume, as_of: str) -> str:
    """One sentence on where the period stands."""
    period, threshold = volume.period, volume.threshold
    if volume.reached:
        when = f" on {day_words(volume.reached_on)}" if volume.reached_on else ""
        return f"The threshold was reached{when}."
    missing = f"{number(threshold - volume.counted)} more counted sessions are needed"
    if not as_of or as_of >= period.end:
        return f"{missing}; the period has ended."
    gone = (date.fromisoformat(as_of) - date.fromisoformat(period.start)).days + 1
    if gone <= 0:
        return f"{missing}; the period has not begun."
    due = threshold * gone / period.days
    straight = volume.counted * period.days // gone
    place = "ahead of" if volume.counted > due else "behind"
    return (
        f"{missing}. The count is {place} even pace ({number(round(due))} by {day_words(as_of)}); "
        f"carried on in a straight line it would end at {number(straight)}."
    )


def _bar(volume: Volume) -> dict[str, float]:
    """The headline's bar: shares in per cent of its full length."""
    full = max(volume.possible, volume.threshold) * 1.04 or 1
    return {
        "counted": round(100 * volume.counted / full, 2),
        "review": round(100 * volume.review / full, 2),
        "threshold": round(100 * volume.threshold / full, 2),
    }


def _month_ends(data: ReportData) -> list[tuple[str, int, int, int | None]]:
    """Per month: counted in it, counted by its end, and the same of the period before, by its place in the period."""
    before = _running(data.previous) if data.previous else []
    rows = []
    for at, (month, running) in enumerate(_running(data.volume)):
        known = before[at][1] if at < len(before) else None
        rows.append((month, data.volume.by_month[month].counted, running, known))
    return rows


def _running(volume: Volume) -> list[tuple[str, int]]:
    return [
        (month, max((running for day, running in volume.cumulative if day[:7] <= month), default=0))
        for month in volume.period.months()
    ]


class CategoryRow(NamedTuple):
    """A category with something counted or for review: its family, code and title, counted by month, and the sums."""

    family: str
    code: str
    title: str
    grid: list[int]
    counted: int
    review: int


def category_rows(data: ReportData) -> list[CategoryRow]:
    """Every category with something counted or for review, by family; within one the most frequent first."""
    volume = data.volume
    order = list(FAMILIES)
    rows = []
    for code, tally in volume.by_category.items():
        if tally.counted or tally.review:
            grid = [
                volume.by_month_category[month][code].counted if code in volume.by_month_category.get(month, {}) else 0
                for month in volume.by_month
            ]
            title = data.category_titles.get(code, code)
            rows.append(CategoryRow(family_of(code), code, title, grid, tally.counted, tally.review))
    return sorted(rows, key=lambda row: (not row.counted, order.index(row.family), -row.counted, -row.review, row.code))


def ranked(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Reason codes with their numbers, the most frequent first."""
    return sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))


def _month(month: str) -> str:
    return "no month" if month == UNKNOWN_MONTH else f"{month_name(month)} {month[:4]}"


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _breakable(text: str) -> Markup:
    """Escaped text that may wrap behind slashes, dots and colons, for long addresses in narrow columns."""
    return Markup("<wbr>").join(Markup.escape(part) for part in re.split(r"(?<=[/.:|\-_])", text))
