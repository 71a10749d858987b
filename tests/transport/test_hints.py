"""What the check says about a connection before the first night."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.preflight import run_checks
from io_fhir_adapter.sandbox.auth_plan import AuthPlan
from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.transport.hints import connection_hints, failure_hints

NOW = datetime.now(UTC)


class Seen:
    """A client that has seen this."""

    def __init__(self, **seen: Any) -> None:
        self.clock_skew_s: float | None = None
        self.certificate_end: datetime | None = None
        self.granted_scopes: tuple[str, ...] = ()
        vars(self).update(seen)


def config(**keys: Any) -> FhirSourceConfig:
    return FhirSourceConfig.model_validate({"name": "s", "url": "https://fhir.example", **keys})


def told(seen: Seen, source: FhirSourceConfig | None = None) -> list[tuple[str, str, str]]:
    hints = connection_hints(seen, source or config(), NOW)  # type: ignore[arg-type]
    return [(hint.about, hint.state, hint.text) for hint in hints]


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (0.4, "ok", "agrees"),
        (-29, "ok", "agrees"),
        (90, "warn", "90 s behind the server's"),
        (-7200, "warn", "7,200 s ahead of the server's"),
    ],
)
def test_clocks(ahead: float, state: str, words: str) -> None:
    ((about, found, text),) = told(Seen(clock_skew_s=ahead))
    assert (about, found) == ("clock", state)
    assert words in text


@pytest.mark.parametrize(("days", "state"), [(365, "ok"), (31, "ok"), (29, "warn"), (0.1, "warn"), (-1, "fail")])
def test_certificates_that_end(days: float, state: str) -> None:
    end = NOW + timedelta(days=days)
    ((about, found, text),) = told(Seen(certificate_end=end))
    assert (about, found) == ("server certificate", state)
    assert f"{end:%Y-%m-%d}" in text


def test_scopes_that_were_not_granted() -> None:
    auth = {"kind": "smart-backend", "client_id": "a", "key": {"env": "KEY"}, "scopes": ["a.rs", "b.rs"]}
    assert told(Seen(granted_scopes=("a.rs", "b.rs")), config(auth=auth)) == [("scopes", "ok", "a.rs b.rs")]
    assert told(Seen(granted_scopes=("a.rs",)), config(auth=auth)) == [
        ("scopes", "warn", "asked for, but not granted: b.rs")
    ]
    assert told(Seen(), config(auth=auth)) == []


def test_a_proxy_of_the_environment_is_mentioned_where_nothing_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    unreached, refused = TransportError("no", number=1), TransportError("no", number=3)
    assert list(failure_hints(unreached, config(), NOW)) == []
    monkeypatch.setenv("HTTPS_PROXY", "http://user:canary@proxy.example")
    (hint,) = failure_hints(unreached, config(), NOW)
    assert "HTTPS_PROXY" in hint.text
    assert "canary" not in hint.text + hint.do
    assert list(failure_hints(refused, config(), NOW)) == []
    assert list(failure_hints(unreached, config(proxy="http://proxy.example"), NOW)) == []


def test_the_check_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "word")
    plan = AuthPlan(required=True, client_secret="word", scopes=("system/Procedure.rs", "system/Patient.rs"))
    app = create_app(SandboxStore.from_resources([]), Faults(auth=plan))
    with LoopbackServer(app) as server:
        auth = {
            "kind": "client-credentials", "client_id": "io-fhir-adapter", "client_secret": {"env": "CLIENT_SECRET"},
            "token_url": f"{server.base_url}/auth/token",
        }  # fmt: skip
        source = {"name": "s", "kind": "fhir", "url": f"{server.base_url}/fhir", "auth": auth}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"facility": {"code": "F-1"}, "sources": [source]}), encoding="utf-8")
        checks = {check.name: check for check in asyncio.run(run_checks(path))}
    assert checks["source s clock"].state == "ok"
    assert checks["source s scopes"].text == "system/Procedure.rs system/Patient.rs"


def test_the_clock_is_that_of_the_first_answer() -> None:
    async def go(server: str) -> float | None:
        source = FhirSourceConfig.model_validate({"name": "s", "url": f"{server}/fhir"})
        async with FhirClient(source, "sources.s", clock=lambda: time.time() - 120) as client:
            await client.get("metadata")
            return client.clock_skew_s

    with LoopbackServer(create_app(SandboxStore.from_resources([]))) as server:
        assert asyncio.run(go(server.base_url)) == pytest.approx(120, abs=3)
