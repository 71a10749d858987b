"""The measured curve in the manual: ``python -m benchmarks.curve``, after ``python -m benchmarks.scale``.

Draws ``docs/images/scaling.svg`` from the result file, and writes the numbers behind it into ``docs/scaling.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.results import FOLDER, curves
from io_fhir_adapter.look.theme import DARK, css_variables, dark_chart_css

__all__ = ["main", "with_table", "write_curve"]

_BEGIN: Final = "<!-- what was measured, written by benchmarks.curve -->"
_END: Final = "<!-- the end of what was measured -->"
_TITLE: Final = "Seconds by number of Procedures and engine"
_STYLE: Final = f"""<style>@media (prefers-color-scheme: dark) {{
svg {{ {css_variables(DARK)} }}
{dark_chart_css("svg")}
}}</style>"""


def write_curve(results: Path, docs: Path) -> None:
    """Writes the drawing and the table of the last measurements into the manual."""
    section = json.loads(results.read_text(encoding="utf-8"))["sections"]["scale"]
    rows: list[dict[str, Any]] = section["rows"]
    engines = list(dict.fromkeys(str(row["engine"]) for row in rows))
    drawn = curves(rows, engines, "seconds", _TITLE)
    opening, desc, rest = drawn.partition("</desc>")
    (docs / "images" / "scaling.svg").write_text(f"{opening}{desc}{_STYLE}{rest}\n", encoding="utf-8")
    page = docs / "scaling.md"
    told = (
        f"Measured on {section['machine']}, Python {section['python']}, synthetic Procedures of 1.2 kB each. Seconds:"
    )
    page.write_text(with_table(page.read_text(encoding="utf-8"), told, rows, engines), encoding="utf-8")


def with_table(page: str, told: str, rows: Sequence[Mapping[str, Any]], engines: Sequence[str]) -> str:
    """The page with a sentence and the table of seconds by engine and size where its marks are."""
    sizes = sorted({row["procedures"] for row in rows})
    taken = {(row["engine"], row["procedures"]): row["seconds"] for row in rows}
    lines = [
        f"| engine | {' | '.join(f'{size:,}' for size in sizes)} |",
        f"| --- |{' ---: |' * len(sizes)}",
        *(f"| {one} | {' | '.join(_shown(taken.get((one, size))) for size in sizes)} |" for one in engines),
    ]
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return "\n".join([before + _BEGIN, told, "", *lines, _END + after])


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f}"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the result file")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the manual")
    options = parser.parse_args(arguments)
    write_curve(options.results / "results.json", options.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
