"""The volume of a period, counted from the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, repeat

from sqlalchemy import Connection

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.fhir.dates import last_of
from io_fhir_adapter.ledger.explored import decisions_alike
from io_fhir_adapter.ledger.facts import (
    ended_procedures,
    procedures_set_aside,
    quarantine_reasons,
    tally_procedures,
)
from io_fhir_adapter.ledger.retention import tallied_procedures, tallied_sessions
from io_fhir_adapter.model import Decision, status_name
from io_fhir_adapter.volume.count import Period, Seen, Volume, VolumeCounter
from io_fhir_adapter.volume.settled import after_deciding

__all__ = ["count_ledger", "removed_decisions"]


def count_ledger(
    connection: Connection, period: Period, programme: Programme, *, scoped: bool = False, today: str = ""
) -> Volume:
    """Counts the decisions of a period and tallies the Procedures behind them; ``scoped`` as in `VolumeCounter`.

    What was removed since counts as in :func:`removed_decisions`.

    ``today`` is the local date for what ends in the future; where empty, that of the clock in UTC.
    """
    counter = VolumeCounter(period, programme.threshold, programme.counts, scoped=scoped)
    for decision, number in decisions_alike(connection, period.start, period.end):
        counter.add(decision, number)
    for decision in removed_decisions(connection, period):
        counter.add(decision)
    seen, set_aside = _seen(connection, period), procedures_set_aside(connection)
    aside = {(fact.source, fact.id) for fact in set_aside}
    today = today or datetime.now(UTC).date().isoformat()
    ended = [
        fact.day
        for fact in (ended_procedures(connection) if programme.takes_ended_for_completed else ())
        if last_of(fact.end_day) < today and (fact.source, fact.id) not in aside
    ]
    seen = replace(seen, quarantined=seen.quarantined - len(aside))
    return counter.result(after_deciding(seen, period, [(fact.day, fact.status) for fact in set_aside], ended))


def removed_decisions(connection: Connection, period: Period) -> Iterator[Decision]:
    """Sessions that were removed because they need not be kept any longer, as they were decided last, by their month.

    They can be decided on by no other rules or programme any more.
    """
    for gone in tallied_sessions(connection, period.start, period.end):
        yield from repeat(Decision("", "", gone.month, gone.category, gone.decision, gone.reason), gone.number)


def _seen(connection: Connection, period: Period) -> Seen:
    by_status: dict[str, int] = {}
    mapped = known = outside = undated = 0
    for day, status, is_mapped, is_known, number in chain(tally_procedures(connection), tallied_procedures(connection)):
        place = period.place(day)
        if place != "inside":
            outside += number if place == "outside" else 0
            undated += number if place == "unplaced" else 0
            continue
        name = status_name(status)
        by_status[name] = by_status.get(name, 0) + number
        if status == "completed":
            mapped += number if is_mapped else 0
            known += number if is_known or is_mapped else 0
    broken = sum(number for (kind, _), number in quarantine_reasons(connection).items() if kind in {"Procedure", ""})
    return Seen(
        procedures=sum(by_status.values()),
        completed=by_status.get("completed", 0),
        by_status=dict(sorted(by_status.items())),
        mapped=mapped,
        known_system=known,
        quarantined=broken,
        undated=undated,
        outside=outside,
    )
