"""A year of nights: a clock that moves, a hospital that grows, and what goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import datetime as real
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from io_fhir_adapter import loopback
from io_fhir_adapter.classify.ruleset import rules_for
from io_fhir_adapter.config import Config
from io_fhir_adapter.config.notify import TargetConfig
from io_fhir_adapter.demo import LOCAL_SYSTEM
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger import database
from io_fhir_adapter.ledger.backup import back_up
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.restore import restore
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.notify import tell as telling
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.sandbox.faults import FaultPlanner, Faults
from io_fhir_adapter.sandbox.hospital import Hospital
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["ZONE", "Clock", "Facility", "moving"]

ZONE = zone("Europe/Berlin")
Json = dict[str, Any]


class Clock:
    """True time, and how far this machine's clock is off from it."""

    def __init__(self, now: real.datetime) -> None:
        self.true = now
        self.off = timedelta()

    @property
    def here(self) -> real.datetime:
        """What this machine takes for the time."""
        return self.true + self.off

    def seconds(self) -> float:
        """The same in seconds since 1970."""
        return self.here.timestamp()


@contextmanager
def moving(clock: Clock) -> Iterator[None]:
    """Wherever the adapter asks for the time it is told the clock's."""

    class Told(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real.datetime)

    class Datetime(real.datetime, metaclass=Told):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> Any:
            return clock.here.astimezone(tz)

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            ours = name.startswith("io_fhir_adapter.") and not name.startswith("io_fhir_adapter.sandbox")
            if ours and getattr(module, "datetime", None) is real.datetime:
                patch.setattr(module, "datetime", Datetime)
        patch.setitem(FhirClient.__init__.__kwdefaults__ or {}, "clock", clock.seconds)
        patch.setattr(loopback, "uvicorn", SimpleNamespace(
            Config=partial(uvicorn.Config, date_header=False), Server=uvicorn.Server))  # fmt: skip
        yield


class Facility:
    """A facility beside a hospital whose records come in as time passes.

    Attributes:
        said: (day, title) of everything that people were told.
        runs: How the nights ended.
    """

    def __init__(self, folder: Path, hospital: Hospital, clock: Clock, about: tuple[str, ...]) -> None:
        self.about = about
        self.folder, self.clock = folder, clock
        self.said: list[tuple[str, str]] = []
        self.runs: Counter[str] = Counter()
        self.store = SandboxStore(zone=ZONE, clock=lambda: clock.true)
        everything = [one for group in hospital.resources.values() for one in group]
        self._coming = sorted((*everything, *hospital.later), key=lambda one: str(one["meta"]["lastUpdated"]))
        for kind, text in hospital.broken:
            self.store.put_broken(kind, text)
        self.app = create_app(self.store)
        self.faults(Faults())
        self.server = LoopbackServer(self)
        self.config = self._config()
        self.rules = rules_for(self.config)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """The hospital's server, with a Date of the true time."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                moment = format_datetime(self.clock.true.astimezone(UTC), usegmt=True).encode()
                message["headers"] = [*message.get("headers", []), (b"date", moment)]
            await send(message)

        await self.app(scope, receive, sending)

    def _config(self) -> Config:
        token = {"kind": "bearer", "token": {"file": str(self.folder / "token")}}
        url = f"{self.server.base_url}/fhir"
        server = {"name": "sandbox", "kind": "fhir", "url": url, "retries": 0, "reconcile_days": 28, "auth": token}
        (self.folder / "token").write_text("first", encoding="utf-8")
        table = {"system": LOCAL_SYSTEM, "file": str(shipped_path("config", "sandbox-local-codes.csv"))}
        return Config.model_validate({
            "facility": {"code": "Y-1", "time_zone": "Europe/Berlin"},
            "sources": [server],
            "mappings": {"site_tables": [table]},
            "ledger": {"path": str(self.folder / "ledger.sqlite")},
            "review": {"key_file": str(self.folder / "pseudonym.key")},
            "output": {"folder": str(self.folder / "out")},
            "notify": {"targets": [{"name": "it", "url": {"env": "NOT_READ"}, "about": self.about}]},
        })  # fmt: skip

    def faults(self, faults: Faults) -> None:
        """How the server misbehaves from now on."""
        self.app.planner = FaultPlanner(faults)

    def arrive(self) -> None:
        """What was recorded by now comes in, stamped by the server's clock."""
        until = self.clock.true.astimezone(UTC).isoformat()
        while self._coming and str(self._coming[0]["meta"]["lastUpdated"])[:19] <= until[:19]:
            self._put()

    def arrive_all(self) -> None:
        """What is left comes in."""
        while self._coming:
            self._put()

    def _put(self) -> None:
        one = self._coming.pop(0)
        meta = {name: value for name, value in one["meta"].items() if name != "lastUpdated"}
        self.store.put({**one, "meta": meta})

    def night(self) -> None:
        """One run as a timer starts it: open, run, write, tell."""
        ledger = open_ledger(self.config.ledger)
        day = self.clock.here.astimezone(ZONE).date()
        failure = ""
        try:
            job = Nightly(self.config, ledger, self.rules, as_of=day)
            night = asyncio.run(job.run())
            job.write_output(night, self.config.output.folder)
            self.runs["failed" if night.problem else "complete"] += 1
        except AdapterError as exc:
            failure = exc.code
            self.runs["failed outright"] += 1
        finally:
            self._tell(ledger, day, failure)
            ledger.close()

    def _tell(self, ledger: Ledger, day: date, failure: str) -> None:
        def send(_target: TargetConfig, title: str, _text: str, *, kind: str) -> None:
            self.said.append((self.clock.true.astimezone(ZONE).date().isoformat(), title.removeprefix("[Y-1] ")))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(telling, "send", send)
            telling.tell(self.config, ledger, self.rules, self.clock.here, day, failure=failure)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """SQLite finds no room for what is to be written, and the system says so too."""
        begin, begun = database._sqlite_begin, count()

        def full(connection: Connection) -> None:
            begin(connection)
            writes = connection.get_execution_options().get(database._MODE) is None
            if writes and next(begun):  # the first is that of opening it, which finds nothing to upgrade
                cause = sqlite3.OperationalError("database or disk is full")
                raise OperationalError("BEGIN IMMEDIATE", {}, cause)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "_sqlite_begin", full)
            patch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(total=1 << 40, used=1 << 40, free=1 << 20))
            yield

    def copy(self) -> Path:
        """A copy of the ledger, by the day."""
        (self.folder / "copies").mkdir(exist_ok=True)
        return back_up(self.config.ledger, "Y-1", self.folder / "copies", self.clock.here).file

    def restore(self, copy: Path) -> None:
        """A copy in the ledger's place."""
        restore(self.config.ledger, "Y-1", copy, self.clock.here, replace=True)
