"""The command that runs the receiver: whom it lets in, and where it refuses to listen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from io_fhir_adapter.cli import receiver as command
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.receiver.registry import load_registry


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, which ends as soon as it listens; gives what it says."""
    monkeypatch.setattr(command, "until_stopped", lambda: None)

    def start(*arguments: str, code: int = 0) -> str:
        store = [] if "--store" in arguments else ["--store", str(tmp_path / "r.sqlite")]
        assert run(["receiver", "--port", "0", *store, *arguments]) == code
        captured = capfd.readouterr()
        return captured.err if code else captured.out

    return start


def test_who_is_registered_and_where_it_is_reached_is_said(tmp_path: Path, started: Callable[..., str]) -> None:
    path = tmp_path / "facilities.yaml"
    path.write_text("facilities: [{code: F-001}, {code: F-002}]")
    said = started("--facilities", str(path), "--base-url", "https://receiver.example/", "--require-signature")
    assert said.startswith("receiver at https://receiver.example/fhir (2 facilities)")
    assert "open to every facility" in started()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--host", "0.0.0.0"], "IOA-USE-060"),  # noqa: S104
        (["--host", "0.0.0.0", "--base-url", "https://receiver.example"], "IOA-USE-060"),  # noqa: S104
        (["--base-url", "http://receiver.example"], "IOA-USE-061"),
        (["--base-url", "receiver.example"], "IOA-USE-061"),
        (["--facilities", "none.yaml"], "IOA-CFG-045"),
        (["--store", "/nowhere/at/all.sqlite"], "IOA-CFG-046"),
        (["--store", "postgresql+psycopg://adapter:CANARY@127.0.0.1:9/none"], "IOA-CFG-046"),
        (["--store", "nosuch://database"], "IOA-CFG-046"),
    ],
)
def test_where_it_does_not_start(started: Callable[..., str], arguments: list[str], code: str) -> None:
    said = started(*arguments, code=2)
    assert f"[{code}]" in said
    assert "CANARY" not in said


def test_an_operators_password_is_asked_for_and_kept_as_a_hash(
    tmp_path: Path, started: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: "a long synthetic password")
    said = started("--hash-password", "vogt")
    assert "synthetic" not in said
    path = tmp_path / "facilities.yaml"
    path.write_text(f"facilities: []\n{said}")
    assert [one.name for one in load_registry(path).operators] == ["vogt"]
