"""What a pull does without, it does not load: libraries weigh as much as all that it holds. All data is synthetic."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger

HEAVY = {"aiohttp", "alembic", "cryptography", "fhirpy", "joserfc", "requests"}
LOADED = """
import asyncio, sys
from pathlib import Path
from io_fhir_adapter.config import FhirSourceConfig, LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.pull.sources import pull_sources
from io_fhir_adapter.transport.client import FhirClient
async def main():
    config = FhirSourceConfig(name="a", kind="fhir", url="http://localhost/fhir")
    async with FhirClient(config, "sources.a"):
        open_ledger(LedgerConfig(path=Path(sys.argv[1]))).close()
asyncio.run(main())
print(sorted(sys.modules))
"""


def test_a_pull_loads_no_library_that_it_does_without(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    open_ledger(LedgerConfig(path=path)).close()
    done = subprocess.run([sys.executable, "-c", LOADED, str(path)], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert "io_fhir_adapter.pull.sources" in loaded
    assert sorted(HEAVY & loaded) == []
