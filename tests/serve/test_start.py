"""What a service loads before it answers: nothing that only a night or a case needs."""

from __future__ import annotations

import subprocess
import sys

LATER = (
    "io_fhir_adapter.pipeline", "io_fhir_adapter.pull.sources", "io_fhir_adapter.doctor", "fhir.resources.R4B.measure",
    "fhirpathpy", "antlr4", "altair", "vl_convert", "alembic", "apprise", "pyspark", "duckdb",
)  # fmt: skip
SHOW = "import io_fhir_adapter.cli.service, io_fhir_adapter.serve.pages, sys; print(*sys.modules)"


def test_what_nights_and_cases_need_is_loaded_when_the_first_begins() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True, timeout=120)
    assert set(LATER) & set(done.stdout.split()) == set()
