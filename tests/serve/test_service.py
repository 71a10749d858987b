"""The service: pages, health, metrics, a night that was missed, and a clean end."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from io_fhir_adapter.config import load_config
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.lease import job_of
from io_fhir_adapter.ledger.runs import finish_run, last_run, start_run
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital
from io_fhir_adapter.sandbox.server import SandboxApp, create_app
from io_fhir_adapter.sandbox.store import SandboxStore

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def hospital() -> Hospital:
    return build_hospital(3, patients=60, procedures=300)


def of(hospital: Hospital, faults: Faults | None = None) -> SandboxApp:
    resources = [resource for found in hospital.resources.values() for resource in found]
    return create_app(SandboxStore.from_resources(resources, (), ()), faults)


def serving(hospital: Hospital, faults: Faults | None = None) -> LoopbackServer:
    return LoopbackServer(of(hospital, faults))


def write_config(folder: Path, url: str) -> Path:
    path = folder / "facility.yaml"
    document = {
        "facility": {"code": "S-001", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "sandbox", "kind": "fhir", "url": url, "page_size": 20}],
        "schedule": {"cron": "0 0 1 1 *", "jitter_s": 0},
        "output": {"folder": "out"},
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def remember_a_run(config: Path, ago: timedelta) -> None:
    """A run long ago, so that a night was missed since."""
    ledger = open_ledger(load_config(config).ledger)
    moment = datetime.now(UTC) - ago
    with ledger.begin() as connection:
        finish_run(connection, start_run(connection, moment), moment, "complete", {"counted": 17})
    ledger.close()


class Service:
    """The serve command in a process of its own."""

    def __init__(self, config: Path, log: Path) -> None:
        self.log = log
        arguments = ["serve", "--config", str(config), "--port", "0"]
        with log.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from io_fhir_adapter.cli.main import main; main()", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=err,
                env={**os.environ},
            )

    def get(self, path: str) -> httpx.Response:
        port = re.search(r'"event": "listening".*"port": (\d+)', self.log.read_text())
        if port is None:
            raise httpx.ConnectError("it does not listen yet")
        return httpx.get(f"http://127.0.0.1:{port[1]}{path}", timeout=10)

    def until(self, what: Callable[[], bool]) -> None:
        """Waits until it is so."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if what():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        pytest.fail(f"it did not come to pass: {self.log.read_text()}")

    def last_run_is(self, state: str) -> bool:
        """Whether it is ready, and its last run is in this state."""
        answer = self.get("/health/ready")
        assert answer.status_code == 200, f"{answer.text} {self.log.read_text()}"
        return bool(answer.json()["last_run"]["state"] == state)

    def stop(self) -> float:
        """Asks it to stop; gives the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        return time.monotonic() - began


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Service]]:
    running: list[Service] = []

    def make(config: Path) -> Service:
        running.append(Service(config, tmp_path / f"service-{len(running)}.log"))
        return running[-1]

    yield make
    for service in running:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()


def test_it_catches_a_missed_night_up_and_shows_the_report(
    hospital: Hospital, tmp_path: Path, start: Callable[[Path], Service]
) -> None:
    with serving(hospital) as sandbox:
        config = write_config(tmp_path, f"{sandbox.base_url}/fhir")
        remember_a_run(config, timedelta(days=800))
        service = start(config)
        service.until(lambda: 'runs_total{outcome="complete"} 1.0' in service.get("/metrics").text)
        assert service.get("/health/live").json() == {"status": "live"}
        ready = service.get("/health/ready").json()
        assert (ready["status"], ready["last_run"]["state"]) == ("ready", "complete")
        page = service.get("/")
        assert "<svg" in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        counted = re.search(r"^io_fhir_adapter_counted (\S+)$", service.get("/metrics").text, re.MULTILINE)
        assert counted is not None
        assert service.stop() < 15
        assert service.process.returncode == 0
        assert "Traceback" not in service.log.read_text()


def test_before_the_first_run_nothing_was_missed(
    hospital: Hospital, tmp_path: Path, start: Callable[[Path], Service]
) -> None:
    with serving(hospital) as sandbox:
        service = start(write_config(tmp_path, f"{sandbox.base_url}/fhir"))
        service.until(lambda: service.get("/health/ready").json() == {"status": "ready", "last_run": None})
        assert "No night has run yet" in service.get("/").text
        assert service.stop() < 15


def test_a_night_under_way_leaves_the_pages_awake_and_ends_when_asked_to(
    hospital: Hospital, tmp_path: Path, start: Callable[[Path], Service]
) -> None:
    app = of(hospital, Faults(latency_s=0.5))
    with LoopbackServer(app) as sandbox:
        config = write_config(tmp_path, f"{sandbox.base_url}/fhir")
        remember_a_run(config, timedelta(days=800))
        service = start(config)
        service.until(lambda: service.last_run_is("running"))
        assert service.get("/health/live").status_code == 200
        other = subprocess.run(
            [sys.executable, "-c", "from io_fhir_adapter.cli.main import main; main()", "run", "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert other.returncode == 1
        assert "another job is under way" in other.stderr
        assert len(other.stderr.splitlines()) == 1
        assert service.stop() < 15
        assert "Traceback" not in service.log.read_text()
        app.planner.switch(Faults())
        again = start(config)  # what was stopped is taken up at once, and not twice
        again.until(lambda: 'runs_total{outcome="complete"} 1.0' in again.get("/metrics").text)
        shown = 'job_ended_timestamp_seconds{job="nightly",outcome="complete"}'
        again.until(lambda: shown in again.get("/metrics").text)  # the job ends a little after its run
        assert 'job_due_timestamp_seconds{job="nightly"}' in again.get("/metrics").text
        assert again.stop() < 15
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        ended = connection.execute("select state, error from runs order by id").fetchall()
    assert ended[1:] == [("failed", "the run was stopped before it ended"), ("complete", "")]


def test_a_service_that_is_killed_takes_its_night_with_it(
    hospital: Hospital, tmp_path: Path, start: Callable[[Path], Service]
) -> None:
    with serving(hospital, Faults(latency_s=0.5)) as sandbox:
        config = write_config(tmp_path, f"{sandbox.base_url}/fhir")
        remember_a_run(config, timedelta(days=800))
        service = start(config)
        service.until(lambda: service.last_run_is("running"))
        service.process.kill()
        service.process.wait()
        ledger = open_ledger(load_config(config).ledger)
        end = time.monotonic() + PATIENCE_S
        holder = "somebody"
        while holder and time.monotonic() < end:
            time.sleep(0.1)
            with ledger.read() as connection:
                holder, _ = job_of(connection, datetime.now(UTC))
        with ledger.read() as connection:
            run = last_run(connection)
        ledger.close()
    assert (holder, run and run.error) == ("", "the run was stopped before it ended")


def test_an_address_in_use_is_a_sentence(hospital: Hospital, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9/fhir")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", "from io_fhir_adapter.cli.main import main; main()", "serve", "-c", str(config),
             "--port", port],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be listened on" in done.stderr
    assert len(done.stderr.splitlines()) == 1
