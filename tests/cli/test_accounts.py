"""The accounts and audit commands: what a user sees, and that a password is never an argument."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from argon2 import PasswordHasher
from sqlalchemy import create_engine

from io_fhir_adapter.cli import accounts
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.look.passwords import Passwords

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on a facility's configuration; gives exit code, stdout and stderr."""
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "Passwords", lambda: Passwords(weak))
    config = tmp_path / "hospital.yaml"
    document = {
        "facility": {"code": "S-1"},
        "sources": [{"name": "a", "kind": "files", "paths": ["x"]}],
        "sign_in": {"accounts": True},
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    (tmp_path / "password").write_text("correct horse battery\n", encoding="utf-8")

    def say(*arguments: str) -> tuple[int, str, str]:
        code = run([*arguments, "--config", str(config)])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return say


@pytest.fixture
def password(tmp_path: Path) -> tuple[str, str]:
    return "--password-file", str(tmp_path / "password")


def test_an_account_through_its_life(call: Run, password: tuple[str, str]) -> None:
    assert call("accounts", "list")[1] == "no account yet; make one with accounts add\n"
    add = ("accounts", "add", "Weber", "--display", "Dr. Weber", "--role", "approver", "--role", "viewer")
    assert call(*add, *password) == (0, "weber added; roles: viewer,approver\n", "")
    found = json.loads(call("accounts", "list", "--json")[1])
    assert found[0].pop("password_changed")
    assert found == [
        {
            "name": "weber",
            "display": "Dr. Weber",
            "roles": ["viewer", "approver"],
            "disabled": False,
            "one_time_password": False,
            "locked": False,
        }
    ]
    assert call("accounts", "roles", "weber")[1] == "weber changed; roles: none\n"
    assert call("accounts", "disable", "weber")[0] == 0
    assert "disabled" in call("accounts", "list")[1]
    assert call("accounts", "enable", "weber")[0] == 0
    assert call("accounts", "password", "weber", "--one-time", *password)[0] == 0
    assert json.loads(call("accounts", "list", "--json")[1])[0]["one_time_password"] is True
    entries = [json.loads(line) for line in call("audit", "--json")[1].splitlines()]
    assert [entry["detail"] for entry in entries] == [
        "account added, roles viewer,approver",
        "roles viewer,approver to none",
        "account disabled",
        "account enabled",
        "one-time password given",
    ]
    assert {entry["agent"] for entry in entries} == {"console"}
    assert "horse" not in json.dumps(entries)
    shown = call("audit")[1].splitlines()
    assert len(shown) == 5
    assert shown[0].endswith("C  console  Account/weber  account added, roles viewer,approver")
    checked = json.loads(call("audit", "--verify", "--json")[1])
    assert checked == {"entries": 5, "digest": entries[-1]["digest"]}
    assert call("audit", "--verify")[1].startswith("5 entries, each follows from those before; sha256:")


def test_a_password_may_be_typed(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def prompt(text: str, **how: object) -> str:
        asked.append({"text": text, **how})
        return "correct horse battery"

    monkeypatch.setattr("typer.prompt", prompt)
    assert call("accounts", "add", "weber")[0] == 0
    assert asked == [{"text": "Password", "hide_input": True, "confirmation_prompt": True}]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("short", "IOA-USE-033"),
        ("x" * 257, "IOA-USE-033"),
        ("this is weber's own", "IOA-USE-034"),
        ("abababababab", "IOA-USE-034"),
        ("", "IOA-USE-033"),
    ],
)
def test_a_password_that_is_easy_to_guess_is_refused(text: str, code: str, call: Run, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(text, encoding="utf-8")
    done = call("accounts", "add", "weber", "--password-file", str(tmp_path / "password"))
    assert (done[0], done[1]) == (2, "")
    assert done[2].endswith(f"[{code}]\n")
    assert call("accounts", "list", "--json")[1] == "[]\n"


def test_what_is_wrong_is_one_sentence(call: Run, password: tuple[str, str]) -> None:
    call("accounts", "add", "weber", *password)
    for arguments, code in (
        (("accounts", "add", "weber", *password), "IOA-USE-031"),
        (("accounts", "add", "we ber", *password), "IOA-USE-030"),
        (("accounts", "add", "other", "--role", "boss", *password), "IOA-USE-035"),
        (("accounts", "add", "other", "--password-file", "absent"), "IOA-USE-036"),
        (("accounts", "password", "absent"), "IOA-USE-032"),
        (("accounts", "disable", "absent"), "IOA-USE-032"),
    ):
        exit_code, out, err = call(*arguments)
        assert (exit_code, out) == (2, ""), arguments
        assert err.count("\n") == 1
        assert err.endswith(f"[{code}]\n")


def test_an_audit_that_was_changed_is_told(call: Run, password: tuple[str, str], tmp_path: Path) -> None:
    call("accounts", "add", "weber", *password)
    engine = create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_no_update")
        connection.exec_driver_sql("UPDATE audit SET agent = 'nobody'")
    engine.dispose()
    code, out, err = call("audit", "--verify")
    assert (code, out) == (1, "")
    assert err.endswith("[IOA-LED-030]\n")
