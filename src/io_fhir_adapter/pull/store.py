"""From resources read to facts in the ledger: the same for pages of a server and for files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import tzinfo

from sqlalchemy import Connection

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import tomorrow
from io_fhir_adapter.fhir.facts import condition_fact, encounter_fact, patient_fact, procedure_fact
from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure
from io_fhir_adapter.ledger.intake import (
    StoredFact,
    drop_facts,
    drop_quarantined,
    put_facts,
    put_quarantined,
)
from io_fhir_adapter.model import Quarantined
from io_fhir_adapter.pull.decode import Item
from io_fhir_adapter.pull.outcome import TypeOutcome

__all__ = ["FactStore", "known_position"]


def known_position(resource_type: str, resource_id: str, position: str) -> str:
    """Where a resource stands for good: its own reference, the place in the answer only where it has no id."""
    return f"{resource_type}/{resource_id}" if resource_type and resource_id else position


@dataclass(frozen=True, slots=True)
class FactStore:
    """Writes the resources of one source in one run.

    Attributes:
        source: Name of the source.
        ruleset: Says of each Procedure whether a row of the tables matches.
        tz: The facility's time zone.
        run: Number of the run.
        newest_wins: Whether an older version gives way to a newer one that was read before it.
        not_after: Last local date that a Procedure may carry.
    """

    source: str
    ruleset: Ruleset
    tz: tzinfo
    run: int
    newest_wins: bool = False
    not_after: str = field(default_factory=tomorrow)

    def put(
        self, connection: Connection, resource_type: str, items: Iterable[tuple[Item, str]], outcome: TypeOutcome
    ) -> None:
        """Writes items of ONE type, each with its id as far as known.

        A good one ends the quarantine of an earlier version. A broken one ends its earlier version: what was true of
        a resource before it broke must not count on unseen.

        Args:
            connection: An open transaction.
            resource_type: Their type, as far as it could be read.
            items: The resources; of several with one id the last is taken.
            outcome: Takes the numbers.
        """
        found: dict[str, StoredFact | ResourceError] = {}
        ids: dict[str, str] = {}
        for item, resource_id in items:
            position = known_position(resource_type, resource_id, item.position)
            ids[position] = resource_id
            try:
                found[position] = self._fact(item)
            except ResourceError as exc:
                found[position] = exc
        good = {position: fact for position, fact in found.items() if isinstance(fact, StoredFact)}
        bad = {position: error for position, error in found.items() if isinstance(error, ResourceError)}
        stored = put_facts(connection, list(good.values()), self.run, newest_wins=self.newest_wins)
        drop_quarantined(connection, self.source, resource_type, list(good))
        drop_facts(connection, self.source, resource_type, [ids[position] for position in bad if ids[position]])
        quarantined = [Quarantined(self.source, at, resource_type, exc.what, exc.code) for at, exc in bad.items()]
        put_quarantined(connection, quarantined, self.run)
        outcome.new += stored.new
        outcome.changed += stored.changed
        outcome.quarantined += len(bad)

    def _fact(self, item: Item) -> StoredFact:
        resource = item.resource
        if isinstance(resource, Procedure):
            fact = procedure_fact(resource, self.source, self.tz, item.fallback_id, not_after=self.not_after)
            reading = read_codes(fact, self.ruleset)
            return StoredFact(fact, bool(reading.findings), reading.known_system)
        if isinstance(resource, Condition):
            return StoredFact(condition_fact(resource, self.source, self.tz, item.fallback_id))
        if isinstance(resource, Encounter):
            return StoredFact(encounter_fact(resource, self.source, self.tz, item.fallback_id))
        if isinstance(resource, Patient):
            return StoredFact(patient_fact(resource, self.source, self.tz, item.fallback_id))
        raise ResourceError(item.problem or "of a type that was not asked for", number=10)
