"""How pages and reports look: colours, type, families of categories.

Charts are drawn in the light colours. A page that inlines them turns them dark with `dark_chart_css`, which
rewrites fills and strokes by their light value: so each colour of a chart must be one of `LIGHT` and no two names may
share a value.

The family colours are adapted from the Okabe-Ito set, which people with any common colour blindness can tell apart;
neighbours in a stack also differ in lightness and are parted by a line of the surface colour.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "CHART_CSS",
    "DARK",
    "FAMILIES",
    "FONT",
    "LIGHT",
    "css_variables",
    "dark_chart_css",
    "families_present",
    "family_of",
]

FONT = "-apple-system, 'Segoe UI', Inter, 'Helvetica Neue', Arial, sans-serif"

LIGHT = {
    "surface": "#ffffff",
    "ink": "#16212e",
    "soft": "#56636f",
    "faint": "#8b96a1",
    "line": "#dfe4e9",
    "ghost": "#e9edf1",
    "accent": "#0b5c8a",
    "wash": "#e3eff6",
    "review": "#c98a1b",
    "ablation": "#0a659c",
    "chemoembolisation": "#e69f1a",
    "radioembolisation": "#6cbde8",
    "vascular": "#0b8f6c",
    "musculoskeletal": "#cf5b17",
    "pain": "#c982b0",
    "other": "#9aa3ac",
}

DARK = {
    "surface": "#141b23",
    "ink": "#eef2f5",
    "soft": "#a9b5c0",
    "faint": "#788591",
    "line": "#2d3843",
    "ghost": "#26303a",
    "accent": "#62b5e5",
    "wash": "#1b3344",
    "review": "#e3b04f",
    "ablation": "#3d94cc",
    "chemoembolisation": "#efb547",
    "radioembolisation": "#a5d8f3",
    "vascular": "#2fb38f",
    "musculoskeletal": "#e37d41",
    "pain": "#dba3c8",
    "other": "#8a949e",
}

FAMILIES: dict[str, tuple[str, frozenset[str]]] = {
    "ablation": (
        "Ablation",
        frozenset(f"ablation-{kind}" for kind in ("rfa", "mwa", "cryo", "ire", "laser", "hifu", "chemical", "other")),
    ),
    "chemoembolisation": ("Chemoembolisation", frozenset({"tace", "deb-tace"})),
    "radioembolisation": ("Radioembolisation", frozenset({"tare"})),
    "vascular": ("Other vascular", frozenset({"bland-embolisation", "pve", "ia-chemo", "venous-stent"})),
    "musculoskeletal": ("Musculoskeletal", frozenset({"cementoplasty"})),
    "pain": ("Pain", frozenset({"neurolysis"})),
    "other": ("Other therapeutic", frozenset()),
}
"""Family to title and categories, in the order of a stack from below; ``other`` takes every category not named.

They follow the groups in which the IASIOS FAQ names what counts; which category belongs to which is our reading.
"""


def family_of(category: str) -> str:
    """The family of a category."""
    return next((family for family, (_, members) in FAMILIES.items() if category in members), "other")


def families_present(categories: Iterable[str]) -> list[str]:
    """The families of these categories, in stack order."""
    present = {family_of(category) for category in categories}
    return [family for family in FAMILIES if family in present]


def css_variables(colours: dict[str, str]) -> str:
    """The colours as CSS custom properties, ``--ink: …;``."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def dark_chart_css(scope: str) -> str:
    """CSS rules that turn an inlined chart dark; ``scope`` is the selector of its container."""
    return "\n".join(
        f'{scope} [{what}="{value}"] {{ {what}: var(--{name}); }}'
        for name, value in LIGHT.items()
        for what in ("fill", "stroke")
    )


CHART_CSS = f"""/* Charts that stand in a page: they fit its width, and are dark where it is. */
.chart {{ {css_variables({kind: LIGHT[kind] for kind in FAMILIES})} }}
.chart svg {{ display: block; width: 100%; height: auto; }}
{" ".join(f".k-{kind} {{ fill: var(--{kind}); background: var(--{kind}); }}" for kind in FAMILIES)}
@media screen and (prefers-color-scheme: dark) {{
.chart {{ {css_variables(DARK)} }}
{dark_chart_css(".chart")}
}}
"""
"""The style sheet of pages that inline charts in an element of the class ``chart``. ``k-…`` is a family's colour."""
