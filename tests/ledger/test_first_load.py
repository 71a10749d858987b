"""The first reading of a source puts off indexes; whatever happens to it, they are there again. Data is synthetic."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import Ledger, make_key, open_ledger
from io_fhir_adapter.ledger.facts import number_of_facts, procedures_of
from io_fhir_adapter.ledger.first_load import first_load
from io_fhir_adapter.ledger.intake import Stored, StoredFact, drop_facts, put_facts, stale_patients
from io_fhir_adapter.ledger.packed import PackedProcedure, packed, put_packed
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import ProcedureFact

KEY = "uq_facts_source_resource_type_id"
ALL = {"ix_facts_mapped", "ix_facts_resource_type_patient", "ix_facts_tally", KEY}


def opened(folder: Path) -> Ledger:
    return open_ledger(LedgerConfig(path=folder / "ledger.sqlite"))


def indexes(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE '%_facts_%'")
        return {name for (name,) in rows}


def fact(name: str, patient: str = "Patient/a", text: str = "", updated: str = "") -> ProcedureFact:
    return ProcedureFact("his", name, patient, "completed", "2025-03-01", text=text, updated=updated)


def ready(one: ProcedureFact, *, mapped: bool = False) -> PackedProcedure:
    data = msgspec.msgpack.encode(one)
    return packed(one.id, one.patient, one.status, one.day, mapped, False, data, one.updated)


def put(ledger: Ledger, *items: PackedProcedure) -> Stored:
    with ledger.begin() as connection:
        run = start_run(connection, datetime.now(UTC))
        return put_packed(connection, "his", {item.id: item for item in items}, run)


def test_an_empty_ledger_is_filled_without_its_indexes_and_has_them_afterwards(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with first_load(ledger):
        assert indexes(tmp_path) == set()
        put(ledger, ready(fact("1")))
    assert indexes(tmp_path) == ALL
    with first_load(ledger):
        assert indexes(tmp_path) == ALL
    ledger.close()


def test_its_log_is_worked_in(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    log = tmp_path / "ledger.sqlite-wal"
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
        other.execute("SELECT * FROM facts").fetchall()  # with it open the log is not removed
        with first_load(ledger):
            put(ledger, *(ready(fact(str(number))) for number in range(100)))
            assert log.stat().st_size > 0
        assert log.stat().st_size == 0
    ledger.close()


def settings(ledger: Ledger) -> list[object]:
    with ledger.begin() as connection:
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("cache_size", "threads")]


@pytest.mark.parametrize("fate", ["ends", "fails", "makes the key", "cannot make indexes"])
def test_connections_have_their_usual_settings_afterwards(
    tmp_path: Path, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(tmp_path)
    usual = settings(ledger)
    with suppress(KeyError, LedgerError), first_load(ledger):
        put(ledger, ready(fact("1")))
        assert settings(ledger)[0] != usual[0]
        if fate == "fails":
            raise KeyError
        if fate == "makes the key":
            with ledger.begin() as connection:
                make_key(connection)
            assert settings(ledger) == usual
        if fate == "cannot make indexes":
            monkeypatch.setattr("io_fhir_adapter.ledger.first_load.make_indexes", refusing)
    assert settings(ledger) == usual
    ledger.close()


def refusing(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE INDEX half ON facts (no_such_column)")


def test_a_reader_does_not_hold_it_up(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM facts").fetchall()
        with first_load(ledger):
            put(ledger, ready(fact("1")))
        reader.execute("COMMIT")
    assert indexes(tmp_path) == ALL
    ledger.close()


def test_a_first_load_that_fails_leaves_the_indexes(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    empty: dict[str, PackedProcedure] = {}
    with pytest.raises(KeyError), first_load(ledger):
        put(ledger, ready(fact("1")), empty["2"])
    assert indexes(tmp_path) == ALL
    ledger.close()


def test_opening_makes_what_a_load_that_was_killed_left_out(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    load = first_load(ledger)
    load.__enter__()
    put(ledger, ready(fact("1")))
    ledger.close()  # killed: the block never ends
    assert indexes(tmp_path) == set()
    opened(tmp_path).close()
    assert indexes(tmp_path) == ALL


def texts(ledger: Ledger) -> dict[str, str]:
    with ledger.read() as connection:
        return {one.id: one.text for one in procedures_of(connection, "his", ["1", "2", "3"])}


def test_what_is_met_twice_stands_once_as_it_was_last(ledger: Ledger) -> None:
    with first_load(ledger):
        put(ledger, ready(fact("1", text="first"), mapped=True), ready(fact("2")))
        put(ledger, ready(fact("1", "Patient/b", text="last"), mapped=True), ready(fact("3")))
    assert texts(ledger) == {"1": "last", "2": "", "3": ""}
    with ledger.read() as connection:
        assert number_of_facts(connection, "his", "Procedure") == 3
        assert stale_patients(connection) == {"Patient/a", "Patient/b"}
    assert put(ledger, ready(fact("1", "Patient/b", text="last"), mapped=True)) == Stored(0, 0, 1)


def test_who_writes_one_by_one_makes_the_key_before(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with first_load(ledger):
        put(ledger, ready(fact("1", text="first")))
        put(ledger, ready(fact("1", text="second")))
        with ledger.begin() as connection:
            run = start_run(connection, datetime.now(UTC))
            assert put_facts(connection, [StoredFact(fact("1", text="third"))], run) == Stored(0, 1, 0)
        assert KEY in indexes(tmp_path)
        assert put(ledger, ready(fact("1", text="fourth")), ready(fact("2"))) == Stored(1, 1, 0)
    assert texts(ledger) == {"1": "fourth", "2": ""}
    ledger.close()


def test_what_is_gone_is_dropped_while_the_ledger_is_filled(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with first_load(ledger):
        put(ledger, ready(fact("1")), ready(fact("2")))
        put(ledger, ready(fact("1")))
        with ledger.begin() as connection:
            assert drop_facts(connection, "his", "Procedure", ["1"]) == 1
    assert texts(ledger) == {"2": ""}
    ledger.close()


def test_another_process_may_open_the_ledger_while_it_is_filled(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with first_load(ledger):
        put(ledger, ready(fact("1", text="first")))
        put(ledger, ready(fact("1", text="second")))
        opened(tmp_path).close()
        assert indexes(tmp_path) == ALL
        assert put(ledger, ready(fact("1", text="third")), ready(fact("2"))) == Stored(1, 1, 0)
    assert texts(ledger) == {"1": "third", "2": ""}
    ledger.close()


def test_opening_mends_a_load_that_was_killed_when_it_had_written_something_twice(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    first_load(ledger).__enter__()
    put(ledger, ready(fact("1", text="first")), ready(fact("2")))
    put(ledger, ready(fact("1", text="last")))
    ledger.close()  # killed: the block never ends
    again = opened(tmp_path)
    assert (texts(again), indexes(tmp_path)) == ({"1": "last", "2": ""}, ALL)
    again.close()


def test_packed_procedures_are_the_rows_that_facts_make(tmp_path: Path) -> None:
    rows = []
    for name, as_facts in (("a", True), ("b", False)):
        (tmp_path / name).mkdir()
        ledger = opened(tmp_path / name)
        one = fact("1", text="Ölung", updated="2025-03-01T00:00:00Z")
        if as_facts:
            with ledger.begin() as connection:
                put_facts(connection, [StoredFact(one, mapped=True)], start_run(connection, datetime.now(UTC)))
        else:
            put(ledger, ready(one, mapped=True))
        ledger.close()
        with sqlite3.connect(tmp_path / name / "ledger.sqlite") as plain:
            rows.append(plain.execute("SELECT * FROM facts").fetchall())
    assert rows[0] == rows[1]


def test_only_what_changed_is_written_and_makes_patients_stale(ledger: Ledger) -> None:
    assert put(ledger, ready(fact("1"), mapped=True), ready(fact("2", "Patient/b"))) == Stored(2, 0, 0)
    with ledger.begin() as connection:
        assert stale_patients(connection) == {"Patient/a"}
        connection.exec_driver_sql("DELETE FROM stale")
    assert put(ledger, ready(fact("1", updated="2025-04-01"), mapped=True)) == Stored(0, 0, 1)
    with ledger.read() as connection:
        assert stale_patients(connection) == set()
    assert put(ledger, ready(fact("1", "Patient/c"), mapped=True), ready(fact("2", "Patient/d"))) == Stored(0, 2, 0)
    with ledger.read() as connection:
        assert stale_patients(connection) == {"Patient/a", "Patient/c"}


def test_every_database_takes_a_first_load(ledger: Ledger) -> None:
    with first_load(ledger):
        assert put(ledger, ready(fact("1", text="Ölung"))) == Stored(1, 0, 0)
    assert put(ledger, ready(fact("1", text="Ölung"))) == Stored(0, 0, 1)


def test_what_is_expected_to_be_new_and_is_not_comes_out_the_same(ledger: Ledger) -> None:
    first = [ready(fact(f"{number:02}", f"Patient/{number % 4}"), mapped=number % 3 == 0) for number in range(25)]
    later = [
        *first[:8],
        *(ready(fact(f"{number:02}", f"Patient/x{number}"), mapped=number % 2 == 0) for number in range(8, 13)),
        *(ready(fact(f"{number:02}", f"Patient/{number}"), mapped=number % 2 == 0) for number in range(25, 37)),
    ]
    made = []
    for expected_new in (True, False):
        with ledger.begin() as connection:
            for table in ("facts", "stale", "runs"):
                connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608
            told: list[object] = []
            for items in (first, later, later):
                connection.exec_driver_sql("DELETE FROM stale")
                run = start_run(connection, datetime.now(UTC))
                by_id = {item.id: item for item in items}
                told.append(put_packed(connection, "his", by_id, run, expected_new=expected_new))
                rows = connection.exec_driver_sql("SELECT id, patient, mapped, digest, data FROM facts ORDER BY id")
                told.append((list(map(tuple, rows)), stale_patients(connection)))
            made.append(told)
    assert made[0] == made[1]
    assert [told for told in made[0] if isinstance(told, Stored)] == [
        Stored(25, 0, 0),
        Stored(12, 5, 8),
        Stored(0, 0, 25),
    ]


def test_what_was_written_earlier_in_the_run_keeps_its_patients_stale(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        run = start_run(connection, datetime.now(UTC))
        for items, told in (
            ([ready(fact("1"), mapped=True)], Stored(1, 0, 0)),
            ([ready(fact("1"), mapped=True), ready(fact("2", "Patient/b"), mapped=True)], Stored(1, 0, 1)),
            ([ready(fact("1", text="other"), mapped=True)], Stored(0, 1, 0)),
        ):
            by_id = {item.id: item for item in items}
            assert put_packed(connection, "his", by_id, run, expected_new=True) == told
        assert stale_patients(connection) == {"Patient/a", "Patient/b"}


def test_a_first_load_says_that_it_is_one(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with first_load(ledger) as is_first:
        assert is_first
        put(ledger, ready(fact("1")))
    with first_load(ledger) as is_first:
        assert not is_first
    ledger.close()


def test_a_name_with_a_nul_is_no_other(ledger: Ledger) -> None:
    put(ledger, ready(fact("1")), ready(fact("1x")))
    with ledger.begin() as connection:
        assert drop_facts(connection, "his", "Procedure", ["1\0x"]) == 0
        assert number_of_facts(connection, "his", "Procedure") == 2


def test_a_ledger_in_memory_is_filled_like_any_other_time() -> None:
    ledger = open_ledger(LedgerConfig(url="sqlite://"))
    with first_load(ledger) as is_first:
        assert not is_first
        put(ledger, ready(fact("1", text="kept")))
    assert texts(ledger) == {"1": "kept"}
    ledger.close()
