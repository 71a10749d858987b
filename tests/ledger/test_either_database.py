"""A ledger in PostgreSQL holds what one in SQLite holds: jobs one at a time, and whole nights."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.demo import demo_config
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import Ledger, among, open_ledger, upsert
from io_fhir_adapter.ledger.lease import LEASE, give_back, renew, take
from io_fhir_adapter.ledger.runs import write_state
from io_fhir_adapter.ledger.schema import state
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore

NOW = datetime(2026, 1, 30, 2, 30, tzinfo=UTC)
AS_OF = date(2026, 1, 30)
TABLES = {
    "facts": "select source, resource_type, id, patient, status, day, digest, data from facts",
    "decisions": "select * from decisions",
    "quarantine": "select source, resource_type, position, reason, code from quarantine",
    "cursors": "select source, resource_type, value from cursors where resource_type <> 'reconciled'",
    "stale": "select patient from stale",
    "draws": "select programme, period, window_start, window_end, digest, frame_size from draws",
}


def content(ledger: Ledger) -> dict[str, list[tuple[Any, ...]]]:
    """What does not hang on our own clock or on the nonce of a draw."""
    with ledger.read() as connection:
        return {
            name: sorted(
                tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
                for row in connection.execute(text(query))
            )
            for name, query in TABLES.items()
        }


def test_one_holder_at_a_time(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        assert take(connection, "one", NOW) == ""
        assert take(connection, "two", NOW) == "one"
        assert renew(connection, "one", NOW + LEASE)
        assert not renew(connection, "two", NOW + LEASE)
        assert take(connection, "two", NOW + LEASE + timedelta(minutes=1)) == "one"
        assert take(connection, "two", NOW + 2 * LEASE + timedelta(minutes=1)) == ""
        give_back(connection, "one")
        assert take(connection, "three", NOW + 2 * LEASE) == "two"
        give_back(connection, "two")
        assert take(connection, "three", NOW) == ""


def test_a_text_that_holds_a_nul_is_written_all_the_same(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        write_state(connection, "a", "b\0c")
        upsert(connection, state, [{"name": "d", "value": "e\0"}, {"name": "f\0", "value": "ü"}], ("name",))
        found = {row.name: row.value for row in connection.execute(select(state.c.name, state.c.value))}
        assert len(connection.execute(select(state).where(among(connection, state.c.name, ["d", "x\0"]))).all()) == 1
    assert {name.rstrip("\0"): value.replace("\0", "") for name, value in found.items()} == {
        "a": "bc", "d": "e", "f": "ü",
    }  # fmt: skip


@pytest.mark.xdist_group("postgresql")
def test_a_database_that_is_not_there(postgres: Any) -> None:
    with pytest.raises(LedgerError, match="the ledger cannot be opened") as caught:
        open_ledger(postgres.config("nowhere"))
    assert "adapter@/nowhere" in caught.value.sentence


@pytest.mark.xdist_group("postgresql")
def test_an_empty_database_gets_the_schema_and_keeps_what_is_in_it(postgres: Any) -> None:
    config = postgres.config(postgres.make(empty=True))
    for number in range(2):
        ledger = open_ledger(config)
        with ledger.begin() as connection:
            assert (take(connection, f"holder {number}", NOW) == "") is (number == 0)
        ledger.close()


def nights(hospital: Hospital, ledger: LedgerConfig, folder: Path) -> list[dict[str, list[tuple[Any, ...]]]]:
    """Two nights: pulled, decided, counted and drawn; and what the ledger holds after each."""
    folder.mkdir()
    key = folder / "pseudonym.key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    resources = [resource for found in hospital.resources.values() for resource in found]
    store = SandboxStore.from_resources(resources, hospital.broken, hospital.later, clock=lambda: NOW)
    held = []
    with ExitStack() as stack:
        source = stack.enter_context(LoopbackServer(sandbox_app(store))).base_url
        own = {"ledger": ledger, "submission": None}
        config = demo_config(f"{source}/fhir", "http://127.0.0.1:9", folder).model_copy(update=own)
        opened = open_ledger(ledger)
        stack.callback(opened.close)
        for _ in range(2):
            night = asyncio.run(Nightly(config, opened, rules_for(config), as_of=AS_OF).run())
            assert night.problem is None
            held.append(content(opened))
            store.apply_later()
    return held


@pytest.mark.xdist_group("postgresql")
def test_nights_leave_the_same_in_either_database(postgres: Any, tmp_path: Path) -> None:
    hospital = build_hospital(patients=60, procedures=600)
    there = nights(hospital, postgres.config(postgres.make()), tmp_path / "postgresql")
    here = nights(hospital, LedgerConfig(path=tmp_path / "ledger.sqlite"), tmp_path / "sqlite")
    assert there == here
    assert all(here[0][name] for name in TABLES if name != "stale")
    assert here[0]["facts"] != here[1]["facts"]
