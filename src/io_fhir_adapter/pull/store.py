"""From resources read to facts in the ledger: the same for pages of a server and for files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from sqlalchemy import Connection

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.facts import condition_fact, encounter_fact, patient_fact, procedure_fact
from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure
from io_fhir_adapter.ledger.facts import Stored, StoredFact, drop_quarantined, put_facts, put_quarantined
from io_fhir_adapter.model import ProcedureFact, Quarantined
from io_fhir_adapter.pull.decode import Item, Resource

__all__ = ["FactStore", "known_position"]


def known_position(resource_type: str, resource_id: str, position: str) -> str:
    """Where a resource stands for good: its own reference, the place in the answer only where it has no id."""
    return f"{resource_type}/{resource_id}" if resource_type and resource_id else position


class FactStore:
    """Writes the resources of one source in one run.

    Args:
        connection: An open transaction.
        source: Name of the source.
        ruleset: Says of each Procedure whether a row of the tables matches.
        tz: The facility's time zone.
        run: Number of the run.
    """

    def __init__(self, connection: Connection, source: str, ruleset: Ruleset, tz: tzinfo, run: int) -> None:
        self._connection = connection
        self._source = source
        self._ruleset = ruleset
        self._tz = tz
        self._run = run

    def put(self, items: Sequence[tuple[Item, str]]) -> tuple[Stored, int, list[ProcedureFact]]:
        """Writes items of ONE type, each with its id as far as known.

        Returns:
            What was stored, how many were quarantined, and the Procedure facts that a row matches.
        """
        good: list[StoredFact] = []
        good_positions: list[str] = []
        bad: list[Quarantined] = []
        mapped: list[ProcedureFact] = []
        for item, resource_id in items:
            position = known_position(item.resource_type, resource_id, item.position)
            if item.problem or item.resource is None:
                reason = item.problem or "of a type that was not asked for"
                bad.append(Quarantined(self._source, position, item.resource_type, reason, "IOA-RES-010"))
                continue
            try:
                stored = self._fact(item.resource, item.fallback_id)
            except ResourceError as exc:
                bad.append(Quarantined(self._source, position, item.resource_type, exc.what, exc.code))
                continue
            good.append(stored)
            good_positions.append(position)
            if stored.mapped and isinstance(stored.fact, ProcedureFact):
                mapped.append(stored.fact)
        outcome = put_facts(self._connection, good, self._run)
        if items:
            drop_quarantined(self._connection, self._source, items[0][0].resource_type, good_positions)
        put_quarantined(self._connection, bad, self._run)
        return outcome, len(bad), mapped

    def _fact(self, resource: Resource, fallback_id: str) -> StoredFact:
        if isinstance(resource, Procedure):
            fact = procedure_fact(resource, self._source, self._tz, fallback_id)
            reading = read_codes(fact, self._ruleset)
            return StoredFact(fact, bool(reading.findings), reading.known_system)
        if isinstance(resource, Condition):
            return StoredFact(condition_fact(resource, self._source, self._tz, fallback_id))
        if isinstance(resource, Encounter):
            return StoredFact(encounter_fact(resource, self._source, self._tz, fallback_id))
        if isinstance(resource, Patient):
            return StoredFact(patient_fact(resource, self._source, self._tz, fallback_id))
        raise AssertionError(type(resource))  # pragma: no cover
