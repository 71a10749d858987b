"""One result file and one page of all benchmarks: ``build/bench/results.json`` and ``index.html``.

Every benchmark writes its section; what another one wrote stays. Absolute rates belong to the machine and the moment;
the ratios are what is held against the bounds.
"""

from __future__ import annotations

import html
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import altair as alt

from io_fhir_adapter.look.drawing import Sheet, marks, svg
from io_fhir_adapter.look.theme import FONT, LIGHT

__all__ = ["FOLDER", "Measured", "Unavailable", "Verdict", "curves", "record", "verdicts"]

FOLDER = Path("build/bench")
_BOUNDS: dict[str, tuple[float, bool]] = {  # figure: (bound, whether more is better)
    "rate_to_decode_only": (0.5, True),
    "rate_to_duckdb_2_threads": (0.5, True),
    "rate_to_fhir_resources": (30.0, True),
    "memory_growth": (1.2, False),
    "two_processes_to_one": (1.7, True),
    "scale_rate_to_decode_only": (0.5, True),
    "scale_memory_growth": (1.2, False),
    "spark_overhead_per_core": (2.5, False),
    "deidentify_per_second": (25_000, True),
    "search_to_best_search_peer": (1.0, True),
    "bulk_to_smart_fetch": (1.0, True),
    "ours_pull_per_second": (25_000, True),
    "bulk_pull_per_second": (50_000, True),
    "slow_server_8_slices_per_second": (12_000, True),
    "pull_peak_mib": (150, False),
    "bulk_pull_peak_mib": (150, False),
    "quiet_night_seconds": (2, False),
    "quiet_night_requests": (20, False),
    "start_to_ready_s": (3, False),
    "idle_mib": (150, False),
    "idle_mib_after_a_night": (150, False),
    "idle_mib_after_pages": (150, False),
    "page_ms": (150, False),
    "full_tables_to_decode_only": (0.5, True),
    "time_with_ten_times_the_rows": (1.1, False),
}
_TITLES = {
    "files": "Counting files",
    "classify": "Classifying with long tables",
    "deidentify": "De-identifying",
    "pull": "Pulling from servers",
    "receive": "Receiving submissions",
    "operate": "Starting and serving",
    "scale": "Counting by size and engine",
}
_COLOURS = ("accent", "review", "vascular", "musculoskeletal", "radioembolisation", "pain", "other", "ink")


class Unavailable(Exception):  # noqa: N818 - nothing went wrong
    """What something is measured beside cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One piece of work on one file, done once.

    Attributes:
        seconds: By the clock.
        cpu_seconds: User and system time of all its processes.
        peak_mib: Resident memory of the largest of its processes, in MiB.
        answer: What came out: Procedures read, or groups found.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    answer: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure beside its bound."""

    name: str
    value: float
    bound: str
    holds: bool


def verdicts(figures: Mapping[str, Any]) -> list[Verdict]:
    """The figures that have a bound; what one is held against may not be had everywhere."""
    found = []
    for name, (bound, more) in _BOUNDS.items():
        if name in figures:
            value = float(figures[name])
            side = f"{'at least' if more else 'at most'} {bound:,}"
            found.append(Verdict(name, value, side, value >= bound if more else value <= bound))
    return found


def record(
    section: str, figures: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = (), folder: Path = FOLDER
) -> None:
    """Writes a section anew, into the result file and the page.

    Args:
        section: The benchmark.
        figures: Name to value.
        rows: Measurements to draw, with ``engine``, ``procedures``, ``per_second`` and ``peak_mib``.
        folder: Where both lie.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    sections = json.loads(path.read_text(encoding="utf-8"))["sections"] if path.exists() else {}
    sections[section] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "figures": dict(figures),
        "rows": [dict(row) for row in rows],
        "bounds": [asdict(verdict) for verdict in verdicts(figures)],
    }
    path.write_text(json.dumps({"sections": sections}, indent=2) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(_page(sections), encoding="utf-8")


def _page(sections: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for name, section in sections.items():
        title = _TITLES.get(name, name)
        parts.append(
            f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(section['when'])}, Python {section['python']}, "
            f"{html.escape(section['machine'])}</p>"
        )
        rates = {key: value for key, value in section["figures"].items() if key.endswith("_per_second")}
        if section["rows"]:
            parts += _scale(section["rows"])
        elif rates:
            parts.append(_figure(_bars(rates, f"rates-{name}", f"{title}: rates"), "A second"))
        parts.append(_table(("figure", "value"), section["figures"].items()))
        if section["bounds"]:
            parts.append(_table(("bounded figure", "value", "bound", ""), [
                (one["name"], one["value"], one["bound"], "holds" if one["holds"] else "MISSED")
                for one in section["bounds"]
            ]))  # fmt: skip
    return _FRAME.replace("{body}", "\n".join(parts))


_FRAME = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Benchmarks of io-fhir-adapter</title>
<style>
body {{ font: 15px/1.5 {FONT}; color: {LIGHT["ink"]}; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h2 {{ margin-top: 2.5rem; }} p {{ color: {LIGHT["soft"]}; }} figure {{ margin: 1rem 0; }}
figcaption {{ font-weight: 600; }}
svg {{ max-width: 100%; min-width: 36rem; height: auto; }} div, figure {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 1rem 0; }} th {{ text-align: left; }}
td, th {{ padding: .2rem 1rem .2rem 0; border-bottom: 1px solid {LIGHT["line"]}; }}
td, th {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
td:nth-child(n+2), th:nth-child(n+2) {{ text-align: right; }}
</style></head><body>
<h1>Benchmarks</h1>
<p>All data is synthetic. Rates belong to the machine and the moment; ratios are of timings of one run.</p>
{{body}}
</body></html>
"""


def _shown(value: Any) -> str:
    return html.escape(f"{value:,}" if isinstance(value, int | float) else str(value))


def _table(head: Sequence[str], rows: Any) -> str:
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<div><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>"


def _figure(drawing: str, caption: str) -> str:
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{drawing}</figure>"


def _bars(values: Mapping[str, float], name: str, title: str) -> str:
    """Bars of one unit, the longest first."""
    sheet = Sheet(720)
    most = max(values.values()) or 1
    for key, value in sorted(values.items(), key=lambda pair: -pair[1]):
        sheet.text(260, sheet.height + 10, key.removesuffix("_per_second").replace("_", " "), "ink", align="right")
        sheet.bar(270, value / most * 360, sheet.height + 3, 14, "accent")
        sheet.text(276 + value / most * 360, sheet.height + 10, f"{value:,.0f}", "soft")
        sheet.height += 24
    told = ", ".join(f"{key.replace('_', ' ')} {value:,.0f}" for key, value in values.items())
    return svg(sheet.drawn(), name, title, f"{told}.")


def _scale(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rate and memory by size, and the table of both."""
    engines = list(dict.fromkeys(str(row["engine"]) for row in rows))
    largest = max(row["procedures"] for row in rows)
    rates = {row["engine"]: row["per_second"] for row in rows if row["procedures"] == largest}
    head = ("engine", "Procedures", "seconds", "CPU seconds", "a second", "peak MiB")
    cells = [
        (row["engine"], row["procedures"], row["seconds"], row["cpu_seconds"], row["per_second"], row["peak_mib"])
        for row in rows
    ]
    at_largest, seconds, memory = (
        f"Procedures a second at {largest:,} Procedures",
        "Seconds by number of Procedures",
        "Memory of the largest process (MiB) by number of Procedures",
    )
    return [
        _figure(_bars(rates, "scale-rates", at_largest), at_largest),
        _figure(curves(rows, engines, "seconds", seconds), seconds),
        _figure(curves(rows, engines, "peak_mib", memory), memory),
        _table(head, cells),
    ]


def curves(rows: Sequence[Mapping[str, Any]], engines: Sequence[str], value: str, title: str) -> str:
    """A line for each engine over the number of Procedures; times on a logarithmic scale, memory from nothing on."""
    sizes = sorted({row["procedures"] for row in rows})
    quiet: dict[str, Any] = {
        "gridColor": LIGHT["line"],
        "labelColor": LIGHT["soft"],
        "labelFontSize": 12,
        "domain": False,
    }
    points = [{"x": row["procedures"], "y": row[value], "engine": row["engine"]} for row in rows]
    x = alt.X("x:Q").scale(type="log", domain=[sizes[0] * 0.9, sizes[-1] * 1.1], nice=False).title(None)
    y = alt.Y("y:Q").scale(type="log" if value == "seconds" else "linear").title(None)
    legend = alt.Legend(title=None, orient="top", columns=3, labelFontSize=12, labelLimit=0, labelColor=LIGHT["ink"])
    colours = [LIGHT[_COLOURS[number % len(_COLOURS)]] for number in range(len(engines))]
    at = marks(points).encode(
        x=x.axis(alt.Axis(values=sizes, format="~s", ticks=False, **quiet)),
        y=y.axis(alt.Axis(format=",.3~f", tickCount=5, ticks=False, **quiet)),
        color=alt.Color("engine:N").scale(domain=list(engines), range=colours).legend(legend),
    )
    chart = alt.layer(at.mark_line(strokeWidth=2), at.mark_point(filled=True, size=50, opacity=1))
    told = "; ".join(f"{row['engine']} at {row['procedures']:,}: {row[value]:,}" for row in rows)
    return svg(chart.properties(width=600, height=260), f"scale-{value}", title, f"{title}: {told}.")
