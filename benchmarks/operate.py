"""The service: start to ready, idle memory, the command line's own time, and its first page, each beside a floor.

The floor of start and memory is a process that imports what a service of this kind is made of (FastAPI, uvicorn,
SQLAlchemy) and does nothing; that of the command line is an empty Python. That of the page is the queries by hand: the
same numbers, by SQL alone, with one connection to the same file.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.generate import write_procedures
from io_fhir_adapter.config import Config, load_config
from io_fhir_adapter.ledger.accounts import Actor, add_account
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.look.passwords import Passwords

__all__ = ["measure"]

_COMMAND = [sys.executable, "-c", "from io_fhir_adapter.cli.main import main; main()"]
_FLOOR = "import fastapi, uvicorn, sqlalchemy"
_PASSWORD = "synthetic password of the benchmark"  # noqa: S105 - of an account that lives as long as the measurement
_PATIENCE_S = 600.0
_LOOK_S = 0.01
_IDLE_S = 2.0
_PAGES = 7
_BY_HAND = (
    "SELECT category, decision, substr(date, 1, 7), count(*) FROM decisions WHERE date >= :year GROUP BY 1, 2, 3",
    "SELECT reason, count(*) FROM decisions WHERE date >= :year AND decision <> 'counted' GROUP BY 1",
    "SELECT status, mapped, known_system, count(*) FROM facts WHERE resource_type = 'Procedure' AND day >= :year "
    "GROUP BY 1, 2, 3",
    "SELECT id, state, summary FROM runs ORDER BY id DESC LIMIT 5",
    "SELECT identifier, state FROM outbox ORDER BY created DESC LIMIT 20",
)


def _site(folder: Path, number: int) -> Path:
    """A facility whose source is a file of so many Procedures, and where people sign in; its configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    export = _lately(write_procedures(folder.parent / f"procedures-{number}.ndjson", number), folder / "export.ndjson")
    document = {
        "facility": {"code": "B-1", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "export", "kind": "files", "paths": [str(export.resolve())]}],
        "schedule": {"cron": "0 0 1 1 *", "jitter_s": 0},
        "output": {"folder": "out"},
        "sign_in": {"accounts": True},
    }
    path = folder / "facility.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _lately(made: Path, target: Path) -> Path:
    """The Procedures of 2024 and 2025 as those of the last year and of this one: the pages show no others."""
    this = datetime.now(UTC).year
    with made.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(line.replace('"2025-', f'"{this}-').replace('"2024-', f'"{this - 1}-'))
    return target


def _prepared(path: Path, *, missed: bool) -> Config:
    """The configuration of a site whose ledger is there, with somebody who may sign in, and a missed night or none."""
    config = load_config(path)
    now = datetime.now(UTC)
    with closing(open_ledger(config.ledger)) as ledger, ledger.begin() as connection:
        hashed = Passwords().hash(_PASSWORD)
        add_account(
            connection, "viewer", "Viewer", hashed, ("viewer",), one_time=False, by=Actor("console", ""), at=now
        )
        if missed:
            then = now - timedelta(days=800)
            finish_run(connection, start_run(connection, then), then, "complete", {})
    return config


@contextmanager
def _serving(config: Path) -> Iterator[tuple[str, int, float]]:
    """The service; gives its address, its process, and how long it took to be ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    with subprocess.Popen(
        [*_COMMAND, "serve", "--config", str(config), "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            while not _answers(f"{url}/health/ready"):
                assert process.poll() is None, "the service ended"
                assert time.perf_counter() - began < _PATIENCE_S, "the service is never ready"
                time.sleep(_LOOK_S)
            yield url, process.pid, time.perf_counter() - began
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_PATIENCE_S).is_success
    except httpx.TransportError:
        return False


def _resident_mib(process: int) -> float:
    """Resident memory of a process, and of those that it started and that are still there."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    started = [file.read_text(encoding="ascii").split() for file in Path(f"/proc/{process}/task").glob("*/children")]
    return own + sum(_resident_mib(int(child)) for children in started for child in children)


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _cpu_s(process: int) -> float:
    """What a process has used of the processor so far: other work on the machine lengthens the clock's time alone."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _floor_cpu_s() -> float:
    """The same of a process that imported the floor."""
    code = f"{_FLOOR}; import time; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def _floor_mib() -> float:
    """Memory of a process that imported the floor."""
    code = f"{_FLOOR}; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return next(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("VmRSS")) / 1024


def _pages(url: str) -> float:
    """Seconds of the first page, for somebody who signed in; the median of a few."""
    with httpx.Client(base_url=url, timeout=_PATIENCE_S, follow_redirects=True) as client:
        form = client.get("/sign-in").text
        token = form.partition('name="csrf" value="')[2].partition('"')[0]
        client.post("/sign-in", data={"name": "viewer", "password": _PASSWORD, "csrf": token}).raise_for_status()
        taken = []
        for _ in range(_PAGES):
            began = time.perf_counter()
            page = client.get("/").raise_for_status()
            taken.append(time.perf_counter() - began)
            assert 'name="password"' not in page.text, "nobody is signed in"
    return statistics.median(taken)


def _by_hand(ledger: Path) -> float:
    """Seconds of the queries alone; the median of a few."""
    with closing(sqlite3.connect(ledger)) as connection:
        taken = []
        for _ in range(_PAGES):
            began = time.perf_counter()
            for query in _BY_HAND:
                connection.execute(query, {"year": f"{datetime.now(UTC).year - 1}-01-01"}).fetchall()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _after_a_night(folder: Path, number: int) -> dict[str, Any]:
    """Memory of the service after a night, and the first page of a ledger of so many facts."""
    path = _site(folder, number)
    config = _prepared(path, missed=True)
    with _serving(path) as (url, process, _):
        metrics = ""
        while 'runs_total{outcome="complete"} 1.0' not in metrics:
            assert 'runs_total{outcome="failed"}' not in metrics, "the night failed"
            time.sleep(1)
            metrics = httpx.get(f"{url}/metrics", timeout=_PATIENCE_S).text
        time.sleep(_IDLE_S)
        memory = _resident_mib(process)
        page = _pages(url)
        after = _resident_mib(process)
    assert config.ledger.path is not None
    by_hand = _by_hand(config.ledger.path)
    return {
        "idle_mib_after_a_night": round(memory, 1),
        "idle_mib_after_pages": round(after, 1),
        "page_facts": number,
        "page_ms": round(1000 * page, 1),
        "page_by_hand_ms": round(1000 * by_hand, 1),
        "page_to_by_hand": round(page / by_hand, 2),
    }


def measure(folder: Path, number: int, rounds: int = 3) -> dict[str, Any]:
    """All figures; those of the page at ``number`` Procedures."""
    path = _site(folder / "operate", 200)
    _prepared(path, missed=False)
    spent: dict[str, list[float]] = {
        name: [] for name in ("start", "floor", "cpu", "floor_cpu", "empty", "version", "help")
    }
    idle: list[float] = []
    for _ in range(rounds):  # in turn, so that a slow moment of the machine meets all of them
        with _serving(path) as (_, process, seconds):
            spent["start"].append(seconds)
            spent["cpu"].append(_cpu_s(process))
            time.sleep(_IDLE_S)
            idle.append(_resident_mib(process))
        spent["floor"].append(_seconds([sys.executable, "-c", _FLOOR]))
        spent["floor_cpu"].append(_floor_cpu_s())
        spent["empty"].append(_seconds([sys.executable, "-c", "pass"]))
        spent["version"].append(_seconds([*_COMMAND, "--version"]))
        spent["help"].append(_seconds([*_COMMAND, "--help"]))
    took = {name: statistics.median(found) for name, found in spent.items()}
    memory, floor = statistics.median(idle), _floor_mib()
    ratio = statistics.median(mine / other for mine, other in zip(spent["start"], spent["floor"], strict=True))
    return {
        "start_to_ready_s": round(took["start"], 2),
        "start_floor_s": round(took["floor"], 2),
        "start_to_floor": round(ratio, 2),
        "start_cpu_s": round(took["cpu"], 2),
        "start_floor_cpu_s": round(took["floor_cpu"], 2),
        "start_to_floor_by_cpu": round(took["cpu"] / took["floor_cpu"], 2),
        "idle_mib": round(memory, 1),
        "idle_floor_mib": round(floor, 1),
        "idle_to_floor": round(memory / floor, 2),
        "version_s": round(took["version"], 2),
        "help_s": round(took["help"], 2),
        "empty_python_s": round(took["empty"], 3),
        "version_to_empty_python": round(took["version"] / took["empty"], 1),
        "help_to_empty_python": round(took["help"] / took["empty"], 1),
        **_after_a_night(folder / "operate", number),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), indent=2) + "\n")
