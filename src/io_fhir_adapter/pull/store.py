"""From resources read to facts in the ledger: the same for pages of a server and for files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo

import msgspec
from sqlalchemy import Connection

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import tomorrow
from io_fhir_adapter.fhir.facts import condition_fact, encounter_fact, patient_fact, procedure_fact
from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import Fact, number_of_facts
from io_fhir_adapter.ledger.identities import Identities, identities_of
from io_fhir_adapter.ledger.intake import (
    StoredFact,
    drop_facts,
    drop_quarantined,
    put_facts,
    put_quarantined,
)
from io_fhir_adapter.ledger.packed import PackedProcedure, put_packed
from io_fhir_adapter.ledger.retention import horizon, unwanted
from io_fhir_adapter.model import PatientFact, ProcedureFact, Quarantined
from io_fhir_adapter.pull.decode import Item, Resource
from io_fhir_adapter.pull.outcome import SourceOutcome, TypeOutcome
from io_fhir_adapter.pull.packing import LONGEST, Packer, is_too_long
from io_fhir_adapter.pull.pages import Pages

__all__ = ["FactStore", "known_position"]

_REMEMBERED = 50_000  # readings of codes


def known_position(resource_type: str, resource_id: str, position: str) -> str:
    """Where a resource stands for good: its own reference, the place in the answer only where it has no id."""
    shown = resource_id[:LONGEST].replace("\0", "\ufffd")  # which no ledger holds
    return f"{resource_type}/{shown}" if resource_type and resource_id else position


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
    _identities: list[Identities] = field(default_factory=list, repr=False)
    _horizon: list[str] = field(default_factory=list, repr=False)
    _readings: dict[tuple[object, str], tuple[bool, bool]] = field(default_factory=dict, repr=False)
    _packers: list[Packer] = field(default_factory=list, repr=False)
    _all_new: list[bool] = field(default_factory=lambda: [False], repr=False)  # as the last Procedures written were

    def packer(self, ledger: Ledger) -> Packer:
        """Makes Procedures ready for :meth:`put_packed`; not for a source of which the newest version wins."""
        if not self._packers:
            with ledger.read() as connection:
                self._learn(connection)
            scope = self._identities[0].scope(self.source)
            self._packers.append(Packer(self.source, self.tz, self.not_after, scope, self._reading))
        return self._packers[0]

    def put_packed(self, connection: Connection, items: Iterable[PackedProcedure], outcome: TypeOutcome) -> None:
        """Writes Procedures that a :meth:`packer` made ready; of several with one id the last is taken."""
        given = {item.id: item for item in items}
        if self._horizon[0]:
            for name in self._unwanted(connection, {item.id: item.day for item in given.values()}):
                del given[name]
        stored = put_packed(connection, self.source, given, self.run, expected_new=self._all_new[0])
        self._all_new[0] = stored.new == len(given)
        drop_quarantined(connection, self.source, "Procedure", (f"Procedure/{name}" for name in given))
        outcome.new += stored.new
        outcome.changed += stored.changed

    def put(
        self, connection: Connection, resource_type: str, items: Iterable[tuple[Item, str]], outcome: TypeOutcome
    ) -> set[str]:
        """Writes items of ONE type, each with its id as far as known.

        A good one ends the quarantine of an earlier version. A broken one ends its earlier version: what was true of
        a resource before it broke must not count on unseen.

        Args:
            connection: An open transaction.
            resource_type: Their type, as far as it could be read.
            items: The resources; of several with one id the last is taken.
            outcome: Takes the numbers.

        Returns:
            The positions of those that were set aside.
        """
        self._learn(connection)
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
        good = self._wanted(connection, good)
        stored = put_facts(connection, list(good.values()), self.run, newest_wins=self.newest_wins)
        drop_quarantined(connection, self.source, resource_type, list(good))
        drop_facts(connection, self.source, resource_type, [ids[position] for position in bad if ids[position]])
        quarantined = [Quarantined(self.source, at, resource_type, exc.what, exc.code) for at, exc in bad.items()]
        put_quarantined(connection, quarantined, self.run)
        outcome.new += stored.new
        outcome.changed += stored.changed
        outcome.quarantined += len(bad)
        return set(bad)

    def put_sound(
        self, connection: Connection, resource_type: str, resources: Iterable[Resource], outcome: TypeOutcome
    ) -> set[str]:
        """:meth:`put` for resources that were decoded and have an id; quicker, since there are millions of them."""
        self._learn(connection)
        facts: dict[str, StoredFact] = {}
        bad: dict[str, Item] = {}
        for resource in resources:
            resource_id = resource.id or ""
            try:
                facts[resource_id] = self._fact_of(resource, "")
                bad.pop(resource_id, None)
            except ResourceError:
                facts.pop(resource_id, None)
                bad[resource_id] = Item("", resource_type, resource)
        facts = self._wanted(connection, facts)
        stored = put_facts(connection, list(facts.values()), self.run, newest_wins=self.newest_wins)
        drop_quarantined(connection, self.source, resource_type, (f"{resource_type}/{name}" for name in facts))
        outcome.new += stored.new
        outcome.changed += stored.changed
        items = [(item, resource_id) for resource_id, item in bad.items()]
        return self.put(connection, resource_type, items, outcome) if items else set()

    def put_pages(self, connection: Connection, resource_type: str, pages: Pages, outcome: TypeOutcome) -> set[str]:
        """Writes pages or blocks of one type in their order; gives the positions of those that were set aside."""
        bad: set[str] = set()
        if pages.packed:
            self.put_packed(connection, pages.packed, outcome)
        if pages.sound:
            bad |= self.put_sound(connection, resource_type, pages.sound, outcome)
        if pages.found:
            bad |= self.put(connection, resource_type, pages.found, outcome)
        return bad

    def recount(self, ledger: Ledger, resource_type: str, outcome: SourceOutcome) -> None:
        """After a first load: all of a type that is on record is new, and what was met twice is one."""
        with ledger.read() as connection:
            outcome.of(resource_type).new = number_of_facts(connection, self.source, resource_type)

    def _learn(self, connection: Connection) -> None:
        """Asks the ledger, once, how people are told apart and what need not be kept any longer."""
        if not self._identities:
            self._identities.append(identities_of(connection))
            self._horizon.append(horizon(connection))

    def _wanted(self, connection: Connection, facts: dict[str, StoredFact]) -> dict[str, StoredFact]:
        """Those that are kept."""
        made = [stored.fact for stored in facts.values()] if self._horizon[0] else ()
        days = {fact.id: fact.day for fact in made if isinstance(fact, ProcedureFact)}
        left = self._unwanted(connection, days)
        return {key: stored for key, stored in facts.items() if stored.fact.id not in left} if left else facts

    def _unwanted(self, connection: Connection, days: Mapping[str, str]) -> set[str]:
        """Ids of Procedures that are too old to be kept."""
        return unwanted(connection, self.source, self._horizon[0], days) if self._horizon[0] else set()

    def _fact(self, item: Item) -> StoredFact:
        if item.resource is None:
            raise ResourceError(item.problem or "of a type that was not asked for", number=10)
        return self._fact_of(item.resource, item.fallback_id)

    def _fact_of(self, resource: Resource, fallback_id: str) -> StoredFact:
        stored = self._made_of(resource, fallback_id)
        patient = getattr(stored.fact, "patient", "") or getattr(stored.fact, "replaced_by", "")
        if is_too_long(stored.fact.id, patient, getattr(stored.fact, "status", "")):
            raise ResourceError(
                "the id, the status or the reference to the patient is too long, or holds a NUL", number=16
            )
        identities = self._identities[0]
        return (
            msgspec.structs.replace(stored, fact=self._told_apart(stored.fact, resource, identities))
            if identities.systems
            else stored
        )

    def _told_apart(self, fact: Fact, resource: Resource, identities: Identities) -> Fact:
        """The fact with references to patients that no other source's patients share."""
        scope = identities.scope(self.source)
        if isinstance(fact, PatientFact):
            tokens = identities.tokens(resource.identifier if isinstance(resource, Patient) else None)
            replaced_by = f"{fact.replaced_by}@{scope}" if scope and fact.replaced_by else fact.replaced_by
            return msgspec.structs.replace(fact, tokens=tokens, scope=scope, replaced_by=replaced_by)
        return msgspec.structs.replace(fact, patient=f"{fact.patient}@{scope}") if scope else fact

    def _made_of(self, resource: Resource, fallback_id: str) -> StoredFact:
        if isinstance(resource, Procedure):
            fact = procedure_fact(resource, self.source, self.tz, fallback_id, not_after=self.not_after)
            return StoredFact(fact, *self._reading(fact))
        if isinstance(resource, Condition):
            return StoredFact(condition_fact(resource, self.source, self.tz, fallback_id))
        if isinstance(resource, Encounter):
            return StoredFact(encounter_fact(resource, self.source, self.tz, fallback_id))
        return StoredFact(patient_fact(resource, self.source, self.tz, fallback_id))

    def _reading(self, fact: ProcedureFact) -> tuple[bool, bool]:
        """Whether a row matches and whether a system is known; hospitals write the same codes again and again."""
        key = fact.codes, fact.text
        known = self._readings.get(key)
        if known is None:
            if len(self._readings) > _REMEMBERED:
                self._readings.clear()
            reading = read_codes(fact, self.ruleset)
            known = self._readings[key] = bool(reading.findings), reading.known_system
        return known
