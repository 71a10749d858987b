"""Encounters, Conditions and Patients that an export of changes does not bring, because they did not change."""

from __future__ import annotations

from collections.abc import Iterable

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.pull.batches import Batches, is_literal
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
    """Searches for what references name, some at a time: by id, and Conditions by their patient.

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
    literal = [one for one in references if is_literal(one, "Encounter" if resource_type == "Encounter" else "Patient")]

    def noted(_: Resource | None, resource_id: str) -> bool:
        if resource_id:
            seen.add(marks_of((resource_id,)))
        return True

    values = literal if of_patients else [id_of(one) for one in literal]
    await Batches(config, reader, outcome).read(resource_type, "patient" if of_patients else "_id", values, only=noted)
