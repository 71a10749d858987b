"""The outbox command: what was sealed and sent, in words, and sending it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml

from io_fhir_adapter.cli.console import show_night
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.audit import entries
from io_fhir_adapter.ledger.database import open_ledger, timestamp
from io_fhir_adapter.ledger.outbox import Receipt, enqueue, lease_due, put_receipt, settle
from io_fhir_adapter.ledger.verdicts import BodyVerdict, put_verdict
from io_fhir_adapter.night import Night
from io_fhir_adapter.submit.outbox_policy import LEASE
from io_fhir_adapter.submit.verdicts import Polled

Run = Callable[..., tuple[int, str, str]]

AT = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
BODY = b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"MeasureReport"}}]}'
SAID = BodyVerdict("sha256:aa", "correction-asked", "count\nthem \x1b[2Jagain", timestamp(AT), timestamp(AT), b"{}")


@pytest.fixture
def call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a facility without a network; gives exit code, stdout and stderr."""
    path = tmp_path / "hospital.yaml"
    document = {
        "facility": {"code": "F-1"},
        "sources": [{"name": "a", "kind": "files", "paths": ["x"]}],
        "submission": {"channel": "file-drop", "folder": "to-the-body"},
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")

    def say(*arguments: str) -> tuple[int, str, str]:
        code = run(["outbox", *arguments, "--config", str(path)])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return say


def fill(folder: Path) -> None:
    """One submission that was accepted after two attempts, one of them cut off; one parked, one rejected."""
    ledger = open_ledger(LedgerConfig(path=folder / "ledger.sqlite"))
    with ledger.begin() as connection:
        for letter, state in (("aa", "accepted"), ("ab", "parked"), ("cc", "rejected")):
            name = f"sha256:{letter}"
            enqueue(connection, name, "2025", BODY, AT)
            for _ in range(2):
                lease_due(connection, AT, LEASE)
                settle(connection, name, "queued", "", AT)
            put_receipt(connection, Receipt(name, timestamp(AT), 422, state, f"{state} for this reason", b"{}"))
            settle(connection, name, state, "" if state == "accepted" else f"{state} for this reason")
        put_verdict(connection, SAID)
    ledger.close()


def test_an_empty_outbox_says_so(call: Run) -> None:
    assert call("list") == (0, "the outbox is empty; the night puts submissions there, or the submit command\n", "")
    assert json.loads(call("list", "--json")[1]) == []


def test_what_was_sent_is_listed_shown_and_sent_again(call: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    code, said, _ = call("list")
    assert code == 0
    assert "accepted (attempt 2); the body asks for a correction" in said
    assert "rejected (attempt 2): rejected for this reason" in said
    assert [one["state"] for one in json.loads(call("list", "--json")[1])] == ["accepted", "parked", "rejected"]

    code, said, _ = call("show", "sha256:aa")
    assert code == 0
    assert "accepted for this reason (HTTP 422, 2 bytes kept)" in said
    assert "1 more attempt(s) were cut off" in said
    assert "the body: correction-asked, the body asks for a correction: count them [2Jagain\n" in said
    shown = json.loads(call("show", "aa", "--json")[1])
    assert (shown["receipts"][0]["status"], shown["verdicts"][0]["state"]) == (422, "correction-asked")

    code, said, _ = call("retry", "cc")
    assert (code, "Sent         sent: it lies in" in said) == (0, True)
    code, said, _ = call("retry", "--all")
    assert (code, "1 parked submission(s) queued again" in said) == (0, True)
    dropped = {path.name for path in (tmp_path / "to-the-body").iterdir()}
    assert dropped == {f"sha256-{name}.{kind}" for name in ("ab", "cc") for kind in ("json", "sha256")}
    assert "sent, waiting for its receipt" in call("list")[1]
    ledger = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
    with ledger.read() as connection:
        noted = [(one.agent, one.entity) for one in entries(connection) if one.detail == "tried once more"]
    ledger.close()
    assert noted == [("console", "Submission/sha256:cc"), ("console", "Submission/sha256:ab")]


def test_what_cannot_be_done_is_said(call: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    for arguments, code, words in (
        (("show", "zz"), 1, "no submission of the outbox is called 'zz'"),
        (("show", "a"), 1, "more than one submission"),
        (("retry", "aa"), 1, "it is accepted; only what is parked or rejected is"),
        (("retry",), 2, "give an ID or --all"),
        (("retry", "aa", "--all"), 2, "give an ID or --all"),
    ):
        done, out, err = call(*arguments)
        assert (done, out) == (code, "")
        assert words in err


def test_the_night_tells_what_the_body_said(capfd: pytest.CaptureFixture[str]) -> None:
    show_night(Night(1, date(2026, 1, 30), polled=Polled((SAID,), "it offers no verdicts")))
    said = capfd.readouterr().out
    assert "Verdict      sha256:aa… correction-asked: count them [2Jagain\n" in said
    assert "Verdict      it offers no verdicts\n" in said
