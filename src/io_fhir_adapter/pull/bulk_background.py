"""Encounters, Conditions and Patients that an export of changes does not bring, because they did not change."""

from __future__ import annotations

from collections.abc import Iterable

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.fhir.structs import Condition
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.pull.bulk_ingest import subject_of
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.reading import SearchReader
from io_fhir_adapter.pull.seen import Seen, marks_of
from io_fhir_adapter.pull.store import FactStore
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["fetch_background"]


async def fetch_background(
    config: FhirSourceConfig,
    client: FhirClient,
    ledger: Ledger,
    store: FactStore,
    outcome: SourceOutcome,
    progress: Progress,
    resource_type: str,
    references: Iterable[str],
    seen: Seen,
) -> None:
    """Searches for what references name, so many at a time: by id, and Conditions by their patient.

    Args:
        config: The source.
        client: Its HTTP client.
        ledger: Takes the facts.
        store: Makes facts and writes them.
        outcome: Takes numbers and notes.
        progress: Told what is being read.
        resource_type: Encounter, Condition or Patient.
        references: References to Encounters, or to patients; those that name no id are left out.
        seen: Takes what is kept.

    Raises:
        TransportError: The server does not answer or refuses.
        PullError: What it sends is no searchset, or less than it says.
    """
    reader = SearchReader(config, client, ledger, store, outcome, progress)
    of_patients = resource_type == "Condition"
    parameter = "patient" if of_patients else "_id"
    asked = sorted(one for one in references if "?" not in one and one.count("/") == 1)
    for start in range(0, len(asked), config.batch_size):
        batch = asked[start : start + config.batch_size]
        wanted = set(batch) if of_patients else {id_of(one) for one in batch}

        def is_asked(resource: Resource | None, resource_id: str, wanted: set[str] = wanted) -> bool:
            """Whether it was asked for: a server may ignore the parameter and send everything."""
            if not of_patients:
                kept = resource_id in wanted
            else:
                kept = resource is None or (isinstance(resource, Condition) and subject_of(resource) in wanted)
            if kept and resource_id:
                seen.add(marks_of((resource_id,)))
            return kept

        values = batch if of_patients else sorted(wanted)
        await reader.read(resource_type, ((parameter, ",".join(values)),), is_asked)
