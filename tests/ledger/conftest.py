"""Ledgers in a temporary folder, and in a PostgreSQL that is started where the machine has one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import Ledger, open_ledger

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

    def config(self, name: str) -> LedgerConfig:
        """The configuration of a ledger in that database."""
        return LedgerConfig.model_validate({"url": f"postgresql+psycopg://adapter@/{name}?host={self._folder}"})

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
    if _program("initdb") is None:
        pytest.skip("postgres is not installed")
    with tempfile.TemporaryDirectory(prefix="io-fhir-adapter-") as folder:
        server = Postgres(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger, in either database."""
    if request.param == "sqlite":
        opened = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
        yield opened
        opened.close()
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.make()
    opened = open_ledger(server.config(name))
    yield opened
    opened.close()
    server.drop(name)
