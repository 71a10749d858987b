"""One job at a time on a ledger."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.lease import LEASE, give_back, only_job, renew, take

NOW = datetime(2026, 1, 30, 2, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    made = open_ledger(LedgerConfig(path=path))
    yield made
    made.close()


def test_the_first_takes_it_and_the_second_hears_who_has_it(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        assert take(connection, "process 1 on a", NOW) == ""
        assert take(connection, "process 2 on b", NOW + SECOND) == "process 1 on a"


def test_it_is_free_again_when_given_back(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        take(connection, "a", NOW)
        give_back(connection, "b")
        assert take(connection, "b", NOW) == "a"
        give_back(connection, "a")
        assert take(connection, "b", NOW) == ""


def test_a_dead_holders_lease_runs_out(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        take(connection, "a", NOW)
        assert take(connection, "b", NOW + LEASE) == "a"
        assert take(connection, "b", NOW + LEASE + SECOND) == ""
        assert not renew(connection, "a", NOW + LEASE + SECOND)


def test_a_holder_that_died_on_this_machine_is_followed_at_once(ledger: Ledger) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = f"process {int(done.stdout)}.1 on {socket.gethostname()}"
    elsewhere = f"process {int(done.stdout)}.1 on another-{socket.gethostname()}"
    with ledger.begin() as connection:
        take(connection, dead, NOW)
        assert take(connection, elsewhere, NOW) == ""
        assert take(connection, dead, NOW + SECOND) == elsewhere  # of another machine nothing is known


def test_a_living_holder_keeps_it(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        take(connection, "a", NOW)
        assert renew(connection, "a", NOW + LEASE)
        assert take(connection, "b", NOW + LEASE + SECOND) == "a"


def test_a_name_that_ends_like_anothers_is_not_taken_for_it(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        take(connection, "process 11", NOW)
        assert not renew(connection, "1", NOW)
        assert not renew(connection, "%", NOW)


def test_another_process_is_told_to_wait(ledger: Ledger, path: Path) -> None:
    other = open_ledger(LedgerConfig(path=path))
    try:
        with only_job(ledger):
            with pytest.raises(LedgerError, match="another job is under way") as refused, only_job(other):
                pytest.fail("two at a time")
            assert refused.value.transient
            assert refused.value.code == "IOA-LED-006"
        with only_job(other):
            pass
    finally:
        other.close()


def test_it_is_given_back_after_an_error(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), only_job(ledger):
        raise ZeroDivisionError
    with only_job(ledger):
        pass
