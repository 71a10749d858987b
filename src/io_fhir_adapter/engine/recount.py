"""Counting what the ledger holds under any programme: with its own decisions, or deciding anew without writing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.redecide import decided_with
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.facts import all_patients, decisions_between, person_of, survivor
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.model import Decision
from io_fhir_adapter.volume.count import Period, Volume, VolumeCounter
from io_fhir_adapter.volume.tally import count_ledger, removed_decisions

__all__ = ["Counted", "count_under"]

_PASSED_OVER = "category-not-counted"


@dataclass(frozen=True, slots=True)
class Counted:
    """A period's volume, and sessions by category whatever the programme says of the category.

    Attributes:
        volume: The volume.
        done: Category to sessions that nothing speaks against: counted, or of a category that this programme does not
            count. Of those no indication was asked for.
        open: Category to sessions for review.
    """

    volume: Volume
    done: Mapping[str, int]
    open: Mapping[str, int]


def count_under(connection: Connection, ruleset: Ruleset, periods: Iterable[Period], *, today: str) -> list[Counted]:
    """The volume of each period under the ruleset.

    Where the decisions in the ledger were made with the very same rules they are counted; else every patient is
    decided on anew, and nothing of it is kept.

    Args:
        connection: Reads the ledger.
        ruleset: Tables, rules and the programme to count for.
        periods: What to count.
        today: Local date.
    """
    kept = decided_with(connection) == ruleset.digest
    anew = [] if kept else list(_decided(connection, ruleset, today))
    counted = []
    for period in periods:
        found = list(decisions_between(connection, period.start, period.end)) if kept else anew
        found = [*found, *removed_decisions(connection, period)]
        programme, scoped = ruleset.programme, ruleset.scope is not None
        volume = count_ledger(connection, period, programme, scoped=scoped, today=today)
        if not kept:
            counter = VolumeCounter(period, programme.threshold, programme.counts, scoped=scoped)
            for decision in found:
                counter.add(decision)
            volume = counter.result(volume.seen)
        within = [decision for decision in found if period.contains(decision.date)]
        counted.append(
            Counted(
                volume,
                _by_category(one for one in within if one.decision == "counted" or one.reason == _PASSED_OVER),
                _by_category(one for one in within if one.decision == "review"),
            )
        )
    return counted


def _decided(connection: Connection, ruleset: Ruleset, today: str) -> Iterator[Decision]:
    links = person_links(connection)
    for patient in sorted({survivor(patient, links) for patient in all_patients(connection)}):
        record = person_of(connection, patient, links, mapped_only=True)
        yield from decide_patient(
            record.procedures, record.conditions, record.encounters, ruleset, record.people, today=today
        )


def _by_category(decisions: Iterable[Decision]) -> dict[str, int]:
    found: dict[str, int] = {}
    for decision in decisions:
        found[decision.category] = found.get(decision.category, 0) + 1
    return found
