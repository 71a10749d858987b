"""No personal string of the synthetic hospital gets out: not by wire, file, page, metric, terminal, log or error.

Every string of the hospital that could name a person holds a canary, a token that occurs nowhere else.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.e2e.conftest import TOKEN, Canaries, Recorder, write_config

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import load_config
from io_fhir_adapter.errors import LeakError
from io_fhir_adapter.handover import work
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.outbox import pending
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.faults import ReceiverFaults
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.review import cases
from io_fhir_adapter.review.deidentify import deidentify
from io_fhir_adapter.sandbox.clinical_records import CLINICAL_TYPES
from io_fhir_adapter.sandbox.faults import Faults, PageFault
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.serve.app import create_app as service_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import World

    from io_fhir_adapter.sandbox.hospital import Hospital

pytestmark = pytest.mark.xdist_group("demo")
AS_OF = date(2026, 1, 30)


@pytest.fixture(scope="module")
def canaries(hospital: Hospital) -> Canaries:
    return Canaries(hospital.canaries)


@pytest.fixture(scope="module")
def small() -> Hospital:
    """A hospital that is quick to read."""
    return build_hospital(7, patients=150, procedures=900)


@pytest.fixture(scope="module")
def smaller() -> Hospital:
    """One with fewer to draw, for nights that pre-fill only to see the receiver fail."""
    return build_hospital(7, patients=60, procedures=300)


def store_of(hospital: Hospital) -> SandboxStore:
    return SandboxStore.from_resources(
        [resource for resources in hospital.resources.values() for resource in resources],
        (*hospital.broken, ("Procedure", f'{{"resourceType": "Procedure", "note": "{hospital.canaries[0]}')),
        hospital.later,
    )


def test_the_scanner_finds_a_canary_in_every_disguise(canaries: Canaries) -> None:
    token = next(iter(canaries.tokens))
    for text in (
        token,
        token.upper(),
        f"x{token}y",
        f"&#{ord(token[0])};{token[1:]}",
        f"%{ord(token[0]):x}{token[1:]}",
    ):
        assert canaries.found(text) == {token}
    assert canaries.found(json.dumps({"a": token}).encode()) == {token}
    assert canaries.found("zyxaaaaaaaa and other words") == set()


def test_there_are_canaries_to_find(canaries: Canaries, hospital: Hospital) -> None:
    assert len(canaries.tokens) > len(hospital.resources["Procedure"])
    served = json.dumps([hospital.resources, hospital.later, hospital.broken], default=str)
    assert len(canaries.found(served)) > 0.99 * len(canaries.tokens)


def test_clinical_records_hold_canaries_and_are_read(world: World, canaries: Canaries) -> None:
    asked = httpx.get(f"{world.sandbox_url}/_sandbox/stats", timeout=30).json()["requests"]["by_path"]
    for kind in CLINICAL_TYPES:
        records = world.hospital.resources[kind]
        holding = sum(bool(canaries.found(json.dumps(record))) for record in records)
        assert holding >= (0.05 if kind == "Observation" else 1) * len(records), kind
        assert any(path.endswith(f"/{kind}") for path in asked), kind


def test_nothing_that_was_sent_holds_a_canary(world: World, canaries: Canaries) -> None:
    assert len(world.received.bodies) == 3  # the announcement of the frame, and two submissions
    assert all(len(body) > 100_000 for body in world.received.submissions)
    for body in world.received.bodies:
        assert canaries.found(body) == set()


def test_no_file_that_was_written_holds_a_canary(world: World, canaries: Canaries) -> None:
    for night in (world.first, world.second, world.later, world.after):
        assert "submission.json" in night.files
        for name, data in night.files.items():
            assert canaries.found(data) == set(), name


def test_no_id_of_a_resource_leaves(world: World, hospital: Hospital) -> None:
    ids = {resource["id"] for found in hospital.resources.values() for resource in found} - {"org-sandbox"}
    for body in world.received.bodies:
        words = set(re.findall(r"[A-Za-z0-9-]+", body.decode()))
        assert words & ids == set()


def test_the_terminal_shows_no_canary(world: World, canaries: Canaries) -> None:
    for night in (world.first, world.second, world.later, world.after):
        assert canaries.found(night.out + night.err) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["count", "--config", "{config}", "--period", "2025"],
        ["count", "--config", "{config}", "--json"],
        ["draw", "--config", "{config}", "--as-of", "2026-01-30", "--json"],
        ["review", "--config", "{config}", "--as-of", "2026-01-30"],
        ["submit", "--config", "{config}", "--as-of", "2026-01-30"],
        ["check", "--config", "{config}"],
    ],
    ids=lambda arguments: arguments[0] + ("-json" if "--json" in arguments else ""),
)
def test_no_command_shows_a_canary(
    world: World, canaries: Canaries, arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([part.format(config=world.config) for part in arguments]) == 0
    shown = capfd.readouterr()
    assert shown.out
    assert canaries.found(shown.out + shown.err) == set()


def test_an_explanation_names_ids_and_no_more(
    world: World, canaries: Canaries, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = [
        *(f"Procedure/{resource['id']}" for resource in world.hospital.resources["Procedure"][:3]),
        "Procedure/bad-12",
    ]
    for reference in wanted:
        assert run(["explain", reference, "--config", str(world.config)]) == 0
        shown = capfd.readouterr()
        assert reference in shown.out
        assert canaries.found(shown.out + shown.err) == set()


def test_classifying_and_counting_files_shows_ids_and_no_more(
    hospital: Hospital, canaries: Canaries, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind, found in hospital.resources.items():
        lines = [json.dumps(resource) for resource in found]
        lines += [text for broken, text in hospital.broken if broken == kind]
        (tmp_path / f"{kind}.ndjson.gz").write_bytes(gzip.compress("\n".join(lines).encode(), compresslevel=1, mtime=0))
    for arguments in (["classify"], ["count", "--period", "2025"]):
        assert run([*arguments, str(tmp_path)]) == 0
        shown = capfd.readouterr()
        assert ("Patient/pat-" in shown.out) == (arguments == ["classify"])
        assert canaries.found(shown.out + shown.err) == set()


FAILURES: dict[str, tuple[Faults, ReceiverFaults, int]] = {
    "login page": (Faults(page_faults=(PageFault("html", page=2, times=None),)), ReceiverFaults(), 1),
    "truncated page": (Faults(page_faults=(PageFault("truncated", page=2, times=None),)), ReceiverFaults(), 1),
    "server error": (Faults(page_faults=(PageFault("error", page=2, times=None),)), ReceiverFaults(), 1),
    "no JSON in a page": (Faults(broken_json_pages=True), ReceiverFaults(), 1),
    "foreign links": (Faults(next_links="foreign", max_page_size=200), ReceiverFaults(), 1),
    "wrong totals": (Faults(total_off_by=3), ReceiverFaults(), 1),
    "credentials": (Faults(require_bearer="other"), ReceiverFaults(), 1),
    "rejected": (Faults(), ReceiverFaults(entry_errors=1), 1),
    "receiver fails": (Faults(), ReceiverFaults(server_error=9), 0),
    "receiver's login page": (Faults(), ReceiverFaults(login_page=9), 0),
}
AT_THE_RECEIVER = {"rejected", "receiver fails", "receiver's login page"}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failing_night_shows_a_canary(
    small: Hospital,
    smaller: Hospital,
    tmp_path: Path,
    failure: str,
    capfd: pytest.CaptureFixture[str],
    undrawn: None,
) -> None:
    faults, receiver_faults, code = FAILURES[failure]
    hospital = smaller if failure in AT_THE_RECEIVER else small
    received = ReceiverStore("sqlite://")
    try:
        with (
            LoopbackServer(sandbox_app(store_of(hospital), faults)) as sandbox,
            LoopbackServer(receiver_app(received, faults=receiver_faults)) as receiver,
        ):
            config = write_config(tmp_path, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir", cases=4)
            assert run(["run", "--config", str(config), "--as-of", AS_OF.isoformat()]) == code
    finally:
        received.close()
    shown = capfd.readouterr()
    seen = Canaries(hospital.canaries)
    assert seen.found(shown.out + shown.err) == set()
    if code:
        assert len(shown.err.splitlines()[-1]) < 600
        assert shown.err.splitlines()[-1].endswith("]")
    for path in (tmp_path / "out").iterdir():
        assert seen.found(path.read_bytes()) == set(), path.name


def test_neither_pages_nor_metrics_of_the_service_hold_a_canary(world: World, canaries: Canaries) -> None:
    config = load_config(world.config)
    ledger = open_ledger(config.ledger)
    try:
        with (
            LoopbackServer(service_app(config, ledger, rules_for(config))) as service,
            httpx.Client(base_url=service.base_url) as client,
        ):
            for path in ("/", "/metrics", "/health/live", "/health/ready"):
                answer = client.get(path)
                assert answer.status_code == 200
                assert answer.content
                assert canaries.found(answer.content) == set(), path
            assert "Sandbox Hospital" in client.get("/").text
    finally:
        ledger.close()


def test_the_receivers_page_holds_no_canary(world: World, canaries: Canaries) -> None:
    with LoopbackServer(world.received.app) as receiver:
        answer = httpx.get(f"{receiver.base_url}/")
    assert "E2E-001" in answer.text
    assert canaries.found(answer.content) == set()


class Facility:
    """A facility of the small hospital whose ledger is filled; nothing is drawn or sent yet."""

    def __init__(self, folder: Path, source_url: str, receiver: Recorder, receiver_url: str) -> None:
        self.config = load_config(write_config(folder, source_url, receiver_url, cases=4))
        self.received = receiver
        self.ledger = open_ledger(self.config.ledger)
        self.job = Nightly(self.config, self.ledger, rules_for(self.config), as_of=AS_OF)

    def submissions(self) -> list[bytes]:
        """What was sent, without the announcement of the frame."""
        return [body for body in self.received.bodies if json.loads(body)["resourceType"] == "Bundle"]

    def bodies_in_outbox(self) -> list[bytes]:
        with self.ledger.begin() as connection:
            return [waiting.body for waiting in pending(connection)]


@pytest.fixture
def facility(small: Hospital, tmp_path: Path) -> Iterator[Facility]:
    received = ReceiverStore("sqlite://")
    recorder = Recorder(receiver_app(received))
    with LoopbackServer(sandbox_app(store_of(small))) as sandbox, LoopbackServer(recorder) as receiver:
        made = Facility(tmp_path, f"{sandbox.base_url}/fhir", recorder, f"{receiver.base_url}/fhir")
        asyncio.run(made.job.run(dry_run=True))
        yield made
        made.ledger.close()
    received.close()


def leak_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """De-identification as a careless change would leave it: the patient's name comes along."""

    def careless(resource: dict[str, Any], *rest: Any) -> dict[str, Any]:
        copy = deidentify(resource, *rest)
        return {**copy, "name": resource["name"]} if resource["resourceType"] == "Patient" else copy

    monkeypatch.setattr(cases.__name__ + ".deidentify", careless)


def test_a_leak_is_refused_before_anything_is_queued(facility: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
    leak_a_name(monkeypatch)
    with pytest.raises(LeakError) as refused:
        asyncio.run(facility.job.submit())
    assert facility.bodies_in_outbox() == []
    assert facility.submissions() == []
    assert not TOKEN.search(refused.value.sentence)


def test_without_that_look_these_tests_would_see_the_leak(
    facility: Facility, small: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak_a_name(monkeypatch)
    monkeypatch.setattr(work, "refuse_leaks", lambda *_: None)
    asyncio.run(facility.job.submit())
    (body,) = facility.submissions()
    assert Canaries(small.canaries).found(body)
