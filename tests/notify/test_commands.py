"""The commands for telling people, with a webhook that is called over real HTTP."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from apprise import Apprise
from tests.e2e.conftest import Say, say
from tests.ledgers import new_ledger
from tests.notify.conftest import NIGHT

from io_fhir_adapter.config.notify import TargetConfig
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.notify.send import FOOT, send

__all__ = ["say"]

Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _services() -> None:
    """Apprise loads all that it knows at the first address; one part warns of a module that will leave Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        Apprise.instantiate("json://127.0.0.1")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Json]]:
    """What a webhook heard; its address stands in the environment."""
    said: list[Json] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HOOK", f"json://127.0.0.1:{server.server_port}/hook")
        monkeypatch.setenv("BROKEN", f"json://127.0.0.1:{server.server_port}/broken")
        monkeypatch.setenv("ODD", "nothing-that-is-known")
        yield said
        server.shutdown()
        thread.join()


def written(folder: Path, *targets: str) -> str:
    """A configuration whose targets are named as the variables that hold their addresses."""
    path = folder / "facility.yaml"
    document: Json = {
        "facility": {"code": "F-1"},
        "sources": [{"name": "his", "kind": "files", "paths": [str(folder / "none.ndjson")]}],
    }
    if targets:
        document["notify"] = {"targets": [{"name": name.lower(), "url": {"env": name}} for name in targets]}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def test_a_test_message_arrives_or_the_target_is_named(heard: list[Json], tmp_path: Path, say: Say) -> None:
    code, out, err = say("notify", "test", "--config", written(tmp_path, "HOOK", "BROKEN", "ODD"))
    assert code == 1
    assert [line.split()[:2] for line in out.splitlines() if line[:1] != " "][:3] == [
        ["hook", "sent"], ["broken", "FAILED"], ["odd", "FAILED"],
    ]  # fmt: skip
    assert err.count("IOA-NET-061") == 1
    assert (heard[0]["title"], heard[0]["type"]) == ("[F-1] A test", "info")
    assert heard[0]["message"].endswith(FOOT)


def test_show_tells_nobody_and_now_tells_once(heard: list[Json], tmp_path: Path, say: Say) -> None:
    config = written(tmp_path, "HOOK")
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    with ledger.begin() as connection:
        finish_run(connection, start_run(connection, NIGHT), NIGHT, "failed", {}, "no [IOA-NET-003]")
    ledger.close()
    code, out, _ = say("notify", "show", "--config", config)
    assert (code, heard) == (0, [])
    assert "The nightly run failed (told: nobody yet)" in out
    assert say("notify", "now", "--config", config)[0] == 0
    first = {message["title"] for message in heard}
    assert "[F-1] The nightly run failed" in first
    heard.clear()
    assert "nothing new to tell" in say("notify", "now", "--config", config)[1]
    assert heard == []
    shown = json.loads(say("notify", "show", "--json", "--config", config)[1])
    assert shown["run"]["told"] == {"hook": ["IOA-NET-003"]}


def test_a_night_of_the_command_tells_also_where_it_fails(heard: list[Json], tmp_path: Path, say: Say) -> None:
    config = written(tmp_path, "HOOK")
    assert say("run", "--dry-run", "--config", config)[0] == 1
    assert heard == []
    assert say("run", "--config", config)[0] == 1
    assert "[F-1] The nightly run failed" in {message["title"] for message in heard}


@pytest.mark.parametrize(
    ("arguments", "words"), [(("test", "--target", "x"), "there is no target 'x'"), (("now",), "nobody is to be told")]
)
def test_wrong_usage_is_a_sentence(arguments: tuple[str, ...], words: str, tmp_path: Path, say: Say) -> None:
    config = written(tmp_path, *(("HOOK",) if "test" in arguments else ()))
    code, _, err = say("notify", *arguments, "--config", config)
    assert (code, words in err) == (2, True)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    target = TargetConfig.model_validate({"name": "it", "url": {"env": "A"}})
    with pytest.raises(ConfigError, match=r"notify target it: Apprise.* not installed; install it: pip install"):
        send(target, "a", "b", kind="info")
