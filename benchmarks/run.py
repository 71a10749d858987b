"""Runs the benchmarks and writes one result file: ``python -m benchmarks.run [--full]``.

Absolute rates belong to the machine and the moment; the ratios are what is held against the bounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import classify, deidentify, files, pull, receive

__all__ = ["main"]

_SHORT, _FULL = 200_000, 1_000_000
_FEW, _RESOURCES, _SUBMISSIONS = 50_000, 20_000, 20
_BOUNDS: dict[str, tuple[float, bool]] = {  # figure: (bound, whether more is better)
    "rate_to_decode_only": (0.5, True),
    "rate_to_duckdb_2_threads": (0.5, True),
    "rate_to_fhir_resources": (30.0, True),
    "memory_growth": (1.2, False),
    "deidentify_per_second": (25_000, True),
    "search_to_best_search_peer": (1.0, True),
    "bulk_to_smart_fetch": (1.0, True),
    "ours_pull_per_second": (25_000, True),
    "bulk_pull_per_second": (50_000, True),
    "slow_server_8_slices_per_second": (12_000, True),
    "pull_peak_mib": (150, False),
    "quiet_night_seconds": (2, False),
    "quiet_night_requests": (20, False),
    "full_tables_to_decode_only": (0.5, True),
    "time_with_ten_times_the_rows": (1.1, False),
}


def _verdicts(figures: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    rows = []
    for name, (bound, more) in _BOUNDS.items():
        if name not in figures:  # what it is held against could not be installed here
            continue
        value = float(figures[name])
        rows.append(
            (name, value, f"{'at least' if more else 'at most'} {bound}", value >= bound if more else value <= bound)
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 where every bound holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{_FULL:,} Procedures instead of {_SHORT:,}")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for inputs and results")
    options = parser.parse_args(arguments)
    figures = files.measure(options.out, _FULL if options.full else _SHORT)
    figures |= classify.measure(options.out, _SHORT)
    figures |= deidentify.measure(options.out, _RESOURCES)
    figures |= pull.measure(options.out, _SHORT if options.full else _FEW, rounds=3 if options.full else 1)
    figures |= receive.measure(options.out, _SUBMISSIONS)
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "figures": figures,
    }
    (options.out / "results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        sys.stdout.write(f"{name:<30} {value if isinstance(value, str) else format(value, ','):>14}\n")
    rows = _verdicts(figures)
    sys.stdout.write("\n")
    for name, value, bound, holds in rows:
        sys.stdout.write(f"{name:<30} {value:>8} {bound:<16} {'holds' if holds else 'MISSED'}\n")
    return 0 if all(holds for *_, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
