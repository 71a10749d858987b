"""Ledgers in a temporary folder, and in a PostgreSQL that is started where the machine has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.ledger.database import Ledger, open_ledger


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger, in either database."""
    if request.param == "sqlite":
        opened = new_ledger(tmp_path / "ledger.sqlite")
        yield opened
        opened.close()
        return
    server = request.getfixturevalue("postgres")
    name = server.make()
    opened = open_ledger(server.config(name))
    yield opened
    opened.close()
    server.drop(name)
