"""The three charts of a volume, as SVG that needs no script, no network and no fonts of its own.

Each exists in two sizes: ``wide`` for a page and paper, ``narrow`` for a telephone, laid out anew and not shrunk, so
that type keeps its size. All colours come from `theme.LIGHT`. Time is drawn as day numbers, never as JavaScript
dates: no time zone of the drawing machine can move a bar.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import altair as alt

from io_fhir_adapter.look.drawing import CHARACTER, Sheet, even_ticks, lookup, marks, svg, to_png, value_axis, words
from io_fhir_adapter.look.theme import FAMILIES, LIGHT, families_present, family_of
from io_fhir_adapter.report.wording import day_words, month_name, number, sentence, why_words
from io_fhir_adapter.volume.count import UNKNOWN_MONTH, FunnelStep, Volume
from io_fhir_adapter.volume.period import Period

__all__ = ["Size", "cumulative_chart", "funnel_chart", "monthly_chart", "to_png"]

Size = Literal["wide", "narrow"]
_LAST_STEP = "counted"


@dataclass(frozen=True)
class _Line:
    """A running total: steps of (day number, value), named at its end."""

    name: str
    steps: tuple[tuple[float, int], ...]

    def at(self, x: float) -> int:
        """The value at a day number."""
        return next((value for day, value in reversed(self.steps) if day <= x), 0)


def cumulative_chart(volume: Volume, *, as_of: str = "", previous: Volume | None = None, size: Size = "wide") -> str:
    """The running count against the threshold, even progress towards it and the year before.

    Args:
        volume: What to draw.
        as_of: ISO date up to which the numbers go; where it lies inside the period, the line ends there.
        previous: The volume of the period before, drawn in grey.
        size: Layout.
    """
    period = volume.period
    width, height, font = (640, 300, 12) if size == "wide" else (268, 230, 11)
    last = period.days if not as_of or as_of >= period.end else max(0, _day_number(period, as_of))
    now = _line(volume, last)
    before = _line(previous, previous.period.days, scale=period.days / previous.period.days) if previous else None
    ticks = even_ticks(max(volume.threshold * 1.08, volume.counted, previous.counted if previous else 0))
    top = ticks[-1]
    x = alt.X("x:Q").scale(domain=[0, period.days], nice=False).title(None).axis(_month_axis(period, size, font))
    y = alt.Y("y:Q").scale(domain=[0, top], nice=False).title(None).axis(value_axis(ticks, font))

    def at(*points: tuple[float, float]) -> Any:
        return marks([{"x": across, "y": up} for across, up in points]).encode(x=x, y=y)

    step: Any = "step-after"
    layers: list[Any] = [at(*now.steps).mark_area(color=LIGHT["wash"], interpolate=step)]
    if before:
        layers.append(at(*before.steps).mark_line(color=LIGHT["faint"], strokeWidth=1.5, interpolate=step))
    threshold = volume.threshold
    layers += [
        at((0, 0), (period.days, threshold)).mark_line(
            color=LIGHT["soft"], strokeWidth=1.25, strokeDash=[1, 4], strokeCap="round"
        ),
        at((0, threshold), (period.days, threshold)).mark_line(color=LIGHT["ink"], strokeWidth=1.25),
        at(*now.steps).mark_line(color=LIGHT["accent"], strokeWidth=2.75, interpolate=step, strokeJoin="round"),
        at(now.steps[-1]).mark_point(
            color=LIGHT["accent"], filled=True, size=64, opacity=1, stroke=LIGHT["surface"], strokeWidth=1.5
        ),
    ]
    named = f"Threshold {threshold}"
    if volume.reached_on:
        crossing = _day_number(period, volume.reached_on) / period.days * width
        more = f"{named}, reached {_short_day(volume.reached_on)}"
        named = more if len(more) * CHARACTER * font + 12 < crossing else named
    layers += words(at((0, threshold)), named, "ink", font, dx=4, dy=-8, weight=600)
    place = _free_place([now, *([before] if before else [])], threshold, period.days, height / top)
    if place is not None and threshold:
        slope = -math.degrees(math.atan2(height * threshold / top, width))
        layers += words(
            at((place, threshold * place / period.days)),
            "even pace",
            "soft",
            font,
            dy=10,
            angle=slope,
            align="center",
            halo=False,
        )
    layers += _end_labels(at, now, before, period.days, top / height, font)
    told = f"{number(volume.counted)} sessions counted in {period.label}, threshold {number(threshold)}"
    told += f", reached on {day_words(volume.reached_on)}." if volume.reached_on else ", not reached."
    if previous:
        told += f" {previous.period.label}: {number(previous.counted)}."
    chart = alt.layer(*layers).properties(width=width, height=height)
    return svg(chart, f"cumulative-{size}", f"Running count of {period.label} against the threshold", told)


def monthly_chart(volume: Volume, *, size: Size = "wide") -> str:
    """Counted sessions by month, stacked by family of categories; sessions without a month stand apart at the end."""
    width, height, font = (700, 260, 12) if size == "wide" else (318, 230, 11)
    totals = {month: tally.counted for month, tally in volume.by_month.items()}
    if not totals.get(UNKNOWN_MONTH):
        totals.pop(UNKNOWN_MONTH, None)
    present = families_present(category for category, tally in volume.by_category.items() if tally.counted)
    ticks = even_ticks(max(totals.values(), default=0) * 1.06)
    several_years = len({month[:4] for month in totals if month != UNKNOWN_MONTH}) > 1
    labels = {month: _month_label(month, size, several_years) for month in totals}
    x = (
        alt.X("month:N")
        .sort(list(totals))
        .scale(domain=list(totals), paddingInner=0.3, paddingOuter=0.15)
        .title(None)
        .axis(
            domainColor=LIGHT["faint"], ticks=False, labelAngle=0, labelPadding=8, labelFontSize=font,
            labelColor=LIGHT["soft"], labelOverlap=False, labelExpr=lookup(labels),
        )
    )  # fmt: skip
    y = alt.Y("low:Q").scale(domain=[0, ticks[-1]], nice=False).title(None).axis(value_axis(ticks, font))
    legend = alt.Legend(
        orient="top", direction="horizontal", title=None, symbolType="square", symbolSize=110, symbolStrokeWidth=0,
        labelFontSize=font, labelColor=LIGHT["ink"], columnPadding=12, rowPadding=5, offset=16, labelLimit=0,
        columns=0 if size == "wide" else 2,
    )  # fmt: skip
    titles = [FAMILIES[family][0] for family in present]
    colour = (
        alt.Color("family:N")
        .scale(domain=titles, range=[LIGHT[family] for family in present])
        .legend(legend if present else None)
    )
    bars = marks(_segments(volume)).mark_bar(stroke=LIGHT["surface"], strokeWidth=1)
    layers = [bars.encode(x=x, y=y, y2="high:Q", color=colour)]
    for month, total in totals.items():
        if total:
            at_top = marks([{"month": month, "low": total}]).encode(x=x, y=y)
            layers += words(at_top, number(total), "ink", font, dy=-8, align="center", weight=600)
    told = "Counted sessions by month: " + (
        ", ".join(f"{_month_words(month)} {number(total)}" for month, total in totals.items()) + "."
    )
    chart = alt.layer(*layers).properties(width=width, height=height)
    return svg(chart, f"monthly-{size}", f"Counted sessions of {volume.period.label} by month and kind", told)


def funnel_chart(volume: Volume, *, size: Size = "wide") -> str:
    """What was lost on the way from procedures read to sessions counted; each unit has a scale of its own."""
    sheet = Sheet(760 if size == "wide" else 330)
    for unit, steps in _panels(volume.funnel):
        heading = "Procedures"
        if unit == "sessions":
            heading = "Sessions (one patient, one day)" if size == "wide" or not volume.unplaced else "Sessions"
            heading += f": {number(volume.sessions)} in the period"
            heading += f", {number(volume.unplaced)} that may be" if volume.unplaced else ""
        sheet.text(0, sheet.height + 12, heading, "soft", weight=600)
        sheet.height += 34
        began = steps[0].count + steps[0].lost
        full = began or 1
        before = began / full
        for step in steps:
            (_wide_step if size == "wide" else _narrow_step)(sheet, step, before, step.count / full)
            before = step.count / full
        sheet.height += 10
    told = "; ".join(
        f"{step.unit} {step.name} {number(step.count)}" + (f", lost {number(step.lost)}" if step.lost else "")
        for step in volume.funnel
    )
    return svg(sheet.drawn(), f"funnel-{size}", "From procedures read to sessions counted", f"{told}.")


def _wide_step(sheet: Sheet, step: FunnelStep, before: float, now: float) -> None:
    """One row of the funnel: name and number, bar with the loss as a shadow, loss and reasons; parts of a full bar."""
    left, full, top = 200, 270, sheet.height
    final = step.name == _LAST_STEP
    sheet.text(0, top + 8, sentence(step.name), "ink", px=12.5, weight=600 if final else 400)
    sheet.text(0, top + 25, number(step.count), "accent" if final else "ink", px=12.5, weight=600)
    sheet.bar(left, before * full, top + 5, 22, "ghost")
    sheet.bar(left, now * full, top + 5, 22, "accent" if final else "faint")
    if step.lost:
        sheet.text(left + full + 18, top + 8, number(-step.lost), "ink", px=12.5, weight=600)
        sheet.text(left + full + 18, top + 25, why_words(step.why), "soft", px=11)
    sheet.height += 48


def _narrow_step(sheet: Sheet, step: FunnelStep, before: float, now: float) -> None:
    """The same row for a telephone: words above and below the bar."""
    full, top = sheet.width, sheet.height
    final = step.name == _LAST_STEP
    sheet.text(0, top + 8, sentence(step.name), "ink", weight=600 if final else 400)
    sheet.text(full, top + 8, number(step.count), "accent" if final else "ink", weight=600, align="right")
    sheet.bar(0, before * full, top + 20, 12, "ghost")
    sheet.bar(0, now * full, top + 20, 12, "accent" if final else "faint")
    if step.lost:
        sheet.text(0, top + 44, f"{number(-step.lost)}: {why_words(step.why, 1)}", "soft", px=11)
    sheet.height += 66 if step.lost else 48


def _segments(volume: Volume) -> list[dict[str, Any]]:
    """The stacked pieces of every month, family by family from below."""
    sums: Counter[tuple[str, str]] = Counter()
    for month, row in volume.by_month_category.items():
        for category, tally in row.items():
            sums[month, family_of(category)] += tally.counted
    segments: list[dict[str, Any]] = []
    reached: Counter[str] = Counter()
    for family, (title, _) in FAMILIES.items():
        for (month, of), count in sums.items():
            if of == family and count:
                segments.append(
                    {"month": month, "family": title, "low": reached[month], "high": reached[month] + count}
                )
                reached[month] += count
    return segments


def _panels(funnel: Sequence[FunnelStep]) -> list[tuple[str, list[FunnelStep]]]:
    units = list(dict.fromkeys(step.unit for step in funnel))
    return [(unit, [step for step in funnel if step.unit == unit]) for unit in units]


def _line(volume: Volume, last: int, scale: float = 1.0) -> _Line:
    steps = [(0.0, 0)]
    steps += [(_day_number(volume.period, day) * scale, running) for day, running in volume.cumulative]
    if steps[-1][0] < last * scale:
        steps.append((last * scale, steps[-1][1]))
    return _Line(volume.period.label, tuple(steps))


def _day_number(period: Period, day: str) -> int:
    """Days gone at the end of ``day``; 0 is the morning of the first."""
    return (date.fromisoformat(day) - date.fromisoformat(period.start)).days + 1


def _free_place(lines: Sequence[_Line], threshold: int, days: int, pixels: float) -> float | None:
    """A day at which a label under the pace line touches none of the other lines, or None."""
    for part in (0.74, 0.62, 0.86, 0.5, 0.4):
        span = [part - 0.09, part - 0.045, part, part + 0.045, part + 0.09]
        gaps = [threshold * at - line.at(at * days) for at in span for line in lines]
        if all(gap * pixels > 26 or gap * pixels < -4 for gap in gaps):
            return part * days
    return None


def _end_labels(at: Any, now: _Line, before: _Line | None, days: int, unit: float, font: int) -> list[Any]:
    """Names and values at the ends of the lines, pushed apart where they would overlap; ``unit`` is one pixel."""
    (x, value) = now.steps[-1]
    height, gap = float(value), (font + 4) * unit
    layers = []
    if before:
        end = before.steps[-1][1]
        grey = float(end)
        if x == days and abs(height - grey) < gap:
            middle, up = (height + grey) / 2, 1 if height >= grey else -1
            height, grey = middle + up * gap / 2, middle - up * gap / 2
            lowest = min(height, grey, 0)
            height, grey = height - lowest, grey - lowest
        layers += words(at((days, grey)), f"{number(end)} in {before.name}", "soft", font, dx=8)
    return layers + words(at((x, height)), f"{number(value)} in {now.name}", "accent", font + 1, dx=9, weight=700)


def _month_axis(period: Period, size: Size, font: int) -> alt.Axis:
    months = period.months()
    every = max(1, math.ceil(len(months) / (12 if size == "wide" else 4)))
    starts = {max(0, _day_number(period, f"{month}-01") - 1): _month_label(month, "wide", False) for month in months}
    shown = {day: label for at, (day, label) in enumerate(starts.items()) if at % every == 0}
    return alt.Axis(
        values=list(shown), labelExpr=lookup({str(day): label for day, label in shown.items()}), grid=False,
        labelAlign="left", labelOffset=2, labelPadding=4, tickSize=6, tickColor=LIGHT["faint"], labelFontSize=font,
        domainColor=LIGHT["faint"], labelColor=LIGHT["soft"], labelFlush=False, labelOverlap=False,
    )  # fmt: skip


def _month_label(month: str, size: Size, with_year: bool) -> str:
    if month == UNKNOWN_MONTH:
        return "no month" if size == "wide" else "?"
    name = month_name(month)
    if size == "narrow":
        return name[0]
    return f"{name} {month[2:4]}" if with_year else name


def _month_words(month: str) -> str:
    return "month not known" if month == UNKNOWN_MONTH else f"{month_name(month)} {month[:4]}"


def _short_day(day: str) -> str:
    return f"{int(day[8:])} {month_name(day)}"
