"""Volumes as pictures: where each piece of a bar lies. The template draws them; colours are the style sheet's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from io_fhir_adapter.look.scale import even_ticks
from io_fhir_adapter.look.theme import FAMILIES, families_present, family_of
from io_fhir_adapter.receiver.reading import Volume

__all__ = ["Bar", "Piece", "YearsChart", "years_chart"]

_LEFT: Final = 38
_RIGHT: Final = 8
_TOP: Final = 24
_HEIGHT: Final = 190
_STEP: Final = 76
_THICK: Final = 40
_NARROWEST: Final = 340


@dataclass(frozen=True)
class Piece:
    """A part of a bar: its kind (a family of categories, or ``review``), where it lies, how many sessions it is."""

    kind: str
    top: float
    height: float
    count: int


@dataclass(frozen=True)
class Bar:
    """One period.

    Attributes:
        label: The year.
        left: Left edge.
        pieces: From below.
        counted: Sessions that count.
        review: Sessions that may be added.
        top: Upper edge of the whole bar.
    """

    label: str
    left: float
    pieces: tuple[Piece, ...]
    counted: int
    review: int
    top: float


@dataclass(frozen=True)
class YearsChart:
    """Bars side by side, in pixels from the top left corner.

    Attributes:
        width: Width of the drawing.
        bottom: Where zero lies.
        bars: From left to right.
        ticks: Value and height of each line across.
        line: Height of the threshold, None where there is none.
        threshold: Its value.
        families: Families that have a piece, each with its title.
    """

    width: int
    bottom: float
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[int, float], ...]
    line: float | None
    threshold: int | None
    families: tuple[tuple[str, str], ...]
    left: int = _LEFT
    right: int = _RIGHT
    thick: int = _THICK


def years_chart(columns: Sequence[tuple[str, Volume]], threshold: int | None) -> YearsChart:
    """The counted sessions of each period by family, with those for review on top.

    Args:
        columns: Label and volume of each period, from left to right.
        threshold: What the programme asks for, None where that is not known.
    """
    tops = [volume.total.counted + volume.total.review for _, volume in columns]
    ticks = even_ticks(max([*tops, round(1.08 * (threshold or 0))]))
    bottom = _TOP + _HEIGHT

    def height(count: float) -> float:
        return round(_HEIGHT * count / ticks[-1], 2)

    width = max(_NARROWEST, _LEFT + _RIGHT + _STEP * len(columns))
    step = (width - _LEFT - _RIGHT) / max(1, len(columns))
    bars = []
    for index, (label, volume) in enumerate(columns):
        base, pieces = 0, []
        for kind, count in _pieces(volume):
            pieces.append(Piece(kind, bottom - height(base + count), height(count), count))
            base += count
        left = round(_LEFT + step * index + (step - _THICK) / 2, 2)
        total = volume.total
        bars.append(Bar(label, left, tuple(pieces), total.counted, total.review, bottom - height(base)))
    present = families_present(code for _, volume in columns for code, t in volume.by_category.items() if t.counted)
    return YearsChart(
        width=width,
        bottom=bottom,
        bars=tuple(bars),
        ticks=tuple((tick, bottom - height(tick)) for tick in ticks),
        line=bottom - height(threshold) if threshold else None,
        threshold=threshold,
        families=tuple((family, FAMILIES[family][0]) for family in present),
    )


def _pieces(volume: Volume) -> list[tuple[str, int]]:
    sums = dict.fromkeys(FAMILIES, 0)
    for code, tally in volume.by_category.items():
        sums[family_of(code)] += tally.counted
    # what the strata do not tell apart is counted all the same
    sums["other"] += max(0, volume.total.counted - sum(sums.values()))
    return [(kind, count) for kind, count in [*sums.items(), ("review", volume.total.review)] if count]
