"""Files: our classify-and-count beside decoding alone, DuckDB and fhir.resources, and our memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import msgspec
from fhir.resources.R4B.procedure import Procedure as FhirProcedure

from benchmarks.generate import write_procedures
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.engine.local import count_files
from io_fhir_adapter.fhir.structs import Procedure, ProcedureGlance
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.volume.count import Period

__all__ = ["decode_only", "measure", "seconds"]

_BLOCK = 1 << 18
_FHIR_RESOURCES_SAMPLE = 2_000
_TYPES = (
    "{resourceType: 'VARCHAR', id: 'VARCHAR', status: 'VARCHAR', performedDateTime: 'VARCHAR', "
    "subject: 'STRUCT(reference VARCHAR)', "
    "code: 'STRUCT(coding STRUCT(\"system\" VARCHAR, code VARCHAR)[])'}"
)


_RULES = load_ruleset()


def _ours(path: Path) -> int:
    return count_files(find_inputs([str(path)]), _RULES, Period.year("2025")).scan.procedures_read


def decode_only(path: Path) -> int:
    """The struct that decisions are made from, decoded from the same file in the same blocks, and nothing done."""
    return _decoded(path, msgspec.json.Decoder(Procedure))


def _glance_only(path: Path) -> int:
    """The same with the struct that most Procedures are decoded into: the floor of what we could reach."""
    return _decoded(path, msgspec.json.Decoder(ProcedureGlance))


def _decoded(path: Path, decoder: msgspec.json.Decoder[Any]) -> int:
    number, pending = 0, b""
    with path.open("rb") as handle:
        while data := handle.read(_BLOCK):
            joined = pending + data
            cut = joined.rfind(b"\n") + 1
            number += len(decoder.decode_lines(joined[:cut]))
            pending = joined[cut:]
    return number


def _duckdb(path: Path) -> int:
    connection = duckdb.connect(config={"threads": 2})
    query = (
        f"SELECT code.coding[1].system, code.coding[1].code, count(*) FROM read_ndjson('{path}', columns = {_TYPES}) "  # noqa: S608
        "WHERE status = 'completed' AND performedDateTime[1:4] = '2025' GROUP BY ALL"
    )
    return len(connection.execute(query).fetchall())


def _fhir_resources(path: Path) -> float:
    """Resources a second of fhir.resources on the first lines of the file."""
    with path.open(encoding="utf-8") as handle:
        lines = list(islice(handle, _FHIR_RESOURCES_SAMPLE))
    began = time.perf_counter()
    for line in lines:
        FhirProcedure.model_validate_json(line)
    return len(lines) / (time.perf_counter() - began)


def seconds(work: Callable[[Path], Any], path: Path) -> float:
    """How long a piece of work on a file takes."""
    began = time.perf_counter()
    work(path)
    return time.perf_counter() - began


_COUNT_ALONE = """
import resource, sys
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.engine.local import count_files
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.volume.count import Period
count_files(find_inputs([sys.argv[1]]), load_ruleset(), Period.year("2025"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak_mib(path: Path) -> float:
    """Peak resident memory of a fresh process that counts the file and has loaded nothing else."""
    command = [sys.executable, "-c", _COUNT_ALONE, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def measure(folder: Path, number: int, rounds: int = 3) -> dict[str, Any]:
    """All figures at ``number`` Procedures; memory at a tenth of it and at all of it."""
    path = write_procedures(folder / f"procedures-{number}.ndjson", number)
    tenth = write_procedures(folder / f"procedures-{number // 10}.ndjson", number // 10)
    _ours(tenth)  # warm the file cache and the imports
    timings: dict[str, list[float]] = {"ours": [], "decode": [], "glance": [], "duckdb": []}
    for _ in range(rounds):  # in turn, so that a slow moment of the machine meets all of them
        timings["ours"].append(seconds(_ours, path))
        timings["decode"].append(seconds(decode_only, path))
        timings["glance"].append(seconds(_glance_only, path))
        timings["duckdb"].append(seconds(_duckdb, path))
    pairs = list(zip(*timings.values(), strict=True))
    ours = statistics.median(timings["ours"])
    small, large = _peak_mib(tenth), _peak_mib(path)
    return {
        "procedures": number,
        "megabytes": round(path.stat().st_size / 1e6),
        "ours_per_second": round(number / ours),
        "decode_only_per_second": round(number / statistics.median(timings["decode"])),
        "duckdb_2_threads_per_second": round(number / statistics.median(timings["duckdb"])),
        "rate_to_decode_only": round(statistics.median(decode / mine for mine, decode, _, _ in pairs), 3),
        "rate_to_glance_only": round(statistics.median(glance / mine for mine, _, glance, _ in pairs), 3),
        "duckdb_version": duckdb.__version__,
        "rate_to_duckdb_2_threads": round(statistics.median(duck / mine for mine, _, _, duck in pairs), 3),
        "rate_to_fhir_resources": round(number / ours / _fhir_resources(path), 1),
        "peak_mib_tenth": round(small, 1),
        "peak_mib": round(large, 1),
        "memory_growth": round(large / small, 3),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2])), indent=2) + "\n")
