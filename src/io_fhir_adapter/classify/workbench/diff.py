"""What a change of the mappings would change: everyone in a ledger decided on with both, nothing written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset, SiteTable, load_ruleset
from io_fhir_adapter.classify.scope import Scope
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.facts import PatientRecord, every_procedure, person_of, survivor
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.model import Decision, ProcedureFact

__all__ = ["Change", "Difference", "Side", "compare_rulesets", "ruleset_in"]


_Kind = tuple[tuple[str, str], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Side:
    """What one ruleset makes of a session; all empty where it is none, because no row matches."""

    category: str = ""
    decision: str = ""
    reason: str = ""
    categories: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, str]:
        """Category and decision."""
        return self.category, self.decision


@dataclass(frozen=True, slots=True)
class Change:
    """A session that would be decided otherwise; of the patient nothing is said but the session's local date."""

    date: str
    before: Side
    after: Side
    procedures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The outcome.

    Attributes:
        patients: How many were decided on.
        decisions: How many decisions the old ruleset makes.
        same: Those that stay as they are.
        kinds: ((category, decision) before, the same after) with the number of sessions that change so, most first.
        examples: Some of the changes, of each kind in turn.
    """

    patients: int
    decisions: int
    same: int
    kinds: tuple[tuple[_Kind, int], ...]
    examples: tuple[Change, ...]

    @property
    def changed(self) -> int:
        """How many sessions would be decided otherwise."""
        return sum(number for _, number in self.kinds)

    def to_json(self) -> dict[str, object]:
        """The outcome as JSON."""
        names = ("category", "decision")
        kinds = [
            {
                "before": dict(zip(names, was, strict=True)),
                "after": dict(zip(names, will, strict=True)),
                "number": number,
            }
            for (was, will), number in self.kinds
        ]
        examples = [msgspec.to_builtins(change) for change in self.examples]
        numbers = {"patients": self.patients, "decisions": self.decisions, "same": self.same, "changed": self.changed}
        return {**numbers, "kinds": kinds, "examples": examples}


def ruleset_in(
    folder: Path,
    programme: str,
    site_tables: Sequence[SiteTable],
    concept_maps: Sequence[Path] = (),
    scope: Scope | None = None,
) -> Ruleset:
    """The ruleset of a mappings folder, with its own edition of the programme where it has one.

    Raises:
        UsageError: It is no mappings folder.
        MappingError: Something in it is wrong.
    """
    if not (folder / "techniques.csv").is_file():
        raise UsageError(
            "this is no mappings folder",
            where=str(folder),
            do="name one that holds techniques.csv and codes/",
            number=10,
        )
    own = folder / "programmes" / f"{programme}.yaml"
    return load_ruleset(str(own) if own.is_file() else programme, site_tables, folder, scope, concept_maps)


def compare_rulesets(connection: Connection, old: Ruleset, new: Ruleset, examples: int) -> Difference:
    """Decides on everyone with both rulesets.

    Args:
        connection: The ledger, only read.
        old: What decides now.
        new: What would.
        examples: How many changes are kept as examples.
    """
    links = person_links(connection)
    patients = sorted(
        {
            survivor(fact.patient, links)
            for fact in every_procedure(connection)
            if _has_row(fact, old) or _has_row(fact, new)
        }
    )
    decisions = same = 0
    kinds: Counter[_Kind] = Counter()
    kept: dict[_Kind, list[Change]] = {}
    for patient in patients:
        record = person_of(connection, patient, links)
        before, after = _decide(record, old), _decide(record, new)
        decisions += len(before)
        for change in _changes(before, after):
            if change is None:
                same += 1
                continue
            kind = change.before.kind, change.after.kind
            kinds[kind] += 1
            of_kind = kept.setdefault(kind, [])
            if len(of_kind) < examples:
                of_kind.append(change)
    most_first = tuple(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    in_turn = [
        change for turn in zip_longest(*(kept[kind] for kind, _ in most_first)) for change in turn if change is not None
    ]
    return Difference(len(patients), decisions, same, most_first, tuple(in_turn[:examples]))


def _has_row(fact: ProcedureFact, ruleset: Ruleset) -> bool:
    return bool(read_codes(fact, ruleset).findings)


def _decide(record: PatientRecord, ruleset: Ruleset) -> list[Decision]:
    """As the nightly job does: on what a row of these tables matches."""
    mapped = [fact for fact in record.procedures if _has_row(fact, ruleset)]
    return decide_patient(mapped, record.conditions, record.encounters, ruleset, record.people)


def _changes(before: Sequence[Decision], after: Sequence[Decision]) -> Iterator[Change | None]:
    """Sessions of both sides, paired by the Procedures they share: what changed, None where nothing did."""
    left = list(after)
    for decision in before:
        own = set(decision.procedures)
        other = max(left, key=lambda made: len(own & set(made.procedures)), default=None)
        if other is None or own.isdisjoint(other.procedures):
            yield Change(decision.date, _side(decision), Side(), decision.procedures)
            continue
        left.remove(other)
        same = _side(decision) == _side(other)
        procedures = tuple(sorted(own.union(other.procedures)))
        yield None if same else Change(decision.date, _side(decision), _side(other), procedures)
    for decision in left:
        yield Change(decision.date, Side(), _side(decision), decision.procedures)


def _side(decision: Decision) -> Side:
    return Side(decision.category, decision.decision, decision.reason, decision.categories)
