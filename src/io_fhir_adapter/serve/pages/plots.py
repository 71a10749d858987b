"""Where the lines and bars of the overview's charts lie; templates draw them, in the words of the page's language.

The nightly report draws with Vega-Lite, which takes a second to load and 50 MiB to keep; a page that is asked for at
any time is drawn with these few numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from io_fhir_adapter.look.scale import even_ticks
from io_fhir_adapter.look.theme import FAMILIES, family_of
from io_fhir_adapter.volume.count import UNKNOWN_MONTH, Volume

__all__ = ["Bar", "MonthPlot", "RunningPlot", "Size", "Tick", "month_plot", "months_by_family", "running_plot"]

Size = Literal["wide", "narrow"]
_Scale = Callable[[float], float]
_FRAMES: Final[dict[Size, tuple[int, int]]] = {"wide": (540, 260), "narrow": (340, 240)}
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 12, 22, 26


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis: its place in pixels and its number or ``YYYY-MM``."""

    at: float
    value: int
    month: str = ""


@dataclass(frozen=True, slots=True)
class RunningPlot:
    """The running count of a year: paths and points in pixels.

    Attributes:
        size: Which layout it is.
        width: Of the drawing.
        height: Of the drawing.
        left: Where the axis of values stands.
        right: Where the year ends.
        floor: Where the axis of time lies.
        values: Ticks of the axis of values.
        months: Ticks of the axis of time.
        threshold: Height of the threshold.
        area: Path under the line of the year.
        line: Path of the year.
        before: Path of the year before, empty where it is not drawn.
        end: Where the line of the year ends.
        aim: Where a straight line goes to by the year's end, None where the year is over.
    """

    size: Size
    width: int
    height: int
    left: float
    right: float
    floor: float
    values: tuple[Tick, ...]
    months: tuple[Tick, ...]
    threshold: float
    area: str
    line: str
    before: str
    end: tuple[float, float]
    aim: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a month's bar in pixels: family, left, top, width and height."""

    family: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class MonthPlot:
    """The counted sessions by month, stacked by family; ``months`` are ticks with the month's sum, at the bars' tops.

    The other attributes are as those of :class:`RunningPlot`.
    """

    size: Size
    width: int
    height: int
    left: float
    right: float
    floor: float
    values: tuple[Tick, ...]
    months: tuple[tuple[Tick, float], ...]
    bars: tuple[Bar, ...]


def running_plot(
    volume: Volume, before: Volume | None, today: date, projected: int | None, size: Size = "wide"
) -> RunningPlot:
    """The running count against the threshold.

    Args:
        volume: The year.
        before: The year before it.
        today: The line ends there where it lies in the year.
        projected: What a straight line comes to by the year's end, None where the year is over.
        size: Layout.
    """
    period = volume.period
    width, height = _FRAMES[size]
    right, floor = float(width - _RIGHT), float(height - _BOTTOM)
    highest = max(volume.threshold * 1.08, volume.counted, before.counted if before else 0, projected or 0)
    ticks = even_ticks(highest)

    def across(part: float) -> float:
        return round(_LEFT + part * (right - _LEFT), 1)

    def up(value: float) -> float:
        return round(floor - value / ticks[-1] * (floor - _TOP), 1)

    gone = (min(today, date.fromisoformat(period.end)) - date.fromisoformat(period.start)).days + 1
    line, end = _steps(volume, gone / period.days, across, up)
    return RunningPlot(
        size=size,
        width=width,
        height=height,
        left=_LEFT,
        right=right,
        floor=floor,
        values=tuple(Tick(up(value), value) for value in ticks),
        months=tuple(
            Tick(across(_part(volume, f"{month}-01", whole=False)), 0, month)
            for place, month in enumerate(period.months())
            if size == "wide" or place % 3 == 0
        ),
        threshold=up(volume.threshold),
        area=f"{line}V{floor}H{_LEFT}Z",
        line=line,
        before=_steps(before, 1.0, across, up)[0] if before is not None else "",
        end=end,
        aim=(across(1.0), up(projected)) if projected is not None else None,
    )


def _steps(volume: Volume, until: float, across: _Scale, up: _Scale) -> tuple[str, tuple[float, float]]:
    """A path of steps, and where it ends; what lies after ``until``, a part of the year, is left out."""
    path, value = [f"M{across(0.0)} {up(0)}"], 0
    for day, running in volume.cumulative:
        part = _part(volume, day)
        if part <= until:
            path.append(f"H{across(part)}V{up(running)}")
            value = running
    end = (across(until), up(value))
    return "".join((*path, f"H{end[0]}")), end


def _part(volume: Volume, day: str, *, whole: bool = True) -> float:
    """How much of the year is gone at the end of a day, at its beginning where it is not whole."""
    gone = (date.fromisoformat(day) - date.fromisoformat(volume.period.start)).days + whole
    return gone / volume.period.days


def months_by_family(volume: Volume) -> dict[str, Counter[str]]:
    """Month to family to counted sessions, every month of the year; a month that is not known only where needed."""
    found: dict[str, Counter[str]] = {month: Counter() for month in volume.period.months()}
    for month, row in volume.by_month_category.items():
        for category, tally in row.items():
            if tally.counted:
                found.setdefault(month, Counter())[family_of(category)] += tally.counted
    return {month: found[month] for month in sorted(found, key=lambda month: (month == UNKNOWN_MONTH, month))}


def month_plot(volume: Volume, size: Size = "wide") -> MonthPlot:
    """Counted sessions by month and family."""
    width, height = _FRAMES[size]
    right, floor = float(width - _RIGHT), float(height - _BOTTOM)
    rows = months_by_family(volume)
    ticks = even_ticks(max((row.total() for row in rows.values()), default=0) * 1.08)
    step = (right - _LEFT) / len(rows)
    thick = round(step * 0.68, 1)
    unit = (floor - _TOP) / ticks[-1]
    bars, months = [], []
    for place, (month, row) in enumerate(rows.items()):
        x, reached = round(_LEFT + step * place + (step - thick) / 2, 1), 0
        for family in FAMILIES:
            if row[family]:
                reached += row[family]
                bars.append(Bar(family, x, round(floor - reached * unit, 1), thick, round(row[family] * unit, 1)))
        top = round(floor - reached * unit, 1)
        months.append((Tick(round(x + thick / 2, 1), reached, month), top))
    return MonthPlot(
        size,
        width,
        height,
        _LEFT,
        right,
        floor,
        tuple(Tick(round(floor - value * unit, 1), value) for value in ticks),
        tuple(months),
        tuple(bars),
    )
