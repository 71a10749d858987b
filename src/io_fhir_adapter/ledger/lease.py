"""One job at a time on a ledger, whatever process or machine it runs in.

The holder is a row in the ledger, written in one statement, so that two who come at the same moment cannot both have
it. A living holder renews it; one that died leaves it to run out.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, update
from sqlalchemy.dialects import postgresql, sqlite

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.runs import read_state
from io_fhir_adapter.ledger.schema import state

__all__ = [
    "BUSY", "LEASE", "forget_job", "give_back", "holder_of", "holding", "job_of", "new_holder", "only_job", "renew",
    "take",
]  # fmt: skip

LEASE: Final = timedelta(minutes=3)
"""How long a holder that says nothing is taken to be alive."""
BUSY: Final = "IOA-LED-006"
"""Code of the error that says that another one is at it."""
_RENEW_S = 30.0
_NAME = "job"
_HOLDER: Final = re.compile(r"process (?P<pid>\d+)\.\d+ on (?P<host>.+?)(?: \((?P<space>[0-9a-f]+-\d+)\))?")


def new_holder() -> str:
    """A name for a holder in this process, unlike any other's."""
    space = f" ({_space()})" if _space() else ""
    return f"process {os.getpid()}.{secrets.randbits(48)} on {socket.gethostname()}{space}"


@cache
def _space() -> str:
    """In which processes are numbered as in this one, empty where the system does not say.

    Two containers may have the same name of their host, and two machines that are copies of one; the number of a living
    process of the one is that of none in the other.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return f"{boot.strip().replace('-', '')[:12]}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def take(connection: Connection, holder: str, now: datetime, name: str = _NAME) -> str:
    """Takes the lease where it is free or run out.

    Args:
        connection: An open transaction.
        holder: Who takes it.
        now: When.
        name: Which one: the ledger's only job where omitted.

    Returns:
        Empty where it is taken now, else who has it.
    """
    value = f"{timestamp(now + LEASE)} {holder}"
    free = state.c.value < timestamp(now)
    present = read_state(connection, name)
    if _has_died(present.partition(" ")[2]):
        free |= state.c.value == present
    insert = postgresql.insert(state) if connection.dialect.name == "postgresql" else sqlite.insert(state)
    claim = insert.values(name=name, value=value).on_conflict_do_update(
        index_elements=["name"], set_={"value": value}, where=free
    )
    connection.execute(claim)  # not every driver says how many rows an upsert wrote
    written = read_state(connection, name)
    return "" if written == value else written.partition(" ")[2] or "another process"


def _has_died(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more; of other machines nothing is known."""
    found = _HOLDER.fullmatch(holder)
    if found is None or found["host"] != socket.gethostname() or (found["space"] or _space()) != _space():
        return False
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def job_of(connection: Connection, now: datetime) -> tuple[str, bool]:
    """Who works on the ledger, empty where nobody does, and whether that one is taken to be alive."""
    return holder_of(connection, now, _NAME)


def holder_of(connection: Connection, now: datetime, name: str) -> tuple[str, bool]:
    """Who has that lease, empty where nobody has, and whether that one is taken to be alive."""
    until, _, holder = read_state(connection, name).partition(" ")
    return holder, bool(holder) and until >= timestamp(now) and not _has_died(holder)


def forget_job(connection: Connection) -> None:
    """Takes the lease from whoever has it: for a copy of a ledger, whose holder works on the ledger itself."""
    connection.execute(delete(state).where(state.c.name == _NAME))


def renew(connection: Connection, holder: str, now: datetime, name: str = _NAME) -> bool:
    """Holds on to the lease; says whether it was still the holder's."""
    value = f"{timestamp(now + LEASE)} {holder}"
    ours = (state.c.name == name) & state.c.value.endswith(f" {holder}", autoescape=True)
    return connection.execute(update(state).where(ours).values(value=value)).rowcount == 1


def give_back(connection: Connection, holder: str, name: str = _NAME) -> None:
    """Ends the holder's lease; another's stays."""
    ours = (state.c.name == name) & state.c.value.endswith(f" {holder}", autoescape=True)
    connection.execute(delete(state).where(ours))


@contextmanager
def only_job(ledger: Ledger) -> Iterator[None]:
    """For as long as the block runs, no other process starts a job on this ledger.

    Raises:
        LedgerError: On entering, where another one is at it.
    """
    holder = new_holder()
    with ledger.begin() as connection:
        other = take(connection, holder, datetime.now(UTC))
    if other:
        raise LedgerError(
            f"another job is under way ({other})",
            where=ledger.name,
            do=f"wait until it has ended; one that died is over after {LEASE.total_seconds() / 60:.0f} minutes",
            number=6,
            transient=True,
        )
    with holding(ledger, holder):
        yield


@contextmanager
def holding(ledger: Ledger, holder: str, name: str = _NAME, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds on to a lease that was taken for as long as the block runs, and gives it back.

    Args:
        ledger: Has the lease.
        holder: Who took it.
        name: Which one.
        lost: Called, from another thread, where it was found to be another's: this process stood still so long, or did
            not reach the ledger, that it was taken to be dead.
    """
    ended = threading.Event()

    def hold() -> None:
        while not ended.wait(_RENEW_S):
            with suppress(LedgerError), ledger.begin() as connection:  # a busy database: once more in half a minute
                ours = renew(connection, holder, datetime.now(UTC), name)
                if not ours:
                    lost()
                    return

    thread = threading.Thread(target=hold, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with ledger.begin() as connection:
            give_back(connection, holder, name)
