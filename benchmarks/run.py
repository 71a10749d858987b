"""Runs the benchmarks and writes one result file and one page: ``python -m benchmarks.run [--full]``.

Absolute rates belong to the machine and the moment; the ratios are what is held against the bounds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import classify, deidentify, files, operate, pull, receive, scale
from benchmarks.results import FOLDER, record, verdicts

__all__ = ["main"]

_SHORT, _FULL = 200_000, 1_000_000
_FEW, _RESOURCES, _SUBMISSIONS = 50_000, 20_000, 20


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 where every bound holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{_FULL:,} Procedures instead of {_SHORT:,}")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for inputs")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder for the result file and the page")
    options = parser.parse_args(arguments)
    out, full = options.out, options.full
    figures: dict[str, Any] = {}

    def take(section: str, found: dict[str, Any], rows: list[dict[str, Any]] | None = None) -> None:
        record(section, found, rows or [], options.results)
        figures.update(found)

    take("files", files.measure(out, _FULL if full else _SHORT))
    take("classify", classify.measure(out, _SHORT))
    take("scale", *scale.measure(out, [_SHORT // 2, _FULL] if full else [_SHORT // 2, _SHORT], rounds=3 if full else 1))
    take("deidentify", deidentify.measure(out, _RESOURCES))
    take("pull", pull.measure(out, _SHORT if full else _FEW, rounds=3 if full else 1))
    take("receive", receive.measure(out, _SUBMISSIONS))
    take("operate", operate.measure(out, _FULL if full else _FEW, rounds=3 if full else 1))
    for name, value in figures.items():
        sys.stdout.write(f"{name:<34} {value if isinstance(value, str) else format(value, ','):>14}\n")
    found = verdicts(figures)
    sys.stdout.write("\n")
    for one in found:
        sys.stdout.write(f"{one.name:<34} {one.value:>8} {one.bound:<16} {'holds' if one.holds else 'MISSED'}\n")
    return 0 if all(one.holds for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
