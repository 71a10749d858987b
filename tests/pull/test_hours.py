"""A pull whose hours are over ends, keeps what it read, and goes on the next time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.ledger.runs import last_run
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.serve.jobs import HOURS_OVER


@pytest.mark.usefixtures("undrawn")
def test_a_pull_ends_with_its_hours_and_goes_on(site: Any, kit: Any) -> None:
    site.switch(Faults(latency_s=0.2))
    config = site._config({})
    with pytest.raises(PullError) as over:
        asyncio.run(Nightly(config, site.ledger, kit.ruleset, pull_for=0.5).run(dry_run=True))
    assert over.value.code == HOURS_OVER
    with site.ledger.read() as connection:
        run = last_run(connection)
    assert run is not None
    assert (run.state, run.error) == ("failed", over.value.sentence)
    assert site.cursor() == ""
    site.switch(Faults())
    night = asyncio.run(Nightly(config, site.ledger, kit.ruleset, pull_for=60).run(dry_run=True))
    assert night.complete
    assert len(site.ids("Procedure")) == 12
