"""Sessions: the facts of one patient on one local day; what is decided on and counted.

Three things are put right first: the same resource read twice is one; a ``partOf`` child belongs to its parent's
session; and one session recorded by two departmental systems, on days at most one apart, is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from io_fhir_adapter.fhir.dates import days_apart, is_full
from io_fhir_adapter.model import ProcedureFact

__all__ = ["Session", "group_sessions", "merge_twice_recorded"]


@dataclass(frozen=True, slots=True)
class Session:
    """The facts of one patient and day, in a stable order.

    Attributes:
        day: Local date, possibly partial or empty.
        facts: All its facts, completed or not.
        lonely_children: References of facts whose ``partOf`` parent is not among the patient's facts.
        merged_days: Other days that were found to be the same session.
    """

    day: str
    facts: tuple[ProcedureFact, ...]
    lonely_children: frozenset[str] = frozenset()
    merged_days: tuple[str, ...] = ()


def _fact_key(fact: ProcedureFact) -> tuple[str, str]:
    return fact.source, fact.id


def _latest(facts: Iterable[ProcedureFact]) -> list[ProcedureFact]:
    """Each resource once: of several versions the one updated last, whatever the order they came in."""
    newest: dict[tuple[str, str], ProcedureFact] = {}
    for fact in facts:
        known = newest.get(_fact_key(fact))
        if known is None or (fact.updated, repr(fact)) > (known.updated, repr(known)):
            newest[_fact_key(fact)] = fact
    return [newest[key] for key in sorted(newest)]


def _root(fact: ProcedureFact, by_reference: Mapping[tuple[str, str], ProcedureFact]) -> ProcedureFact | None:
    """The topmost parent known, None where the direct parent is a Procedure that is not."""
    seen = {_fact_key(fact)}
    current = fact
    while True:
        parents = [ref for ref in current.part_of if ref.startswith("Procedure/")]
        if not parents:
            return current
        parent = by_reference.get((current.source, parents[0]))
        if parent is None:
            return None if current is fact else current
        if _fact_key(parent) in seen:
            return current
        seen.add(_fact_key(parent))
        current = parent


def group_sessions(facts: Iterable[ProcedureFact]) -> list[Session]:
    """The sessions of ONE patient, by local day.

    A fact without a full date joins the only dated day of its encounter; else the undated facts of one
    encounter are one session, and those without an encounter one per partial date.
    """
    latest = _latest(facts)
    by_reference = {(fact.source, f"Procedure/{fact.id}"): fact for fact in latest}
    roots = {_fact_key(fact): _root(fact, by_reference) for fact in latest}
    lonely = frozenset(f"Procedure/{fact.id}" for fact in latest if roots[_fact_key(fact)] is None)
    anchors = {_fact_key(fact): roots[_fact_key(fact)] or fact for fact in latest}
    encounter_days: dict[str, set[str]] = {}
    for fact in latest:
        if fact.encounter and is_full(fact.day):
            encounter_days.setdefault(fact.encounter, set()).add(fact.day)
    groups: dict[tuple[str, str], list[ProcedureFact]] = {}
    for fact in latest:
        anchor = anchors[_fact_key(fact)]
        if is_full(anchor.day):
            key = (anchor.day, "")
        else:
            days = {day for day in encounter_days.get(anchor.encounter, ()) if day.startswith(anchor.day)}
            key = (days.pop(), "") if len(days) == 1 else (anchor.day, anchor.encounter)
        groups.setdefault(key, []).append(fact)
    return [
        Session(day, tuple(members), lonely & {f"Procedure/{fact.id}" for fact in members})
        for (day, _), members in sorted(groups.items())
    ]


def merge_twice_recorded(
    sessions: Sequence[Session],
    signature: Callable[[Session], frozenset[str]],
    system_of: Callable[[ProcedureFact], str],
) -> list[Session]:
    """Joins sessions on neighbouring days that two systems recorded of one treatment.

    Args:
        sessions: Of one patient, by day.
        signature: What was done in a session; two sessions can be one only where these have something in common.
        system_of: Which system recorded a fact; sessions that share one were recorded as two, and stay two.
    """
    merged: list[Session] = []
    for session in sessions:
        last = merged[-1] if merged else None
        if last is not None and not last.merged_days and days_apart(last.day, session.day) == 1:
            first_systems = {system_of(fact) for fact in last.facts if fact.status == "completed"}
            next_systems = {system_of(fact) for fact in session.facts if fact.status == "completed"}
            apart = first_systems and next_systems and not first_systems & next_systems
            if apart and signature(last) & signature(session):
                merged[-1] = Session(
                    last.day,
                    last.facts + session.facts,
                    last.lonely_children | session.lonely_children,
                    (session.day,),
                )
                continue
        merged.append(session)
    return merged
