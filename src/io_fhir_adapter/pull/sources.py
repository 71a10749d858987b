"""All sources of a facility: pulled one after the other, each with its own outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Any

from io_fhir_adapter.classify.recode import recode
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config, FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, ConfigError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import sources_on_record
from io_fhir_adapter.ledger.identities import settle_identities
from io_fhir_adapter.ledger.intake import stale_patients
from io_fhir_adapter.pull.bulk import pull_bulk
from io_fhir_adapter.pull.by_patient import PatientPull
from io_fhir_adapter.pull.from_files import pull_files
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.reconcile import read_whole
from io_fhir_adapter.pull.search import SearchPull
from io_fhir_adapter.pull.seldom import collecting_seldom
from io_fhir_adapter.pull.strategy import choose
from io_fhir_adapter.pull.targets import fetch_by_reference, fetch_from_files
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["fetch_resources", "names_at", "pull_sources", "scope_of"]


async def pull_sources(
    config: Config, ledger: Ledger, ruleset: Ruleset, run: int, progress: Progress
) -> list[SourceOutcome]:
    """Pulls every source; one that fails does not keep the others from being read."""
    recode(ledger, ruleset, run)
    names = [source.name for source in config.sources]
    with ledger.begin() as connection:
        if settle_identities(connection, config.facility.patient_identifier_systems, names):
            for name in names:
                read_whole(connection, name, run)
    tz = zone(config.facility.time_zone)
    outcomes = []
    with collecting_seldom():
        for source in config.sources:
            if isinstance(source, FhirSourceConfig):
                try:
                    async with FhirClient(source, f"sources.{source.name}") as client:
                        outcome = await _pull_server(source, config, client, ledger, ruleset, tz, run, progress)
                except ConfigError as exc:  # a secret, key or certificate; also one that an export has to itself
                    outcome = SourceOutcome(source.name, error=exc.sentence)
                outcomes.append(outcome)
            else:
                outcomes.append(pull_files(source, ledger, ruleset, tz, run, progress))
    with ledger.read() as connection:
        touched = stale_patients(connection)  # also those of a run that was cut off before it decided
        others = sorted(set(sources_on_record(connection)).difference(names))
    for name in others if outcomes else ():
        outcomes[0].note(f"the ledger holds records of a source that is not configured ({name}); they go on counting")
    for outcome in outcomes:
        outcome.touched = touched
    return outcomes


async def _pull_server(
    source: FhirSourceConfig,
    config: Config,
    client: FhirClient,
    ledger: Ledger,
    ruleset: Ruleset,
    tz: tzinfo,
    run: int,
    progress: Progress,
) -> SourceOutcome:
    """Pulls one server in the way that fits it."""
    try:
        choice = await choose(source, client)
    except AdapterError as exc:
        return SourceOutcome(source.name, error=exc.sentence, requests=client.requests, retried=client.retried)
    if choice.way == "bulk":
        outcome = await pull_bulk(source, config.ledger, client, ledger, ruleset, tz, run, progress)
    else:
        kind = PatientPull if choice.way == "patient" else SearchPull
        outcome = await kind(source, client, ledger, ruleset, tz, run, progress).pull()
    outcome.strategy = choice.way
    if source.strategy == "auto":
        outcome.notes.insert(0, f"read by {choice.way}: {choice.why}")
    return outcome


async def fetch_resources(config: Config, wanted: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Whole resources by (source name, reference), for the few that a case review needs."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, source in enumerate(config.sources):
        several, scope = scope_of(config, number)
        named = names_at(source.name, scope, wanted.get(source.name, ()), several=several)
        references = named.keys()
        if not references:
            continue
        if isinstance(source, FhirSourceConfig):
            async with FhirClient(source, f"sources.{source.name}") as client:
                resources = await fetch_by_reference(client, references)
        else:
            resources = fetch_from_files(source, references)
        found.update({(source.name, named[reference]): resource for reference, resource in resources.items()})
    return found


def scope_of(config: Config, number: int) -> tuple[bool, str]:
    """Whether patients of several sources are told apart, and what the ledger puts behind those of this source."""
    several = len(config.sources) > 1 and bool(config.facility.patient_identifier_systems)
    return several, f"@{config.sources[number].name}" if several and number else ""


def names_at(name: str, scope: str, references: Iterable[str], *, several: bool) -> dict[str, str]:
    """References as a source itself writes them, to the ones that they have in the ledger.

    Where patients of several sources are told apart, one of another source is not asked for: by its id alone it
    would be somebody else.
    """
    if not several:
        return {reference: reference for reference in references}
    own: dict[str, str] = {}
    for reference in references:
        bare, at, source = reference.partition("@")
        if not reference.startswith("Patient/"):
            own[reference] = reference
        elif (source == name) if at else not scope:
            own[bare] = reference
    return own
