"""Counting by size and engine: ``python -m benchmarks.scale --sizes 100000 1000000 [--engines ...] [--rounds 3 1]``.

The same count with one process, two, and what else there is, beside decoding alone; each in a process of its own, in
turn, so that a slow moment of the machine meets all of them. Where other work runs on the machine at the same time,
the ratios by CPU time say more than those by the clock. Sizes that take long can be measured apart, with ``--add``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.generate import write_procedures
from benchmarks.results import FOLDER, Measured, Unavailable, record, verdicts

__all__ = ["engines", "main", "measure"]

Engine = Callable[[Path], Measured]

_ONE, _TWO, _DECODE, _SPARK_ONE = "1 process", "2 processes", "decoding alone", "Spark local[1]"
_SIZES = (100_000, 1_000_000)
_KEPT = 1_000_000
_COUNTING = (_ONE, _TWO, _SPARK_ONE, "Spark local[2]")  # which say how many distinct Procedures there were
_SPARK = "benchmarks.scale_spark"
_MEASURED = """
import json, resource, sys, time
from pathlib import Path
from benchmarks.files import decode_only
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.engine.local import count_files
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.volume.count import Period
path, workers = Path(sys.argv[1]), int(sys.argv[2])
rules, year = load_ruleset(), Period.year("2025")
def spent():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both), max(one.ru_maxrss for one in both) / 1024
before, began = spent()[0], time.perf_counter()
if workers:
    seen = count_files(find_inputs([str(path)]), rules, year, workers=workers).scan.seen
    answer = seen.procedures + seen.outside + seen.undated
else:
    answer = decode_only(path)
seconds = time.perf_counter() - began
cpu, peak = spent()
print(json.dumps([seconds, cpu - before, peak, answer]))
"""


def _local(workers: int) -> Engine:
    def measured(path: Path) -> Measured:
        command = [sys.executable, "-c", _MEASURED, str(path), str(workers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return Measured(*json.loads(done.stdout))

    return measured


def engines() -> dict[str, Engine]:
    """What can be measured, by name."""
    found = {_DECODE: _local(0), _ONE: _local(1), _TWO: _local(2)}
    if importlib.util.find_spec(_SPARK) is not None:
        found |= importlib.import_module(_SPARK).ENGINES
    return found


def measure(
    folder: Path, sizes: Sequence[int], names: Sequence[str] = (), rounds: int | Sequence[int] = 3
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures, and a row for each engine and size.

    Args:
        folder: Where the input lies.
        sizes: Numbers of Procedures.
        names: Of engines; all where there are none.
        rounds: How often each is measured, for each size from the smallest on, of which the last holds for the rest;
            the medians are what counts.
    """
    times = [rounds] if isinstance(rounds, int) else list(rounds)
    chosen = {name: engine for name, engine in engines().items() if not names or name in names}
    rows, figures = [], dict[str, Any]()
    for number, size in enumerate(sorted(sizes)):
        path = write_procedures(folder / f"procedures-{size}.ndjson", size)
        taken: dict[str, list[Measured]] = {name: [] for name in chosen}
        for _ in range(times[min(number, len(times) - 1)]):
            for name in list(taken):
                try:
                    run = _checked(name, chosen[name](path), size)
                except Unavailable as reason:
                    figures[f"without {name}"] = str(reason)
                    del taken[name]
                else:
                    taken[name].append(run)
                    # told at once: the larger sizes take an hour, and whoever stops them keeps what was measured
                    sys.stderr.write(f"{size:,}  {name}: {run.seconds:,.2f} s, of CPU {run.cpu_seconds:,.2f} s\n")
        rows += [_row(name, size, runs) for name, runs in taken.items()]
        figures |= _ratios(taken)
        if size > _KEPT:
            path.unlink()  # it is quickly written again, and the disk may not hold several of them
    return figures | _growth(rows), rows


def _checked(name: str, run: Measured, size: int) -> Measured:
    """The run, of an engine that found every Procedure once."""
    if name in _COUNTING and run.answer != size:
        raise ValueError(f"{name} counted {run.answer} distinct Procedures of {size}")
    return run


def _earlier(folder: Path, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of the section as it stands, and its rows of other engines or sizes than these."""
    path = folder / "results.json"
    sections = json.loads(path.read_text(encoding="utf-8"))["sections"] if path.exists() else {}
    section = sections.get("scale", {"figures": {}, "rows": []})
    anew = {(row["engine"], row["procedures"]) for row in rows}
    return section["figures"], [row for row in section["rows"] if (row["engine"], row["procedures"]) not in anew]


def _growth(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How much more memory the largest size takes than the smallest one."""
    ours = [row["peak_mib"] for row in rows if row["engine"] == _TWO]
    return {"scale_memory_growth": round(ours[-1] / ours[0], 3)} if len(ours) > 1 else {}


def _row(name: str, size: int, runs: Sequence[Measured]) -> dict[str, Any]:
    seconds = statistics.median(run.seconds for run in runs)
    return {
        "engine": name,
        "procedures": size,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(statistics.median(run.cpu_seconds for run in runs), 2),
        "per_second": round(size / seconds),
        "peak_mib": round(max(run.peak_mib for run in runs), 1),
    }


def _ratios(taken: dict[str, list[Measured]]) -> dict[str, float]:
    """The ratios at one size, each the median over rounds, by the clock and by CPU time."""
    asked = {
        "two_processes_to_one": (_ONE, _TWO, 2),
        "scale_rate_to_decode_only": (_DECODE, _ONE, 1),
        "spark_overhead_per_core": (_SPARK_ONE, _ONE, 1),
    }
    figures: dict[str, float] = {}
    for figure, (above, below, cores) in asked.items():
        if not taken.get(above) or not taken.get(below):
            continue
        pairs = list(zip(taken[above], taken[below], strict=True))
        figures[figure] = round(statistics.median(one.seconds / other.seconds for one, other in pairs), 3)
        by_cpu = statistics.median(cores * one.cpu_seconds / other.cpu_seconds for one, other in pairs)
        figures[f"{figure}_by_cpu"] = round(by_cpu, 3)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 where every bound holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES), help="numbers of Procedures")
    parser.add_argument("--engines", nargs="+", default=[], help="names of engines; all where there are none")
    parser.add_argument(
        "--rounds", type=int, nargs="+", default=[3], help="how often each is measured, by size; the last for the rest"
    )
    parser.add_argument("--add", action="store_true", help="keep what was measured of other engines and sizes")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for inputs")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder for the result file and the page")
    options = parser.parse_args(arguments)
    figures, rows = measure(options.out, options.sizes, options.engines, options.rounds)
    if options.add:
        before, kept = _earlier(options.results, rows)
        rows = sorted([*kept, *rows], key=lambda row: int(row["procedures"]))
        figures = before | figures | _growth(rows)
    record("scale", figures, rows, options.results)
    for row in rows:
        sys.stdout.write("  ".join(f"{key} {value}" for key, value in row.items()) + "\n")
    for name, value in figures.items():
        sys.stdout.write(f"{name:<34} {value}\n")
    return 0 if all(verdict.holds for verdict in verdicts(figures)) else 1


if __name__ == "__main__":
    sys.exit(main())
