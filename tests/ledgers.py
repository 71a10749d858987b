"""New ledgers for tests, as copies of an empty one: making one takes longer than most of what is tried on it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import Ledger, open_ledger

__all__ = ["new_ledger"]


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        open_ledger(LedgerConfig(path=path)).close()
        return path.read_bytes()


def new_ledger(path: Path) -> Ledger:
    """An open ledger with nothing in it, in a file that is not there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(_empty())
    return open_ledger(LedgerConfig(path=path))
