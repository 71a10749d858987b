"""Opening the ledger: migrations, permissions, refusals, and what a transaction promises."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import Ledger, among, known_schemas, open_ledger, upsert
from io_fhir_adapter.ledger.migrations import upgrade
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.ledger.schema import METADATA, state


def test_the_migrations_make_the_schema(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
        made = inspect(connection)
        assert set(made.get_table_names()) == {*METADATA.tables, "alembic_version"}
        for name, table in METADATA.tables.items():
            assert made.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
            assert {index["name"] for index in made.get_indexes(name)} == {index.name for index in table.indexes}


def test_the_schemas_that_are_known_are_alembics_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent))
    assert known_schemas() == [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]


def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    config = LedgerConfig(path=tmp_path / "a" / "b" / "ledger.sqlite")
    for number in range(3):
        ledger = open_ledger(config)
        with ledger.begin() as connection:
            assert read_state(connection, "n") == ("" if number == 0 else str(number - 1))
            write_state(connection, "n", str(number))
        ledger.close()


@pytest.mark.parametrize("mode", [None, 0o644, 0o666])
def test_only_its_owner_may_read_it(tmp_path: Path, mode: int | None) -> None:
    path = tmp_path / "ledger.sqlite"
    if mode is not None:
        path.touch()
        path.chmod(mode)
    ledger = open_ledger(LedgerConfig(path=path))
    with ledger.begin() as connection:
        write_state(connection, "x", "y")
    found = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert found == dict.fromkeys(("ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal"), "0o600")
    ledger.close()


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    open_ledger(LedgerConfig(path=path)).close()
    connection = sqlite3.connect(path)
    connection.execute("update alembic_version set version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError) as caught:
        open_ledger(LedgerConfig(path=path))
    assert caught.value.sentence == (
        f"{path}: the ledger was written by a newer version; install that version or restore a backup [IOA-LED-003]"
    )


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("this is no database, but long enough to be looked at as one" * 40)
    with pytest.raises(LedgerError, match="the ledger cannot be opened"):
        open_ledger(LedgerConfig(path=path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="the ledger cannot be written"):
        open_ledger(LedgerConfig(path=tmp_path / "file" / "ledger.sqlite"))


def test_an_error_rolls_everything_back(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.begin() as connection:
            write_state(connection, "x", "y")
            connection.execute(insert(state).values(name="x", value="twice"))

    def break_off() -> None:
        with ledger.begin() as connection:
            write_state(connection, "x", "y")
            raise KeyboardInterrupt

    with pytest.raises(LedgerError, match="the database refused"):
        fail()
    with pytest.raises(KeyboardInterrupt):
        break_off()
    with ledger.read() as connection:
        assert read_state(connection, "x") == ""


def test_what_a_writer_read_does_not_change_under_it(ledger: Ledger) -> None:
    """Many writers read, add and write; none of their additions is lost, and none is told that the ledger is busy."""

    def add() -> None:
        for _ in range(5):
            with ledger.begin() as connection:
                write_state(connection, "n", str(int(read_state(connection, "n") or 0) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ledger.read() as connection:
        assert read_state(connection, "n") == "20"


def test_a_reader_holds_up_no_writer(ledger: Ledger) -> None:
    with ledger.read() as reading:
        assert read_state(reading, "x") == ""
        with ledger.begin() as connection:
            write_state(connection, "x", "y")
        assert read_state(reading, "x") == ""  # as it was at its first query
    with ledger.read() as reading:
        assert read_state(reading, "x") == "y"


def test_rows_are_replaced_or_left(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        upsert(connection, state, [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}], ("name",))
        upsert(connection, state, [{"value": "2", "name": "a"}], ("name",))
        upsert(connection, state, [{"name": "b", "value": "2"}, {"name": "c", "value": "2"}], ("name",), replace=False)
        upsert(connection, state, [], ("name",))
        found = {row.name: row.value for row in connection.execute(select(state.c.name, state.c.value))}
    assert found == {"a": "2", "b": "1", "c": "2"}


def test_any_number_of_values_in_one_condition(ledger: Ledger) -> None:
    names = [f"n'\"\\{number}ü" for number in range(40_000)]
    with ledger.begin() as connection:
        upsert(connection, state, [{"name": name, "value": ""} for name in names], ("name",))
        query = select(state.c.name).where(among(connection, state.c.name, [*names[:39_999], "other"]))
        assert len(connection.execute(query).all()) == 39_999
        assert connection.execute(select(state.c.name).where(among(connection, state.c.name, []))).all() == []


_KILLED = """
import os, signal, sys
from alembic.operations import Operations
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
made = []
create = Operations.create_table
def create_table(self, *args, **more):
    made.append(args)
    if len(made) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, *args, **more)
Operations.create_table = create_table
open_ledger(LedgerConfig(path=sys.argv[1]))
"""


def test_a_migration_that_is_killed_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    ledger = open_ledger(LedgerConfig(path=path))
    with ledger.read() as connection:
        assert read_state(connection, "x") == ""
    ledger.close()
