"""Pulling: our pull, with classification and ledger, beside other clients that only read, from one loopback server."""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["measure"]

_PEERS: Final = ("fhirpy", "fhir-pyrate", "smart-fetch")
_SEARCHING: Final = ("fhirpy_iterate", "fhirpy_fetch_all", "fhir_pyrate")
_OTHERS: Final = (*_SEARCHING, "smart_fetch", "smart_fetch_plain")  # which stores what it downloads, and no more
_SLOW_S: Final = 0.2

# A pull in a process of its own: what it read, how long it took, how much memory and how many requests it needed;
# then the same again, when nothing has changed.
_OURS = """
import asyncio, json, resource, subprocess, sys, time
from datetime import UTC, datetime
from pathlib import Path
from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.classify.ruleset import rules_for
from io_fhir_adapter.pull.sources import pull_sources

url, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
config = Config.model_validate({
    "facility": {"code": "BENCH", "time_zone": "Europe/Berlin"},
    "sources": [{"name": "bench", "kind": "fhir", "url": url, **settings}],
    "ledger": {"path": str(folder / "ledger.sqlite")}, "review": {"key_file": str(folder / "key")},
    "output": {"folder": str(folder)},
})
rules, ledger, nights = rules_for(config), open_ledger(config.ledger), []

def cpu_seconds():  # its helpers too
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime

together_kib = [0]

def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

class Measured(subprocess.Popen):  # what getrusage says of children begins with the size of whoever started them
    def kill(self):
        status = Path(f"/proc/{self.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        together_kib.extend(peak_kib() + int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        super().kill()

subprocess.Popen = Measured

def peak_mib():  # of this process, and of both for as long as there was a second one
    return max(peak_kib(), *together_kib) / 1024

for _ in range(2):
    with ledger.begin() as connection:
        run = start_run(connection, datetime.now(UTC))
    began, worked = time.perf_counter(), cpu_seconds()
    outcome = asyncio.run(pull_sources(config, ledger, rules, run, lambda *_: None))[0]
    if not outcome.complete:
        sys.exit(f"the pull is not complete: {outcome.error}")
    nights.append({
        "seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - worked,
        "requests": outcome.requests,
        "read": sum(kind.read for kind in outcome.types.values()),
        "procedures": outcome.of("Procedure").read,
        "peak_mib": peak_mib(),
    })
ledger.close()
print(json.dumps(nights))
"""

# The other clients: what they read, and how long it took from when all is imported, as with ours.
_FHIRPY = """
import asyncio, json, sys, time
from fhirpy import AsyncFHIRClient
async def main():
    began, worked = time.perf_counter(), time.process_time()
    client = AsyncFHIRClient(sys.argv[1])
    search = client.resources("Procedure").limit(500)
    if sys.argv[2] == "iterate":
        number = 0
        async for _ in search:
            number += 1
    else:
        number = len(await search.fetch_all())
    print(json.dumps([number, time.perf_counter() - began, time.process_time() - worked]))
asyncio.run(main())
"""

_PYRATE = """
import json, sys, time
from fhir_pyrate import Pirate
began, worked = time.perf_counter(), time.process_time()
pirate = Pirate(base_url=sys.argv[1], auth=None, num_processes=1)
bundles = pirate.steal_bundles("Procedure", {"_count": 500})
number = sum(len(bundle.entry) for bundle in bundles)
print(json.dumps([number, time.perf_counter() - began, time.process_time() - worked]))
"""


class Spent(NamedTuple):
    """Seconds by the clock, and of the processor's work: other work on the machine lengthens the first alone."""

    seconds: float
    cpu_s: float


@contextmanager
def _server(number: int, delay_s: float = 0.0) -> Iterator[str]:
    """The measuring server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fhir_server", str(number), str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _ours(url: str, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """The first pull and the one after it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", _OURS, url, str(folder), json.dumps(settings)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    nights: list[dict[str, Any]] = json.loads(done.stdout)
    return nights


def _peers(folder: Path) -> Path | None:
    """The Python of an environment with the other clients; None where they cannot be installed."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        if subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_PEERS], check=False).returncode:
            shutil.rmtree(folder)
            return None
    return python


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _timed(command: list[str]) -> Spent:
    """A command's time; its start and imports are part of it."""
    began, worked = time.perf_counter(), _cpu_of_children()
    subprocess.run(command, check=True, capture_output=True)
    return Spent(time.perf_counter() - began, _cpu_of_children() - worked)


def _peer(command: list[str], number: int) -> Spent:
    """Another client in a process of its own; what it read is checked."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    read, seconds, cpu_s = json.loads(done.stdout.strip().splitlines()[-1])
    assert read == number, f"{command[-2:]} read {read} of {number}"
    return Spent(seconds, cpu_s)


def _smart_fetch(python: Path, url: str, folder: Path, *more: str) -> Spent:
    """What it takes beyond its start; it downloads the same files, and compresses them unless told otherwise."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [str(python.with_name("smart-fetch")), "bulk", str(folder), "--fhir-url", url, "--type", "Procedure"]
    whole, start = _timed([*command, *more]), _timed([*command[:2], "--help"])
    return Spent(whole.seconds - start.seconds, whole.cpu_s - start.cpu_s)


def measure(folder: Path, number: int, rounds: int = 3) -> dict[str, Any]:
    """All figures at ``number`` Procedures; with a slow server and by Bulk Data too."""
    work = folder / "pull"
    peers = _peers(folder / "peers")
    names = ["ours", "bulk", *(_OTHERS if peers else ())]
    spent: dict[str, list[Spent]] = {name: [] for name in names}
    first: list[dict[str, Any]] = []
    with _server(number) as url:
        for _ in range(rounds):  # in turn, so that a slow moment of the machine meets all of them
            first = _ours(url, work)
            assert first[0]["procedures"] == number
            bulk = _ours(url, work, strategy="bulk")
            assert bulk[0]["procedures"] == number
            spent["ours"].append(Spent(first[0]["seconds"], first[0]["cpu_seconds"]))
            spent["bulk"].append(Spent(bulk[0]["seconds"], bulk[0]["cpu_seconds"]))
            if peers is not None:
                for way in ("iterate", "fetch_all"):
                    spent[f"fhirpy_{way}"].append(_peer([str(peers), "-c", _FHIRPY, url, way], number))
                spent["fhir_pyrate"].append(_peer([str(peers), "-c", _PYRATE, url], number))
                spent["smart_fetch"].append(_smart_fetch(peers, url, folder / "smart-fetch"))
                spent["smart_fetch_plain"].append(_smart_fetch(peers, url, folder / "smart-fetch", "--no-compression"))
    with _server(number, _SLOW_S) as url:
        slow = _ours(url, work, concurrency=8)[0]
    rates = {name: round(number / statistics.median(one.seconds for one in runs)) for name, runs in spent.items()}
    per_cpu = {name: round(number / statistics.median(one.cpu_s for one in runs)) for name, runs in spent.items()}
    figures: dict[str, Any] = {
        "pulled": number,
        **{f"{name}_pull_per_second": rate for name, rate in rates.items()},
        **{f"{name}_pull_per_cpu_second": rate for name, rate in per_cpu.items()},
        "slow_server_8_slices_per_second": round(slow["procedures"] / slow["seconds"]),
        "pull_peak_mib": round(first[0]["peak_mib"], 1),
        "bulk_pull_peak_mib": round(bulk[0]["peak_mib"], 1),
        "quiet_night_seconds": round(first[1]["seconds"], 2),
        "quiet_night_requests": first[1]["requests"],
    }
    if peers is not None:
        best = max(rates[name] for name in _SEARCHING)
        figures["search_to_best_search_peer"] = round(rates["ours"] / best, 2)
        figures["bulk_to_smart_fetch"] = round(rates["bulk"] / rates["smart_fetch"], 2)
        best = max(per_cpu[name] for name in _SEARCHING)
        figures["search_to_best_search_peer_by_cpu"] = round(per_cpu["ours"] / best, 2)
        figures["bulk_to_smart_fetch_by_cpu"] = round(per_cpu["bulk"] / per_cpu["smart_fetch"], 2)
    return figures


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), indent=2) + "\n")
