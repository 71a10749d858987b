"""Small drawing helpers over Vega-Lite, shared by the charts."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import altair as alt
import vl_convert

from io_fhir_adapter.look.scale import even_ticks
from io_fhir_adapter.look.theme import FONT, LIGHT

__all__ = ["CHARACTER", "Sheet", "even_ticks", "lookup", "marks", "svg", "to_png", "value_axis", "words"]

CHARACTER = 0.56
"""Mean width of a character, in parts of the type size."""


class Sheet:
    """Bars and words placed by pixel, from the top left corner.

    Args:
        width: Width in pixels; ``height`` grows as the caller adds rows.
    """

    def __init__(self, width: float) -> None:
        self.width = width
        self.height = 0.0
        self._bars: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []

    def bar(self, left: float, length: float, top: float, thick: float, colour: str) -> None:
        """A horizontal bar; one too short to be seen is drawn as a hairline, none at length 0."""
        if length > 0:
            ends = {"x": left, "x2": left + max(length, 1.5), "y": top, "y2": top + thick}
            self._bars.append(ends | {"colour": LIGHT[colour]})

    def text(
        self, x: float, y: float, text: str, colour: str, *, px: float = 12, weight: int = 400, align: str = "left"
    ) -> None:
        """One line of words, centred on ``y``."""
        style = {"fontSize": px, "fontWeight": weight, "align": align}
        self._texts.append({"x": x, "y": y, "text": text, "colour": LIGHT[colour], "style": style})

    def drawn(self) -> Any:
        """The sheet as a chart."""
        x = alt.X("x:Q").scale(domain=[0, self.width], nice=False).axis(None)
        y = alt.Y("y:Q").scale(domain=[self.height, 0], nice=False).axis(None)
        colour = alt.Color("colour:N").scale(None)
        layers = [marks(self._bars).mark_rect(opacity=1).encode(x=x, x2="x2:Q", y=y, y2="y2:Q", color=colour)]
        for _, alike in groupby(sorted(self._texts, key=_style_key), key=_style_key):
            rows = list(alike)
            text = marks(rows).mark_text(baseline="middle", **rows[0]["style"])
            layers.append(text.encode(x=x, y=y, color=colour, text="text:N"))
        return alt.layer(*layers).properties(width=self.width, height=self.height)


def _style_key(text: Mapping[str, Any]) -> str:
    return str(text["style"])


def marks(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A chart of these rows, still without a mark."""
    return alt.Chart(alt.Data(values=list(rows)))  # type: ignore[no-untyped-call]


def words(
    at: Any, text: str, colour: str, px: float, *, dx: float = 0, dy: float = 0, angle: float = 0,
    align: str = "left", weight: int = 400, halo: bool = True,
) -> list[Any]:  # fmt: skip
    """A label as layers, with a halo of the surface colour where it may lie on lines."""
    label = at.encode(text=alt.value(text))
    style: dict[str, Any] = {
        "align": align, "baseline": "middle", "fontSize": px, "fontWeight": weight,
        "dx": dx, "dy": dy, "angle": angle % 360,
    }  # fmt: skip
    surface = LIGHT["surface"]
    under = label.mark_text(**style, color=surface, stroke=surface, strokeWidth=4, strokeJoin="round")
    return [*([under] if halo else []), label.mark_text(**style, color=LIGHT[colour])]


def value_axis(ticks: list[int], font: int) -> alt.Axis:
    """A quiet axis of numbers with hairlines across."""
    return alt.Axis(
        values=ticks, domain=False, ticks=False, gridColor=LIGHT["line"], gridWidth=1, labelColor=LIGHT["soft"],
        labelFontSize=font, labelPadding=8, format=",d",
    )  # fmt: skip


def lookup(labels: Mapping[str, str]) -> str:
    """A Vega expression that turns an axis value into its label."""
    pairs = ", ".join(f"'{value}': '{label}'" for value, label in labels.items())
    return f"({{{pairs}}})[datum.value]"


def svg(chart: Any, name: str, title: str, description: str) -> str:
    """The chart as SVG, named and described for those who do not see it; ``name`` must be unique on a page."""
    spec = (
        chart.configure(font=FONT, background=LIGHT["surface"], padding=4, aria=False)
        .configure_view(stroke=None, clip=False)
        .to_dict(validate=False)  # against the schema takes longer than to draw; a test does
    )
    drawn: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    label = (
        f'role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    return re.sub(r"(<svg\b[^>]*)>", lambda opening: f"{opening[1]} {label}", drawn, count=1)


def to_png(drawing: str, scale: float = 2.0) -> bytes:
    """An SVG as PNG, for places that show no SVG."""
    png: bytes = vl_convert.svg_to_png(drawing, scale=scale)
    return png
