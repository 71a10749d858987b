"""Counting what the ledger holds under any programme: with its own decisions, or deciding anew without writing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat

from sqlalchemy import Connection

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.redecide import decided_with
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.explored import decisions_alike
from io_fhir_adapter.ledger.facts import all_patients, person_of, survivor
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


def count_under(
    connection: Connection, ruleset: Ruleset, periods: Iterable[Period], *, today: str, as_decided: bool = False
) -> list[Counted]:
    """The volume of each period under the ruleset.

    Where the decisions in the ledger were made with the very same rules they are counted; else every patient is
    decided on anew, and nothing of it is kept.

    Args:
        connection: Reads the ledger.
        ruleset: Tables, rules and the programme to count for.
        periods: What to count.
        today: Local date.
        as_decided: Count the decisions in the ledger whatever rules they were made with.
    """
    kept = as_decided or decided_with(connection) == ruleset.digest
    anew = [] if kept else list(_decided(connection, ruleset, today))
    counted = []
    for period in periods:
        found = decisions_alike(connection, period.start, period.end) if kept else zip(anew, repeat(1))
        alike = [*found, *((gone, 1) for gone in removed_decisions(connection, period))]
        programme, scoped = ruleset.programme, ruleset.scope is not None
        volume = count_ledger(connection, period, programme, scoped=scoped, today=today)
        if not kept:
            counter = VolumeCounter(period, programme.threshold, programme.counts, scoped=scoped)
            for decision, number in alike:
                counter.add(decision, number)
            volume = counter.result(volume.seen)
        within = [(decision, number) for decision, number in alike if period.contains(decision.date)]
        counted.append(
            Counted(
                volume,
                _by_category(
                    pair for pair in within if pair[0].decision == "counted" or pair[0].reason == _PASSED_OVER
                ),
                _by_category(pair for pair in within if pair[0].decision == "review"),
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


def _by_category(alike: Iterable[tuple[Decision, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for decision, number in alike:
        found[decision.category] = found.get(decision.category, 0) + number
    return found
