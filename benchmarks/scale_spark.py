"""What Spark and DuckDB take for the same input: our count on Spark, and a plain GROUP BY code with their own readers.

Each in a process of its own. Spark's session is started, and warmed on the first lines of the input, before the clock
starts: what is asked is what an executor's core costs on data that is large enough for Spark.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from benchmarks.results import Measured, Unavailable

__all__ = ["ENGINES"]

_WARM_LINES = 5_000
_COMMON = """
import json, os, sys, time
path, warm, cores = sys.argv[1:4]

def tree():
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = open(f"/proc/{name}/stat").read()
            except OSError:
                continue
            parents[int(name)] = int(text.rpartition(")")[2].split()[1])
    mine = {os.getpid()}
    while more := {one for one, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return mine

def spent():
    cpu = peak = 0.0
    for one in tree():
        try:
            fields = open(f"/proc/{one}/stat").read().rpartition(")")[2].split()
            status = open(f"/proc/{one}/status").read()
        except OSError:
            continue
        cpu += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        if "VmHWM:" in status:  # which a process that has ended has not
            peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) / 1024)
    return cpu, peak

def measured(work):
    before, began = spent()[0], time.perf_counter()
    answer = work(path)
    seconds = time.perf_counter() - began
    cpu, peak = spent()
    print(json.dumps([seconds, cpu - before, peak, answer]))
"""
_OURS = """
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.engine.spark.job import count_on_spark, decided_on_spark
from io_fhir_adapter.engine.spark.session import spark_session
from io_fhir_adapter.volume.count import Period
rules, year = load_ruleset(), Period.year("2025")
with spark_session(f"local[{cores}]", {}) as spark:
    def work(path):
        with decided_on_spark(spark, [path], rules, period=year, everything=False) as outcome:
            seen = count_on_spark(outcome, rules, year).scan.seen
            return seen.procedures + seen.outside + seen.undated
    work(warm)
    measured(work)
"""
_PLAIN = """
from io_fhir_adapter.engine.spark.session import spark_session
with spark_session(f"local[{cores}]", {}) as spark:
    schema = "status string, performedDateTime string, code struct<coding array<struct<system string, code string>>>"
    def work(path):
        read = spark.read.schema(schema).json(path)
        kept = read.where("status = 'completed' and substr(performedDateTime, 1, 4) = '2025'")
        return len(kept.groupBy("code.coding").count().collect())
    work(warm)
    measured(work)
"""
_DUCKDB = """
import duckdb
connection = duckdb.connect(config={"threads": int(cores)})
connection.execute("SET enable_progress_bar = false")
types = ("{status: 'VARCHAR', performedDateTime: 'VARCHAR', "
         "code: 'STRUCT(coding STRUCT(\\"system\\" VARCHAR, code VARCHAR)[])'}")
def work(path):
    query = (f"SELECT code.coding, count(*) FROM read_ndjson('{path}', columns = {types}) "
             "WHERE status = 'completed' AND performedDateTime[1:4] = '2025' GROUP BY ALL")
    return len(connection.execute(query).fetchall())
work(warm)
measured(work)
"""


def _run(program: str, cores: int, needed: str, path: Path) -> Measured:
    if importlib.util.find_spec(needed) is None:
        raise Unavailable(f"{needed} is not installed")
    if needed == "pyspark" and shutil.which("java") is None:
        raise Unavailable("there is no Java")
    warm = path.with_suffix(".head.ndjson")
    if not warm.exists():
        with path.open("rb") as handle:
            warm.write_bytes(b"".join(islice(handle, _WARM_LINES)))
    command = [sys.executable, "-c", _COMMON + program, str(path), str(warm), str(cores)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


ENGINES: dict[str, Callable[[Path], Measured]] = {
    "Spark local[1]": partial(_run, _OURS, 1, "pyspark"),
    "Spark local[2]": partial(_run, _OURS, 2, "pyspark"),
    "Spark local[2], its own JSON reader, GROUP BY code": partial(_run, _PLAIN, 2, "pyspark"),
    "DuckDB, 2 threads, GROUP BY code": partial(_run, _DUCKDB, 2, "duckdb"),
}
"""What is measured beside the local engine, by name."""
