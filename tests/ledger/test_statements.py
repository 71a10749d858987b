"""Many rows in one statement are the rows that one statement for each writes. All data is synthetic."""

from __future__ import annotations

import pytest

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.schema import cursors, stale
from io_fhir_adapter.ledger.statements import write_tuples

KEYS = ("source", "resource_type")
COLUMNS = ("value", "source", "run", "resource_type")  # another order than the table's


@pytest.mark.parametrize("number", [0, 1, 9, 10, 11, 30, 37])
def test_every_row_is_written_once_whatever_their_number(ledger: Ledger, number: int) -> None:
    with ledger.begin() as connection:
        connection.exec_driver_sql("INSERT INTO runs (id, started, state, summary, error) VALUES (1, '', '', '', '')")
        rows = [(f"v{one}", "s", 1, f"t{one:02}") for one in range(number)]
        write_tuples(connection, cursors, COLUMNS, rows, KEYS)
        found = connection.exec_driver_sql("SELECT value, source, run, resource_type FROM cursors ORDER BY 4")
        assert list(map(tuple, found)) == rows
        write_tuples(connection, cursors, COLUMNS, [("new", *row[1:]) for row in rows[:12]], KEYS)
        written = write_tuples(connection, cursors, COLUMNS, [("newer", *row[1:]) for row in rows], KEYS, replace=False)
        values = connection.exec_driver_sql("SELECT value FROM cursors ORDER BY resource_type").scalars()
        assert list(values) == ["new"] * min(number, 12) + [row[0] for row in rows[12:]]
        if connection.dialect.name == "sqlite":
            assert written == 0


def test_those_that_are_there_are_not_counted(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        write_tuples(connection, stale, ("patient",), [(f"Patient/{one}",) for one in range(5)], ("patient",))
        more = [(f"Patient/{one}",) for one in range(25)]
        written = write_tuples(connection, stale, ("patient",), more, ("patient",), replace=False)
        if connection.dialect.name == "sqlite":
            assert written == 20
        assert connection.exec_driver_sql("SELECT count(*) FROM stale").scalar() == 25
