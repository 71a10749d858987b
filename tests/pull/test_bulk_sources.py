"""An export as the second of several sources: patients carry its name in the ledger, and not in its files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.facts import referenced
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull.sources import pull_sources

Make = Callable[..., Any]


def test_a_record_that_was_merged_is_remembered_by_the_next_night(make_site: Make, kit: Any, tmp_path: Path) -> None:
    link = [{"type": "replaced-by", "other": {"reference": "Patient/d"}}]
    clinic = make_site([kit.procedure("p", "1"), kit.person("1")], own=True)
    archive = make_site([kit.procedure("q", "a"), kit.person("a", link=link)], own=True)  # of d there is nothing yet
    export = {"strategy": "bulk", "overlap_minutes": 0, "bulk": {"poll_min_s": 0, "poll_max_s": 0.01}}
    config = Config.model_validate(
        {
            "facility": {"code": "F", "patient_identifier_systems": ["urn:mrn"]},
            "sources": [
                {"name": "clinic", "kind": "fhir", "url": f"{clinic.url}/fhir"},
                {"name": "archive", "kind": "fhir", "url": f"{archive.url}/fhir", **export},
            ],
            "ledger": {"path": tmp_path / "both.sqlite"},
        }
    )
    ledger = open_ledger(config.ledger)

    def night() -> None:
        with ledger.begin() as connection:
            run = start_run(connection, datetime.now(UTC))
        outcomes = asyncio.run(pull_sources(config, ledger, kit.ruleset, run, lambda *_: None))
        assert [outcome.error for outcome in outcomes] == ["", ""]

    night()
    archive.store.put(kit.person("d", meta={}))
    archive.store.put(kit.condition("c", "d", meta={}))
    night()
    with ledger.read() as connection:
        found = {kind: referenced(connection, "archive", kind) for kind in ("Patient", "Condition")}
    ledger.close()
    assert found == {"Patient": {"a", "d"}, "Condition": {"c"}}
