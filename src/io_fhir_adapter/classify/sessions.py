"""Sessions: the facts of one patient on one local day; what is decided on and counted.

Three things are put right first: the same resource read twice is one; a ``partOf`` child belongs to its parent's
session; and one session recorded by two departmental systems, on days at most one apart, is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from io_fhir_adapter.classify.versions import newest
from io_fhir_adapter.fhir.dates import days_apart, is_full
from io_fhir_adapter.model import ProcedureFact

__all__ = ["Session", "group_sessions", "latest", "merge_twice_recorded"]


@dataclass(frozen=True, slots=True)
class Session:
    """The facts of one patient and day, in a stable order.

    Attributes:
        day: Local date, possibly partial or empty.
        facts: All its facts, completed or not.
        lonely_children: References of facts with a ``partOf`` parent, or a parent of that one, that is not among the
            patient's facts or was not completed.
        merged_days: Other days that were found to be the same session.
    """

    day: str
    facts: tuple[ProcedureFact, ...]
    lonely_children: frozenset[str] = frozenset()
    merged_days: tuple[str, ...] = ()


def _fact_key(fact: ProcedureFact) -> tuple[str, str]:
    return fact.source, fact.id


def latest(facts: Iterable[ProcedureFact]) -> list[ProcedureFact]:
    """Each resource once: of several versions the one updated last, whatever the order they came in."""
    found = newest(facts, _fact_key)
    return [found[key] for key in sorted(found)]


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a fact stands: its topmost known parent, and whether its line is whole and was completed."""

    root: ProcedureFact
    whole: bool


def _line(fact: ProcedureFact, by_reference: Mapping[tuple[str, str], ProcedureFact]) -> _Line:
    seen = {_fact_key(fact)}
    current, whole = fact, True
    while True:
        if not current.part_of:
            return _Line(current, whole)
        # a parent that is named by an identifier alone is one that cannot be looked at
        named = [(current.source, ref) for ref in current.part_of if ref.startswith("Procedure/")]
        parent = next((by_reference[key] for key in named if key in by_reference), None)
        if parent is None:
            return _Line(current, False)
        if _fact_key(parent) in seen:
            return _Line(current, whole)
        whole = whole and parent.status == "completed"
        seen.add(_fact_key(parent))
        current = parent


def group_sessions(facts: Sequence[ProcedureFact], dates: Callable[[ProcedureFact], bool]) -> list[Session]:
    """The sessions of ONE patient, by local day; what a treatment's period takes past midnight is of the day it began.

    A fact without a full date takes the only day of its parts (``partOf``), else joins the only day of its encounter
    on which something was done that gives a date; else the undated facts of one encounter are one session, and those
    without an encounter one per partial date.

    Args:
        facts: Each resource once; see :func:`latest`.
        dates: Whether a fact with a full date gives it to undated facts of its encounter; so that what has nothing to
            do with a treatment does not date it.
    """
    by_reference = {(fact.source, f"Procedure/{fact.id}"): fact for fact in facts}
    lines = {_fact_key(fact): _line(fact, by_reference) for fact in facts if fact.part_of}
    lonely = frozenset(f"Procedure/{fact_id}" for (_, fact_id), line in lines.items() if not line.whole)
    anchors = [(fact, lines[_fact_key(fact)].root if fact.part_of else fact) for fact in facts]
    nights = [fact for fact in facts if fact.end_time and fact.end_day != fact.day and dates(fact)]
    vague = any(not is_full(anchor.day) for _, anchor in anchors)
    encounter_days = _encounter_days(facts, dates) if vague else {}
    family_days = _family_days(anchors) if vague and lines else {}
    groups: dict[tuple[str, str], list[ProcedureFact]] = {}
    for fact, anchor in anchors:
        key = (_evening_before(anchor, nights) or anchor.day, "")
        if not is_full(anchor.day):
            days = family_days.get(_fact_key(anchor)) or encounter_days.get((anchor.source, anchor.encounter), set())
            fitting = {day for day in days if day.startswith(anchor.day)}
            key = (fitting.pop(), "") if len(fitting) == 1 else (anchor.day, anchor.encounter)
        groups.setdefault(key, []).append(fact)
    return [
        Session(day, tuple(members), lonely & {f"Procedure/{fact.id}" for fact in members} if lonely else lonely)
        for (day, _), members in sorted(groups.items())
    ]


def _evening_before(fact: ProcedureFact, nights: Iterable[ProcedureFact]) -> str:
    """The day on which a treatment began that was still going on after midnight when this was done; else empty."""
    for night in nights:
        if (
            fact.day == night.end_day
            and fact.time
            and fact.time <= night.end_time
            and days_apart(night.day, fact.day) == 1
        ):
            return night.day
    return ""


def _family_days(anchors: Iterable[tuple[ProcedureFact, ProcedureFact]]) -> dict[tuple[str, str], set[str]]:
    """The full days of the parts of each Procedure: a parent without a day is dated by its parts."""
    found: dict[tuple[str, str], set[str]] = {}
    for fact, anchor in anchors:
        if fact is not anchor and is_full(fact.day):
            found.setdefault(_fact_key(anchor), set()).add(fact.day)
    return found


def _encounter_days(
    facts: Iterable[ProcedureFact], dates: Callable[[ProcedureFact], bool]
) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for fact in facts:
        if fact.encounter and is_full(fact.day) and dates(fact):
            found.setdefault((fact.source, fact.encounter), set()).add(fact.day)
    return found


def merge_twice_recorded(
    sessions: Sequence[Session],
    twice: Callable[[Session, Session], bool],
    dated_by_second: Callable[[Session, Session], bool],
) -> list[Session]:
    """Joins sessions on neighbouring days that two systems recorded of one treatment.

    Args:
        sessions: Of one patient, by day.
        twice: Whether two sessions hold the same treatment, recorded by systems of which none recorded it on both days.
        dated_by_second: Whether the later day is that of the treatment: where only it has a code, and the earlier a
            text alone.
    """
    merged: list[Session] = []
    for session in sessions:
        last = merged[-1] if merged else None
        near = last is not None and not last.merged_days and days_apart(last.day, session.day) == 1
        if last is not None and near and twice(last, session):
            lonely = last.lonely_children | session.lonely_children
            days = (session.day, last.day) if dated_by_second(last, session) else (last.day, session.day)
            merged[-1] = Session(days[0], last.facts + session.facts, lonely, days[1:])
        else:
            merged.append(session)
    return merged
