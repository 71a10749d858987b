"""One service on a SQLite ledger: its file is on one machine, so that a second service there is a mistake.

Several services on one PostgreSQL ledger are what it is for: they share their jobs by leases (:mod:`.lease`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.backup import ledger_file

__all__ = ["only_service"]

_MODE: Final = 0o600


@contextmanager
def only_service(config: LedgerConfig) -> Iterator[None]:
    """For as long as the block runs no second service begins on a SQLite ledger; PostgreSQL takes any number.

    A lock of the operating system's on a file beside the ledger's: it ends with the process, however that ends.

    Raises:
        LedgerError: On entering, where another service has it, or the file cannot be made.
    """
    file = ledger_file(config)
    if file is None:
        yield
        return
    try:
        lock = os.open(file.with_name(f"{file.name}-service"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError as exc:
        raise LedgerError(
            "the ledger cannot be written", where=str(file), do="check the folder and its permissions"
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise LedgerError(
            "another service runs on this ledger, which is a file and takes one",
            where=str(file),
            do="stop that one, or keep the ledger in PostgreSQL (ledger.url), which takes several",
            number=9,
            transient=True,
        ) from exc
    try:
        yield
    finally:
        os.close(lock)
