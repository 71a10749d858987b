"""What all tests share: property tests draw the same examples every time, so that a run can be repeated.

``HYPOTHESIS_PROFILE=search`` looks for new ones instead.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import settings
from tests.logging_kept import logging_put_back

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.submit.frame import draw_list, frame_group
from io_fhir_adapter.trust.drawn import Place
from io_fhir_adapter.trust.frame import Commitment, rank

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_xdist_auto_num_workers() -> int:
    """One more worker than processors: many tests wait for a server, a browser or a command of their own."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _logging_put_back() -> Iterator[None]:
    """What a test's command set up would write to that test's streams, which are closed by the next."""
    with logging_put_back():
        yield


@pytest.fixture(scope="session", autouse=True)
def _clients_of_tests() -> Iterator[None]:
    """Tests speak to this machine alone, which may be busy: their own HTTP clients are patient, and quickly made.

    Five seconds are httpx's default; and each new client would read all the public authorities anew.
    """
    with pytest.MonkeyPatch.context() as patch:
        for made in (httpx.Client.__init__, httpx.get, httpx.post):
            patch.setitem(made.__kwdefaults__ or {}, "timeout", httpx.Timeout(60))
        patch.setattr("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context))
        yield


# Hospitals of many thousand resources stay in memory from test to test; looking through them often finds nothing.
gc.set_threshold(200_000, 50, 50)


def script(name: str) -> ModuleType:
    """A script of .ci/, which is no package, as a module."""
    path = Path(__file__).resolve().parents[1] / ".ci" / name
    spec = importlib.util.spec_from_file_location(f"ci_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their charts, which take most of a second: for tests of everything else that a report says."""
    for name in ("cumulative_chart", "monthly_chart", "funnel_chart"):
        monkeypatch.setattr(f"io_fhir_adapter.report.charts.{name}", lambda *_, **__: "<svg></svg>")


@dataclass(frozen=True)
class SyntheticDraw:
    """A frame of synthetic tokens and a true draw from it."""

    commitment: Commitment
    nonce: str
    places: tuple[Place, ...]

    @property
    def tokens(self) -> list[str]:
        return [place.token for place in self.places if place.role == "case"]

    @property
    def group(self) -> dict[str, Any]:
        return frame_group(self.commitment)

    @property
    def drawn(self) -> dict[str, Any]:
        return draw_list(self.commitment.digest, self.nonce, "local", self.places)


def make_draw(
    cases: int = 3, reserves: int = 2, size: int = 120, facility: str = "F-001", seed: str = ""
) -> SyntheticDraw:
    """A true draw from a frame of synthetic tokens."""
    tokens = sorted(hashlib.sha256(f"{seed}{number}".encode()).hexdigest() for number in range(size))
    ruleset = "sha256:" + "b" * 64
    commitment = Commitment("iasios", facility, "2024-12-02", "2025-12-01", ruleset, tuple(tokens), (cases, reserves))
    nonce = "ab" * 32
    order = rank(bytes.fromhex(nonce), tokens)[: cases + reserves]
    places = [Place(token, "case" if index < cases else "reserve") for index, token in enumerate(order)]
    return SyntheticDraw(commitment, nonce, tuple(places))


@pytest.fixture(scope="session")
def synthetic_draw() -> Callable[..., SyntheticDraw]:
    """Makes a draw: ``synthetic_draw(cases=3, reserves=2, size=120, facility="F-001")``."""
    return make_draw


_SETTINGS = "-c listen_addresses= -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c shared_buffers=16MB"
_USERS = ("postgres", "nobody")
_TEMPLATE = "ledger"


def _program(name: str) -> str | None:
    """A program of PostgreSQL: on the path, or where Debian keeps those of each version."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(kept[-1]) if kept else None)


class Postgres:
    """A PostgreSQL server on a socket in a folder of its own, which nobody else can reach.

    Attributes:
        numbers: For names of databases.
    """

    def __init__(self, folder: Path) -> None:
        self.numbers = count(1)
        self._folder = folder
        self._as: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0:  # it refuses to run as root
            known = {one.pw_name: one for one in pwd.getpwall()}
            who = next(known[name] for name in _USERS if name in known)
            self._as |= {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
            os.chown(folder, who.pw_uid, who.pw_gid)

    def _run(self, name: str, *arguments: str) -> None:
        program = _program(name)
        assert program is not None
        with (self._folder / f"{name}.log").open("w") as log:
            subprocess.run([program, *arguments], check=True, stdout=log, stderr=log, timeout=120, **self._as)

    def start(self) -> None:
        """Makes a cluster and starts it; and a database with the schema, of which others are copies."""
        self._run("initdb", "-D", "data", "-U", "adapter", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._run("pg_ctl", "-D", "data", "-w", "-l", "server.log", "-o", f"-k {self._folder} {_SETTINGS}", "start")
        self._execute(f"create database {_TEMPLATE}")
        open_ledger(self.config(_TEMPLATE)).close()

    def stop(self) -> None:
        """Ends it."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(host=str(self._folder), user="adapter", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of that database."""
        return f"postgresql+psycopg://adapter@/{name}?host={self._folder}"

    def config(self, name: str) -> LedgerConfig:
        """The configuration of a ledger in that database."""
        return LedgerConfig.model_validate({"url": self.url(name)})

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, which is removed afterwards."""
        name = self.make(empty=True)
        try:
            yield self.url(name)
        finally:
            self.drop(name)

    def make(self, *, empty: bool = False) -> str:
        """A new database, with the schema or without anything."""
        name = f"test{next(self.numbers)}"
        self._execute(f"create database {name} template {'template0' if empty else _TEMPLATE}")
        return name

    def drop(self, name: str) -> None:
        """Removes a database, whoever is still connected."""
        self._execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the tests of one process, which are kept in one by their group."""
    with postgres_server() as server:
        if server is None:
            pytest.skip("postgres is not installed")
        yield server


@contextmanager
def postgres_server() -> Iterator[Postgres | None]:
    """A PostgreSQL server, None where none is installed."""
    if _program("initdb") is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="io-fhir-adapter-") as folder:
        server = Postgres(Path(folder))
        server.start()
        yield server
        server.stop()
