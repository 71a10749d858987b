"""Pulling from files: an export that another tool drops is a source like any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import tzinfo

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FilesSourceConfig
from io_fhir_adapter.errors import AdapterError, PullError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.pull.decode import DECODERS, Item
from io_fhir_adapter.pull.files import Block, find_inputs, read_input
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.store import FactStore

__all__ = ["pull_files"]

_BATCH = 2_000


def pull_files(
    config: FilesSourceConfig, ledger: Ledger, ruleset: Ruleset, tz: tzinfo, run: int, progress: Progress
) -> SourceOutcome:
    """Reads all files of the source into the ledger; what did not change costs no write."""
    began = time.monotonic()
    outcome = SourceOutcome(config.name)
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
                    _store(ledger, outcome, pending.pop(item.resource_type), (config.name, ruleset, tz, run))
            for batch in pending.values():
                _store(ledger, outcome, batch, (config.name, ruleset, tz, run))
            progress(f"{config.name} files", number, len(inputs))
    except AdapterError as exc:
        outcome.error = exc.sentence
    if not outcome.error and "Procedure" not in outcome.types:
        outcome.error = PullError(
            "the files hold no Procedure", where=f"source {config.name}", do="check sources.paths", number=5
        ).sentence
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


def _store(
    ledger: Ledger, outcome: SourceOutcome, batch: list[tuple[Item, str]], how: tuple[str, Ruleset, tzinfo, int]
) -> None:
    with ledger.begin() as connection:
        stored, bad, _ = FactStore(connection, *how).put(batch)
    found = outcome.of(batch[0][0].resource_type or "unknown")
    found.read += len(batch)
    found.new += stored.new
    found.changed += stored.changed
    found.unchanged += stored.unchanged
    found.quarantined += bad
    outcome.touched |= stored.patients
