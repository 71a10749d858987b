"""What every night asks of a large ledger is answered by the index made for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.facts import all_patients, ended_procedures, mapped_encounters, mapped_patients
from io_fhir_adapter.ledger.first_load import first_load

ASKED: dict[str, Callable[[Connection], Any]] = {
    "patients of a source": lambda connection: mapped_patients(connection, "his"),
    "encounters of a source": lambda connection: mapped_encounters(connection, "his"),
    "all patients": all_patients,
    "ended": ended_procedures,
}


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("name", ASKED)
def test_sqlite_finds_mapped_procedures_by_their_index(name: str, filled: bool, tmp_path: Path) -> None:
    ledger = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
    if filled:
        with first_load(ledger):
            pass
    asked: list[tuple[str, Any]] = []
    with ledger.read() as connection:

        def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
            asked.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", note)
        ASKED[name](connection)
        event.remove(connection, "before_cursor_execute", note)
        plans = [
            step[3]
            for statement, parameters in asked
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        ]
    ledger.close()
    assert any("ix_facts_mapped" in plan for plan in plans)
