"""The audit as FHIR AuditEvents, and what the adapter itself enters in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from tests.e2e.conftest import Say, say
from tests.ledgers import new_ledger

from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.ledger.audit import AuditEntry, entries, note, verify_audit
from io_fhir_adapter.ledger.audit_events import audit_event
from io_fhir_adapter.ledger.audited import note_changes, note_sent

__all__ = ["say"]

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
ENTRIES = [
    ("E", "weber", "reviewer,approver", "Account/weber", "0", "sign-in", "110114"),
    ("U", "console", "", "Account/weber", "0", "roles: viewer", "110113"),
    ("R", "weber", "reviewer", "Case/3/7", "0", "identity", "110110"),
    ("E", "weber", "reviewer", "Case/3/7", "0", "signed", "110100"),
    ("E", "adapter", "", "Outbox/sha256:ab", "8", "submission sent: rejected", "110106"),
    ("C", "adapter", "", "Mappings", "0", "now sha256:ab", "110113"),
    ("R", "weber", "administrator", "Audit", "4", "", "110100"),
]


@pytest.mark.parametrize("row", ENTRIES, ids=[f"{row[3]} {row[5]}" for row in ENTRIES])
def test_each_entry_is_a_valid_audit_event(row: tuple[str, ...]) -> None:
    action, agent, role, entity, outcome, detail, kind = row
    entry = AuditEntry(7, "2026-03-02T12:00:05.000000Z", action, outcome, agent, role, entity, detail, "d" * 64)
    event = audit_event(entry, "F-1")
    assert resource_problems(event, frozenset({"AuditEvent"})) == ()
    assert event["type"]["code"] == kind
    assert (event["action"], event["outcome"], event["recorded"]) == (action, outcome, entry.at)
    assert event["agent"][0]["who"]["identifier"]["value"] == agent
    assert [one["text"] for one in event["agent"][0].get("role", [])] == [word for word in role.split(",") if word]
    (what,) = event["entity"]
    assert what["what"]["identifier"]["value"] == entity
    assert {one["type"]: one["valueString"] for one in what["detail"]} == {"number": "7", "digest": "d" * 64}


def test_changes_of_configuration_and_mappings_are_entered_once(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    with ledger.begin() as connection:
        for digests in (
            {"Mappings": "a"},
            {"Mappings": "a"},
            {"Mappings": "b"},
            {"Mappings": "b", "Configuration": "c"},
        ):
            note_changes(connection, digests, NOON)
        note_sent(connection, "sha256:ab", "accepted", NOON)
        made = [(entry.action, entry.entity, entry.detail) for entry in entries(connection)]
        assert verify_audit(connection)[0] == 4
    ledger.close()
    assert made == [
        ("C", "Mappings", "now a, seen for the first time"),
        ("U", "Mappings", "now b, before a"),
        ("C", "Configuration", "now c, seen for the first time"),
        ("E", "Outbox/sha256:ab", "submission sent: accepted"),
    ]


def test_the_command_prints_one_event_a_line(tmp_path: Path, say: Say) -> None:
    config = tmp_path / "facility.yaml"
    source = {"name": "his", "kind": "files", "paths": ["none.ndjson"]}
    config.write_text(yaml.safe_dump({"facility": {"code": "F-1"}, "sources": [source]}), encoding="utf-8")
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    with ledger.begin() as connection:
        for number in range(3):
            note(connection, at=NOON, agent="weber", role="", action="R", entity=f"Case/1/{number}", detail="identity")
    ledger.close()
    code, out, _ = say("audit", "--format", "fhir", "--config", str(config))
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [event["id"] for event in events] == ["entry-1", "entry-2", "entry-3"]
    assert {event["source"]["observer"]["identifier"]["value"] for event in events} == {"F-1"}
    assert say("audit", "--format", "csv", "--config", str(config))[0] == 2
