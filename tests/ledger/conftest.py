"""Ledgers in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import Ledger, open_ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
    yield opened
    opened.close()
