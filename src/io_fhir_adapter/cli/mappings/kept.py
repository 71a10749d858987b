"""The ledger that a command on the mappings looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.database import Ledger, open_ledger

__all__ = ["ledger_at"]


@contextmanager
def ledger_at(place: LedgerConfig) -> Iterator[Ledger]:
    """Opens a ledger that is there already.

    Raises:
        LedgerError: It is not, or cannot be used.
    """
    if place.url is None and place.path is not None and not place.path.is_file():
        raise LedgerError("there is no ledger yet", where=str(place.path), do="run pull first", number=7)
    ledger = open_ledger(place)
    try:
        yield ledger
    finally:
        ledger.close()
