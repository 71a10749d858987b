"""Pulling from files: an export that another tool drops is a source like any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import tzinfo

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FilesSourceConfig
from io_fhir_adapter.errors import AdapterError, PullError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.intake import forget_quarantined
from io_fhir_adapter.pull.decode import DECODERS, Item
from io_fhir_adapter.pull.files import Block, find_inputs, read_input
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.store import FactStore

__all__ = ["pull_files"]

_BATCH = 2_000


def pull_files(
    config: FilesSourceConfig, ledger: Ledger, ruleset: Ruleset, tz: tzinfo, run: int, progress: Progress
) -> SourceOutcome:
    """Reads all files of the source into the ledger; what did not change costs no write.

    Of several versions of one resource the newest by ``meta.lastUpdated`` stands, in whatever order they lie.
    """
    began = time.monotonic()
    outcome = SourceOutcome(config.name, strategy="files")
    store = FactStore(config.name, ruleset, tz, run, newest_wins=True)
    try:
        inputs = find_inputs(config.paths)
        for number, source in enumerate(inputs, start=1):
            pending: dict[str, list[tuple[Item, str]]] = {}
            for item in _items(read_input(source)):
                if item.resource_type not in DECODERS and not item.problem:
                    continue
                resource_id = (item.resource.id if item.resource is not None else "") or item.fallback_id
                batch = pending.setdefault(item.resource_type, [])
                batch.append((item, resource_id))
                if len(batch) >= _BATCH:
                    _put(ledger, store, outcome, item.resource_type, pending.pop(item.resource_type))
            for resource_type, batch in pending.items():
                _put(ledger, store, outcome, resource_type, batch)
            progress(f"{config.name} files", number, len(inputs))
        if "Procedure" not in outcome.types:
            raise PullError(
                "the files hold no Procedure", where=f"source {config.name}", do="check sources.paths", number=5
            )
        with ledger.begin() as connection:
            forget_quarantined(connection, config.name, run)
    except AdapterError as exc:
        outcome.error = exc.sentence
    for found in outcome.types.values():
        found.complete = not outcome.error
    outcome.seconds = time.monotonic() - began
    return outcome


def _items(parts: Iterator[Block | Item]) -> Iterator[Item]:
    for part in parts:
        if isinstance(part, Item):
            yield part
            continue
        for line, resource in enumerate(part.resources, start=part.first_line):
            yield Item(f"{part.name}:{line}", part.resource_type, resource)


def _put(
    ledger: Ledger, store: FactStore, outcome: SourceOutcome, resource_type: str, batch: list[tuple[Item, str]]
) -> None:
    with ledger.begin() as connection:
        found = outcome.of(resource_type or "unknown")
        found.read += len(batch)
        store.put(connection, resource_type, batch, found)
