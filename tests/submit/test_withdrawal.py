"""Taking a submission back: once, with a reason, by who may, and through the same gate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.canonical_urls import APPROVER_SYSTEM
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import SubmitError, UsageError
from io_fhir_adapter.handover.withdrawing import Approver, Withdrawal, withdraw
from io_fhir_adapter.ledger.accounts import Account, Actor, account_of, add_account
from io_fhir_adapter.ledger.approvals import approval_of, approve, clears, hold_unapproved
from io_fhir_adapter.ledger.audit import entries
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.outbox import enqueue, item, items, settle, supersede_open
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.receiver.checks import Rules, check_transaction
from io_fhir_adapter.receiver.checks import Withdrawal as Checked
from io_fhir_adapter.submit.seal import SubmissionContent, seal
from io_fhir_adapter.submit.withdrawal import WITHDRAWING
from io_fhir_adapter.trust.canonical import canonical_json, digest_bytes
from io_fhir_adapter.trust.keys import new_signature_key, public_set
from io_fhir_adapter.trust.signature import check_signature

NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
KEY = new_signature_key("ES256")
PASSWORD = "a long password of nobody"


class Office:
    """A facility that lays its submissions into a folder; one submission of 2025 was accepted."""

    def __init__(self, folder: Path, accepted: dict[str, Any], **changes: Any) -> None:
        self.folder = folder
        put_owner_only(folder / "signing-key.json", json.dumps(KEY.as_dict(private=True)).encode())
        self.settings = {
            "facility": {"code": "F-001"},
            "sources": [{"name": "files", "kind": "files", "paths": ["*.ndjson"]}],
            "ledger": {"path": str(folder / "ledger.sqlite")},
            "review": {"key_file": str(folder / "pseudonym.key")},
            "submission": {
                "channel": "file-drop",
                "folder": str(folder / "drop"),
                "signing_key": {"file": str(folder / "signing-key.json")},
            },
            **changes,
        }
        self.config = Config.model_validate(self.settings)
        self.ledger: Ledger = open_ledger(self.config.ledger)
        self.name = str(accepted["identifier"]["value"])
        with self.ledger.begin() as connection:
            enqueue(connection, self.name, "2025", canonical_json(accepted), NOW)
            settle(connection, self.name, "accepted")

    def withdraw(self, reason: str = "counted-wrongly", approver: Account | None = None) -> Withdrawal:
        says = Approver(approver.name, approver.display, approver.roles) if approver is not None else None
        return asyncio.run(withdraw(self.config, self.ledger, self.name, reason, approver=says))

    def account(self, name: str, *roles: Any) -> Account:
        hashed = Passwords().hash(PASSWORD)
        with self.ledger.begin() as connection:
            return add_account(
                connection, name, f"Dr. {name.title()}", hashed, roles, one_time=False, by=Actor("console", ""), at=NOW
            )


@pytest.fixture
def office(tmp_path: Path, make_content: Callable[..., SubmissionContent]) -> Iterator[Office]:
    made = Office(tmp_path, seal(make_content(), NOW))
    yield made
    made.ledger.close()


@pytest.fixture
def guarded(tmp_path: Path, make_content: Callable[..., SubmissionContent]) -> Iterator[Office]:
    """The same where people sign in."""
    made = Office(tmp_path, seal(make_content(), NOW), sign_in={"accounts": True})
    yield made
    made.ledger.close()


def test_a_withdrawal_leaves_signed_and_is_what_the_receiver_asks_for(office: Office) -> None:
    made = office.withdraw()
    assert (made.fresh, made.item.state, made.item.period) == (True, "sent", "withdrawal 2025")
    (dropped,) = (office.folder / "drop").glob("*.json")
    bundle = json.loads(dropped.read_bytes())
    assert dropped.read_bytes() == made.item.body
    found = check_transaction(bundle, Rules(keys=lambda _: public_set(KEY)))
    assert isinstance(found, Checked)
    assert (found.withdrawn, found.reason, found.facility) == (office.name, "counted-wrongly", "F-001")
    assert found.identifier == made.item.identifier
    assert check_signature(bundle, public_set(KEY)) == KEY.kid
    with office.ledger.read() as connection:
        kept = item(connection, office.name)
        last = list(entries(connection))[-1]
    assert kept is not None
    assert kept.state == "accepted"  # what was said and answered stays as it was
    assert (last.agent, last.entity, last.detail) == (
        "console", f"Submission/{office.name}", "withdrawn: counted-wrongly"
    )  # fmt: skip


def test_it_is_withdrawn_once_whatever_is_said_later(office: Office) -> None:
    first, again = office.withdraw(), office.withdraw("other")
    assert (again.fresh, again.item.identifier) == (False, first.item.identifier)
    with office.ledger.begin() as connection:
        assert len(items(connection)) == 2
        supersede_open(connection, "2025")  # a new submission of the year does not take the withdrawal's place
        assert [one.state for one in items(connection)] == ["sent", "accepted"]


def test_a_withdrawal_that_was_refused_can_be_made_anew(office: Office) -> None:
    first = office.withdraw()
    with office.ledger.begin() as connection:
        settle(connection, first.item.identifier, "rejected", "the body refused it")
    again = office.withdraw("other")
    assert (again.fresh, again.item.identifier == first.item.identifier) == (True, False)


def test_nothing_else_leaves_with_it(office: Office, make_content: Callable[..., SubmissionContent]) -> None:
    other = seal(make_content(programme="degir"), NOW)
    body, identifier = canonical_json(other), str(other["identifier"]["value"])
    with office.ledger.begin() as connection:
        enqueue(connection, identifier, "2025", body, NOW, held=True)
        approve(connection, None, identifier, digest_bytes(body), by="chief", role="approver", at=NOW)
    office.withdraw()
    with office.ledger.read() as connection:
        kept = item(connection, identifier)
    assert kept is not None
    assert kept.state == "queued"
    assert len(list((office.folder / "drop").glob("*.json"))) == 1


def test_only_what_was_accepted_is_withdrawn(office: Office, make_content: Callable[..., SubmissionContent]) -> None:
    other = seal(make_content(programme="degir"), NOW)
    office.name = str(other["identifier"]["value"])
    with office.ledger.begin() as connection:
        enqueue(connection, office.name, "2025", canonical_json(other), NOW)
    for state in ("held", "queued", "rejected", "parked", "superseded"):
        with office.ledger.begin() as connection:
            settle(connection, office.name, state)
        with pytest.raises(SubmitError, match=state):
            office.withdraw()


def test_neither_the_unknown_nor_a_withdrawal_is_withdrawn(office: Office) -> None:
    with pytest.raises(SubmitError, match="no reason"):
        office.withdraw("because")
    made = office.withdraw()
    with office.ledger.begin() as connection:
        settle(connection, made.item.identifier, "accepted")
    office.name = made.item.identifier
    with pytest.raises(SubmitError, match="a withdrawal itself"):
        office.withdraw()
    office.name = "sha256:0"
    with pytest.raises(SubmitError, match="unknown"):
        office.withdraw()


def test_where_people_sign_in_an_approver_withdraws_and_is_named(guarded: Office) -> None:
    for somebody in (None, guarded.account("weber", "reviewer")):
        with pytest.raises(UsageError, match="only an approver"):
            guarded.withdraw(approver=somebody)
    chief = guarded.account("chief", "approver")
    made = guarded.withdraw(approver=chief)
    assert made.item.state == "sent"
    with guarded.ledger.begin() as connection:
        said, last = approval_of(connection, made.item.identifier), list(entries(connection))[-1]
        settle(connection, made.item.identifier, "queued")
        hold_unapproved(connection)
        kept = item(connection, made.item.identifier)
    assert said is not None
    assert clears(said, made.item.body)
    assert (said.by, last.agent, last.role) == ("chief", "chief", "approver")
    assert kept is not None
    assert kept.state == "queued"  # its approval is of these very bytes
    statement = json.loads(made.item.body)["entry"][0]["resource"]
    assert [agent["who"].get("identifier", {}).get("system") for agent in statement["agent"]] == [None, APPROVER_SYSTEM]
    assert "chief" not in made.item.body.decode().casefold()


def test_the_command_asks_who_it_is(guarded: Office, capsys: pytest.CaptureFixture[str]) -> None:
    guarded.account("chief", "approver")
    file, password, wrong = guarded.folder / "c.yaml", guarded.folder / "password", guarded.folder / "wrong"
    file.write_text(json.dumps(guarded.settings))  # JSON is YAML
    password.write_text(PASSWORD)
    wrong.write_text("guessed")
    given = ["withdraw", guarded.name.removeprefix("sha256:")[:12], "--config", str(file), "--reason", "case-objection"]
    assert run([*given, "--by", "chief", "--password-file", str(wrong)]) == 2
    assert "not right" in capsys.readouterr().err
    assert run(given) == 2
    assert not (guarded.folder / "drop").exists()
    assert run([*given, "--by", "chief", "--password-file", str(password)]) == 0
    said = capsys.readouterr().out
    assert WITHDRAWING["case-objection"] in said
    assert "sent" in said
    assert run([*given, "--by", "chief", "--password-file", str(password)]) == 0
    assert "made before" in capsys.readouterr().out
    with guarded.ledger.read() as connection:
        chief = account_of(connection, "chief")
        audited = [entry.detail for entry in entries(connection) if entry.outcome == "4"]
    assert chief is not None
    assert (chief.failures, audited) == (0, ["sign-in failed"])
