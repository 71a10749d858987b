"""Classifying: our rate with the full tables beside decoding alone, and beside tables of ten times as many rows."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.files import decode_only, seconds
from benchmarks.generate import write_procedures
from io_fhir_adapter.classify.ruleset import Ruleset, SiteTable, load_ruleset
from io_fhir_adapter.engine.local import classify_files, count_files
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.volume.count import Period

__all__ = ["measure"]

_TIMES = 10
_SESSIONS = 20_000  # Procedures whose every session is decided, which costs more than counting
_YEAR = Period.year("2025")


def _longer(pattern: str, number: int) -> str:
    """A pattern that lies beside a shipped one, in the same part of the table, and matches no real code."""
    return f"{pattern.removesuffix('*')}Q{number}{'*' if pattern.endswith('*') else ''}"


def _write_tables(folder: Path) -> tuple[list[SiteTable], int]:
    """Site tables that make every table ten times as long, and how many rows they have with the shipped ones."""
    folder.mkdir(parents=True, exist_ok=True)
    tables, number = [], 0
    for path in sorted((shipped_path("mappings") / "codes").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        number += len(rows) * _TIMES
        target = folder / f"longer-{path.name}"
        with target.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            for copy in range(1, _TIMES):
                writer.writerows({**row, "code": _longer(row["code"], copy)} for row in rows)
        tables.append(SiteTable(path.stem, target))
    return tables, number


def _count(rules: Ruleset) -> Callable[[Path], Any]:
    return lambda path: count_files(find_inputs([str(path)]), rules, _YEAR)


def _classify(path: Path) -> int:
    with classify_files(find_inputs([str(path)]), load_ruleset()) as (_, decisions):
        return sum(1 for _ in decisions)


def measure(folder: Path, number: int, rounds: int = 5) -> dict[str, Any]:
    """All figures at ``number`` Procedures. Every round asks tables that nobody has asked before."""
    path = write_procedures(folder / f"procedures-{number}.ndjson", number)
    few = write_procedures(folder / f"procedures-{_SESSIONS}.ndjson", _SESSIONS)
    tables, rows = _write_tables(folder / "tables")
    seconds(_count(load_ruleset()), path)  # warm the file cache and the imports
    timings: dict[str, list[float]] = {"full": [], "longer": [], "decode": [], "sessions": []}
    for _ in range(rounds):  # in turn, so that a slow moment of the machine meets all of them
        timings["full"].append(seconds(_count(load_ruleset()), path))
        timings["longer"].append(seconds(_count(load_ruleset(site_tables=tables)), path))
        timings["decode"].append(seconds(decode_only, path))
        timings["sessions"].append(seconds(_classify, few))
    full, decode = statistics.median(timings["full"]), timings["decode"]
    return {
        "rows": rows // _TIMES,
        "rows_of_longer_tables": rows,
        "full_tables_per_second": round(number / full),
        "every_session_per_second": round(_SESSIONS / statistics.median(timings["sessions"])),
        "full_tables_to_decode_only": round(
            statistics.median(other / mine for mine, other in zip(timings["full"], decode, strict=True)), 3
        ),
        "time_with_ten_times_the_rows": round(
            statistics.median(longer / mine for mine, longer in zip(timings["full"], timings["longer"], strict=True)),
            3,
        ),
    }
