"""A small hand-made hospital behind a real socket, and the ledger that pulls from it. Everything is synthetic."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import quarantined
from io_fhir_adapter.ledger.intake import stale_patients
from io_fhir_adapter.ledger.runs import cursor, start_run
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.sources import pull_sources
from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.sandbox.server import SandboxApp, create_app
from io_fhir_adapter.sandbox.store import SandboxStore

Json = dict[str, Any]
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
THEN = "2025-06-01T08:00:00.000Z"


@cache
def _ruleset() -> Ruleset:
    return load_ruleset()


def _tell_nobody(what: str, done: int, total: int | None) -> None:
    """Progress that nobody sees."""


def procedure(name: str, patient: str = "a", code: str = "5-501.a3", **more: Any) -> Json:
    """A Procedure; the default code has a row in the tables, ``other`` has none."""
    system = OPS if code[0].isdigit() else "http://hospital.example/keys"
    return {
        "resourceType": "Procedure",
        "id": name,
        "meta": {"lastUpdated": THEN},
        "status": "completed",
        "code": {"coding": [{"system": system, "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "performedDateTime": "2025-03-01",
    } | more


def person(name: str, **more: Any) -> Json:
    """A Patient."""
    return {"resourceType": "Patient", "id": name, "meta": {"lastUpdated": THEN}, "gender": "female"} | more


def condition(name: str, patient: str = "a", **more: Any) -> Json:
    """A Condition."""
    coding = [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "C22.0"}]
    subject = {"reference": f"Patient/{patient}"}
    return {
        "resourceType": "Condition", "id": name, "meta": {"lastUpdated": THEN}, "code": {"coding": coding},
        "subject": subject,
    } | more  # fmt: skip


def encounter(name: str, patient: str = "a", **more: Any) -> Json:
    """An Encounter."""
    subject = {"reference": f"Patient/{patient}"}
    return {
        "resourceType": "Encounter", "id": name, "meta": {"lastUpdated": THEN}, "status": "finished",
        "subject": subject,
    } | more  # fmt: skip


def small_hospital() -> list[Json]:
    """Twelve Procedures of four patients, half of them with a row in the tables, and what belongs to them.

    Patient d has no mapped Procedure, so nothing but that Procedure is needed.
    """
    made: list[Json] = []
    for number in range(12):
        patient = "abcd"[number % 4]
        code = "5-501.a3" if number % 2 == 0 or patient == "b" else "other"
        visit = {"encounter": {"reference": f"Encounter/e{number}"}}
        made.append(procedure(f"p{number:02}", patient, code, **visit))
        made.append(encounter(f"e{number}", patient))
    made += [condition(f"c{number}", "abcd"[number % 4]) for number in range(8)]
    made += [person(name) for name in "abcd"]
    return made


class Site:
    """A server that misbehaves on a switch, and a ledger; both live as long as the test."""

    def __init__(
        self, folder: Path, stack: ExitStack, app: SandboxApp, url: str, store: SandboxStore, before: int
    ) -> None:
        self.store = app.store = store
        self.app = app
        self.url = url
        self._before = before
        self.ledger_path = folder / f"ledger{len(list(folder.iterdir()))}.sqlite"
        self.config_of: Json = {"page_size": 5, "batch_size": 2, "retries": 3, "max_retry_wait_s": 0}
        self.ledger: Ledger = new_ledger(self.ledger_path)
        stack.callback(self.ledger.close)
        self.run = 0
        self.time_zone = "UTC"

    def _config(self, more: Json) -> Config:
        source = {"name": "s", "kind": "fhir", "url": f"{self.url}/fhir", **self.config_of, **more}
        return Config.model_validate(
            {
                "facility": {"code": "F", "time_zone": self.time_zone},
                "sources": [source],
                "ledger": {"path": self.ledger_path},
            }
        )

    def switch(self, faults: Faults) -> None:
        """Make the server misbehave from now on."""
        self.app.planner.switch(faults)

    def pull(self, ruleset: Ruleset | None = None, **more: Any) -> SourceOutcome:
        """One pull; ``more`` is configuration of the source."""
        with self.ledger.begin() as connection:
            self.run = start_run(connection, datetime.now(UTC))
        rules = ruleset or _ruleset()
        (outcome,) = asyncio.run(pull_sources(self._config(more), self.ledger, rules, self.run, _tell_nobody))
        return outcome

    def facts(self) -> list[tuple[Any, ...]]:
        """Every fact in the ledger, without the number of the run that wrote it."""
        return self._rows("select resource_type, id, patient, status, day, mapped, known_system, digest from facts")

    def ids(self, resource_type: str) -> list[str]:
        """Ids of the facts of a type."""
        return [row[1] for row in self.facts() if row[0] == resource_type]

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.ledger_path)
        try:
            return sorted(connection.execute(query).fetchall())
        finally:
            connection.close()

    def quarantine(self) -> dict[str, str]:
        """Position to reason."""
        with self.ledger.read() as connection:
            return {entry.position: entry.reason for entry in quarantined(connection)}

    def cursor(self) -> str:
        """Up to when the source was read."""
        with self.ledger.read() as connection:
            return cursor(connection, "s", "Procedure")

    def stale(self) -> set[str]:
        """Patients to decide on."""
        with self.ledger.read() as connection:
            return stale_patients(connection)

    def decided(self) -> None:
        """As if all decisions had been made."""
        connection = sqlite3.connect(self.ledger_path)
        connection.execute("delete from stale")
        connection.commit()
        connection.close()

    def forget_reconciling(self) -> None:
        """As if the last complete reading had been long ago."""
        connection = sqlite3.connect(self.ledger_path)
        connection.execute("update cursors set value = '2000' where resource_type = 'reconciled'")
        connection.commit()
        connection.close()

    def requests(self) -> list[Json]:
        """The requests to this site, oldest first."""
        stats = httpx.get(f"{self.url}/_sandbox/stats").json()["requests"]
        made = stats["total"] - self._before
        return list(stats["last"][-made:]) if made else []


Make = Callable[..., Site]


class Kit:
    """What tests make resources with."""

    procedure = staticmethod(procedure)
    person = staticmethod(person)
    condition = staticmethod(condition)
    encounter = staticmethod(encounter)
    small_hospital = staticmethod(small_hospital)
    then = THEN

    @property
    def ruleset(self) -> Ruleset:
        """The shipped rules."""
        return _ruleset()


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[tuple[SandboxApp, str]]:
    """One server for all tests, one after the other: starting one takes longer than a test."""
    app = create_app(SandboxStore())
    with LoopbackServer(app) as server:
        yield app, server.base_url


@pytest.fixture
def make_site(tmp_path: Path, shared_server: tuple[SandboxApp, str]) -> Iterator[Make]:
    """Makes a hospital of the resources given, the small one by default; with ``own``, on a server of its own."""
    with ExitStack() as stack:

        def make(
            resources: list[Json] | None = None, broken: list[tuple[str, str]] | None = None, *, own: bool = False
        ) -> Site:
            store = SandboxStore.from_resources(small_hospital() if resources is None else resources, broken or [])
            if own:
                app = create_app(store)
                return Site(tmp_path, stack, app, stack.enter_context(LoopbackServer(app)).base_url, store, 0)
            app, url = shared_server
            app.planner.switch(Faults())
            before = httpx.get(f"{url}/_sandbox/stats").json()["requests"]["total"]
            return Site(tmp_path, stack, app, url, store, before)

        yield make


@pytest.fixture
def site(make_site: Make) -> Site:
    """The small hospital."""
    return make_site()
