"""All sources of a facility: pulled one after the other, each with its own outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from io_fhir_adapter.classify.recode import recode
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config, FhirSourceConfig
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.intake import stale_patients
from io_fhir_adapter.pull.from_files import pull_files
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.search import SearchPull
from io_fhir_adapter.pull.targets import fetch_by_reference, fetch_from_files
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["fetch_resources", "pull_sources"]


async def pull_sources(
    config: Config, ledger: Ledger, ruleset: Ruleset, run: int, progress: Progress
) -> list[SourceOutcome]:
    """Pulls every source; one that fails does not keep the others from being read."""
    recode(ledger, ruleset, run)
    tz = zone(config.facility.time_zone)
    outcomes = []
    for source in config.sources:
        if isinstance(source, FhirSourceConfig):
            async with FhirClient(source, f"sources.{source.name}") as client:
                outcomes.append(await SearchPull(source, client, ledger, ruleset, tz, run, progress).pull())
        else:
            outcomes.append(pull_files(source, ledger, ruleset, tz, run, progress))
    with ledger.read() as connection:
        touched = stale_patients(connection)  # also those of a run that was cut off before it decided
    for outcome in outcomes:
        outcome.touched = touched
    return outcomes


async def fetch_resources(config: Config, wanted: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Whole resources by (source name, reference), for the few that a case review needs."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for source in config.sources:
        references = wanted.get(source.name)
        if not references:
            continue
        if isinstance(source, FhirSourceConfig):
            async with FhirClient(source, f"sources.{source.name}") as client:
                resources = await fetch_by_reference(client, references)
        else:
            resources = fetch_from_files(source, references)
        found.update({(source.name, reference): resource for reference, resource in resources.items()})
    return found
