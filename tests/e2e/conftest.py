"""One synthetic hospital and one receiver, and four nights between them, shared by all tests of this folder.

The nights are runs of the real command, the first in a process of its own as cron starts it; what each left behind is
kept. Key and nonce are always the same, so that every run of the tests draws the same patients.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import yaml
from tests.logging_kept import logging_put_back

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.demo import AS_OF, LOCAL_SYSTEM
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.receiver import store as receiver_store
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.shipped import shipped_path

NIGHT_LIMIT_S = 240
KEY = bytes(range(32)).hex().encode()
TOKEN = re.compile(r"zyx[a-z2-9]{8}", re.IGNORECASE)
Say = Callable[..., tuple[int, str, str]]


class Canaries:
    """Finds canaries in anything: all have one shape, so that one pass over the text finds every candidate."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = frozenset(token.casefold() for token in tokens)
        assert all(TOKEN.fullmatch(token) for token in self.tokens)

    def found(self, data: bytes | str) -> set[str]:
        text = data.decode("utf-8", errors="replace") if isinstance(data, bytes) else data
        forms = {text, html.unescape(text), unquote(text), text.encode().decode("unicode_escape", errors="ignore")}
        return {found.group().casefold() for form in forms for found in TOKEN.finditer(form)} & self.tokens


@dataclass(frozen=True)
class Ran:
    """One finished command and what its output folder held afterwards."""

    code: int
    out: str
    err: str
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    requests: int = 0
    sent: int = 0

    def json(self, name: str) -> Any:
        return json.loads(self.files[name])


class Recorder:
    """An ASGI application that keeps the body of every request on its way to another; submissions are posted."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.bodies: list[bytes] = []
        self.submissions: list[bytes] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body = bytearray()

        async def listening() -> MutableMapping[str, Any]:
            message: MutableMapping[str, Any] = await receive()
            body.extend(message.get("body", b""))
            return message

        await self.app(scope, listening, send)
        if body:
            self.bodies.append(bytes(body))
        if body and scope["method"] == "POST":
            self.submissions.append(bytes(body))


@dataclass
class World:
    """The hospital, the receiver, the facility between them, and its nights."""

    hospital: Hospital
    folder: Path
    config: Path
    sandbox_url: str
    received: Recorder
    first: Ran = field(default_factory=lambda: Ran(-1, "", ""))
    second: Ran = field(default_factory=lambda: Ran(-1, "", ""))
    later: Ran = field(default_factory=lambda: Ran(-1, "", ""))
    after: Ran = field(default_factory=lambda: Ran(-1, "", ""))

    @property
    def first_ledger(self) -> Path:
        """A copy of the ledger as the first night left it, before any correction."""
        return self.folder / "first-night.sqlite"

    def run(self, *arguments: str) -> Ran:
        """Runs a command of the adapter, the first one in a process of its own and later ones, quicker, in this one."""
        before, sent = self.asked(), len(self.received.submissions)
        code, out, err = (command if self.first.code < 0 else here)(*arguments)
        out_folder = self.folder / "out"
        files = {path.name: path.read_bytes() for path in out_folder.iterdir()} if out_folder.is_dir() else {}
        return Ran(code, out, err, files, self.asked() - before, len(self.received.submissions) - sent)

    def night(self) -> Ran:
        """One night."""
        return self.run("run", "--config", str(self.config), "--as-of", AS_OF.isoformat())

    def asked(self) -> int:
        """How many FHIR requests the hospital's server had so far."""
        stats = httpx.get(f"{self.sandbox_url}/_sandbox/stats", timeout=30).json()
        return int(stats["requests"]["total"])


def command(*arguments: str) -> tuple[int, str, str]:
    """Runs the command line as a user does; gives exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", "from io_fhir_adapter.cli.main import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=NIGHT_LIMIT_S,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )
    return done.returncode, done.stdout, done.stderr


def here(*arguments: str) -> tuple[int, str, str]:
    """As :func:`command`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with logging_put_back(), redirect_stdout(out), redirect_stderr(err):
        code = run(list(arguments))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in this process, where that it is one of its own is not the point; gives what `command` gives."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture(scope="session")
def hospital() -> Hospital:
    """Large enough for thirty cases; the demonstration's own is as large as a hospital."""
    return build_hospital(patients=600, procedures=3_000)


@contextmanager
def same_nonces() -> Iterator[None]:
    """The receiver gives the same nonces as in every run of the tests."""
    random = Random(20260130)
    with pytest.MonkeyPatch.context() as patch:
        seeded = SimpleNamespace(token_hex=lambda size: random.randbytes(size).hex())
        patch.setattr(receiver_store, "secrets", seeded)
        yield


@pytest.fixture(autouse=True)
def _same_nonces() -> Iterator[None]:
    with same_nonces():
        yield


def write_config(
    folder: Path, source_url: str, receiver_url: str, nonce: str = "auto", cases: int | None = None
) -> Path:
    """A facility's configuration for the sandbox and the receiver; ``cases`` asks for another sample than of thirty."""
    key = folder / "pseudonym.key"
    if not key.exists():
        put_owner_only(key, KEY)
    path = folder / "facility.yaml"
    tables = [{"system": LOCAL_SYSTEM, "file": str(shipped_path("config", "sandbox-local-codes.csv"))}]
    document = {
        "facility": {"code": "E2E-001", "name": "Sandbox Hospital (synthetic)", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "sandbox", "kind": "fhir", "url": source_url, "retries": 1, "max_retry_wait_s": 0}],
        "mappings": {"site_tables": tables},
        "submission": {
            "url": receiver_url,
            "automatic": True,
            "approver": "Head of department",
            "nonce": nonce,
            "retries": 1,
            "max_retry_wait_s": 0,
        },
        "output": {"folder": "out"},
    }
    if cases is not None:
        shipped = shipped_path("mappings", "programmes", "iasios.yaml").read_text(encoding="utf-8")
        programme = shipped.replace("  size: 30\n", f"  size: {cases}\n", 1)
        assert programme != shipped
        (folder / "programme.yaml").write_text(programme, encoding="utf-8")
        document["programme"] = "programme.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def world(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four nights: the first, one on which nothing happened, one after corrections, and one more."""
    folder = tmp_path_factory.mktemp("facility")
    store = SandboxStore.from_resources(
        [resource for resources in hospital.resources.values() for resource in resources],
        hospital.broken,
        hospital.later,
    )
    received = ReceiverStore("sqlite://")
    recorder = Recorder(receiver_app(received))
    try:
        with same_nonces(), LoopbackServer(sandbox_app(store)) as sandbox, LoopbackServer(recorder) as receiver:
            config = write_config(folder, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir")
            made = World(hospital, folder, config, sandbox.base_url, recorder)
            made.first = made.night()
            with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
                ledger.execute("VACUUM INTO ?", (str(made.first_ledger),))
            made.second = made.night()
            httpx.post(f"{sandbox.base_url}/_sandbox/advance", timeout=60).raise_for_status()
            made.later = made.night()
            made.after = made.night()
            yield made
    finally:
        received.close()
