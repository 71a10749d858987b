"""A year of nights: a clock that moves, a hospital that grows, a body that takes submissions, and what goes wrong."""

from __future__ import annotations

import asyncio
import datetime as real
import sqlite3
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
import uvicorn
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Connection, MetaData, create_engine, insert, select
from sqlalchemy.exc import OperationalError

from io_fhir_adapter import loopback
from io_fhir_adapter.classify.ruleset import Ruleset, rules_for
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
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.faults import FaultPlanner, Faults
from io_fhir_adapter.sandbox.hospital import Hospital
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["APPROVER", "ZONE", "Clock", "Facility", "Growing", "moving", "rules_of_few", "undated"]

ZONE = zone("Europe/Berlin")
APPROVER = "Head of department (synthetic)"
MIGRATIONS = Path(database.__file__).parent / "migrations"
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


class Time(Protocol):
    """What a machine takes for the time."""

    @property
    def here(self) -> real.datetime: ...

    def seconds(self) -> float: ...


@contextmanager
def moving(clock: Time) -> Iterator[None]:
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
        undated(patch)
        yield


def rules_of_few(config: Config) -> Ruleset:
    """The rules with a sample of three: each case that is drawn takes a fifth of a second to fill."""
    rules = rules_for(config)
    sample = rules.programme.sample.model_copy(update={"size": 3, "reserves": 2})
    rules.programme = rules.programme.model_copy(update={"sample": sample})
    return rules


def undated(patch: pytest.MonkeyPatch) -> None:
    """Servers that are made from now on say no Date of their own."""
    config = partial(uvicorn.Config, date_header=False)
    patch.setattr(loopback, "uvicorn", SimpleNamespace(Config=config, Server=uvicorn.Server))


class Dated:
    """An application whose answers bear a Date of the true time."""

    def __init__(self, app: Any, clock: Clock) -> None:
        self.app, self._clock = app, clock

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                moment = format_datetime(self._clock.true.astimezone(UTC), usegmt=True).encode()
                message["headers"] = [*message.get("headers", []), (b"date", moment)]
            await send(message)

        await self.app(scope, receive, sending)


class Growing:
    """A hospital whose records come in as time passes, and its server.

    Args:
        hospital: All that it will have recorded in the end.
        clock: The true time.
        late: Procedures of these months (``2024-11``) are documented on the day that is named.
    """

    def __init__(self, hospital: Hospital, clock: Clock, late: Mapping[str, date]) -> None:
        self._clock = clock
        self.store = SandboxStore(zone=ZONE, clock=lambda: clock.true)
        everything = [one for group in hospital.resources.values() for one in group]
        self._coming = sorted(
            ((_stamped(one, late), one) for one in (*everything, *hospital.later)), key=lambda pair: pair[0]
        )
        for kind, text in hospital.broken:
            self.store.put_broken(kind, text)
        self.app = create_app(self.store)
        self.server = LoopbackServer(Dated(self.app, clock))

    def arrive(self) -> None:
        """What was recorded by now comes in, stamped by the server's clock."""
        until = self._clock.true.astimezone(UTC).isoformat()
        while self._coming and self._coming[0][0][:19] <= until[:19]:
            self._put()

    def arrive_all(self) -> None:
        """What is left comes in."""
        while self._coming:
            self._put()

    def _put(self) -> None:
        _, one = self._coming.pop(0)
        meta = {name: value for name, value in one["meta"].items() if name != "lastUpdated"}
        self.store.put({**one, "meta": meta})


def _stamped(resource: Json, late: Mapping[str, date]) -> str:
    """When a record comes in."""
    begun = str(resource.get("performedDateTime") or resource.get("performedPeriod", {}).get("start", ""))
    day = late.get(begun[:7]) if resource["resourceType"] == "Procedure" else None
    recorded = str(resource["meta"]["lastUpdated"])
    return recorded if day is None else max(recorded, f"{day}T00:00:00+00:00")


class Facility:
    """A facility between a hospital and an accreditation body.

    Attributes:
        said: (day, title) of everything that people were told.
        runs: How the nights ended.
        received: What the body has.
    """

    def __init__(self, folder: Path, hospital: Growing, clock: Clock, about: Collection[str]) -> None:
        self.about = about
        self.folder, self.clock, self.hospital = folder, clock, hospital
        self.said: list[tuple[str, str]] = []
        self.runs: Counter[str] = Counter()
        self.faults(Faults())
        self.received = ReceiverStore(f"sqlite:///{folder / 'receiver.sqlite'}")
        self.body = LoopbackServer(Dated(receiver_app(self.received), clock))
        (folder / "token").write_text("first", encoding="utf-8")  # once: somebody may be reading it later on
        self.config = Config.model_validate(self.document())
        self.rules = rules_for(self.config)

    def document(self) -> Json:
        """The configuration."""
        token = {"kind": "bearer", "token": {"file": str(self.folder / "token")}}
        url = f"{self.hospital.server.base_url}/fhir"
        server = {"name": "sandbox", "kind": "fhir", "url": url, "retries": 0, "reconcile_days": 28, "auth": token}
        table = {"system": LOCAL_SYSTEM, "file": str(shipped_path("config", "sandbox-local-codes.csv"))}
        return {
            "facility": {"code": "Y-1", "time_zone": "Europe/Berlin"},
            "sources": [server],
            "mappings": {"site_tables": [table]},
            "ledger": {"path": str(self.folder / "ledger.sqlite")},
            "review": {"key_file": str(self.folder / "pseudonym.key")},
            "submission": {"url": f"{self.body.base_url}/fhir", "automatic": True, "approver": APPROVER},
            "output": {"folder": str(self.folder / "out")},
            "notify": {"targets": [{"name": "it", "url": {"env": "NOT_READ"}, "about": self.about}]},
        }

    def faults(self, faults: Faults) -> None:
        """How the server misbehaves from now on."""
        self.hospital.app.planner = FaultPlanner(faults)

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

    def downgraded(self, revision: str) -> None:
        """The ledger as an earlier version of this program would have left it, in its place.

        The real migrations make that version's schema; every row goes into it with the columns that there were, and
        what only came later is left behind.
        """
        path = self.folder / "ledger.sqlite"
        earlier = path.with_name("earlier.sqlite")
        now, then = create_engine(f"sqlite:///{path}"), create_engine(f"sqlite:///{earlier}")
        with now.connect() as kept, then.begin() as connection:
            config = AlembicConfig()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            old, new = MetaData(), MetaData()
            old.reflect(connection)
            new.reflect(kept)
            for table in old.sorted_tables:
                columns = [new.tables[table.name].c[column.name] for column in table.columns]
                rows = [dict(row) for row in kept.execute(select(*columns)).mappings()]
                if rows and table.name != "alembic_version":
                    connection.execute(insert(table), rows)
        for engine in (now, then):
            engine.dispose()
        for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
            (self.folder / name).unlink(missing_ok=True)
        earlier.replace(path)
