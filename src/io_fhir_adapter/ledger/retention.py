"""Removing what need not be kept any longer, and remembering from which day on, so that no reading brings it back.

What goes is about patients and dated before a day, the horizon: Procedures and the decisions on them, people and their
diagnoses where nothing later is left of them, drawn cases with their forms, and who was in a frame. What stays names
nobody: the chain of draws, what was submitted with its receipts and verdicts, signatures, the audit, the runs, and of
what was removed how many there were in each month, so that earlier years still count as they did.

The horizon is written down first and each person is removed in one transaction with their numbers. So a purge that is
cut off leaves nothing half gone, counts nothing twice, and goes on where it ended when it is begun again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.database import Ledger, among, upsert
from io_fhir_adapter.ledger.facts import decisions_of, facts_of, ids_set_aside, merged_into, survivor
from io_fhir_adapter.ledger.identities import Links, person_links
from io_fhir_adapter.ledger.intake import release_unmatched, stale_patients
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.ledger.schema import cases, decisions, draws, facts, reviews, tallied
from io_fhir_adapter.model import DecisionKind

__all__ = ["Removed", "TalliedSessions", "horizon", "purge", "tallied_procedures", "tallied_sessions", "unwanted"]

_STATE: Final = "horizon"
_PEOPLE: Final = 100  # in one transaction
_FACTS: Final = 5_000
_NO_FRAME: Final = b"{}"
_PROCEDURE: Final = facts.c.resource_type == "Procedure"
_TALLIED: Final = (
    facts.c.source, facts.c.id, facts.c.day, facts.c.status, facts.c.mapped, facts.c.known_system,
)  # fmt: skip
_TALLY: Final = ("what", "month", "said")

Key = tuple[str, str]
"""Source and id of a fact."""
Tally = Counter[tuple[str, str, str]]
"""(what, month, what they have in common) to number."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a purge removed, or would remove.

    Attributes:
        procedures: Procedures.
        sessions: Decisions, one for each session.
        people: People of whom nothing is left.
        others: Conditions, Encounters and Patients.
        draws: Draws of which the frame and the cases are gone; what was committed to and drawn stays in the chain.
        cases: Their cases.
        waiting: People left alone because they are to be decided on first; a night does that.
    """

    procedures: int = 0
    sessions: int = 0
    people: int = 0
    others: int = 0
    draws: int = 0
    cases: int = 0
    waiting: int = 0

    def plus(self, other: Removed) -> Removed:
        """Both together."""
        mine, more = asdict(self), asdict(other)
        return Removed(**{name: mine[name] + more[name] for name in mine})

    def to_json(self) -> dict[str, int]:
        """The numbers by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TalliedSessions:
    """How many sessions of a month, removed since, had this category, decision and reason."""

    month: str
    category: str
    decision: DecisionKind
    reason: str
    number: int


def horizon(connection: Connection) -> str:
    """The first day that is kept, empty where nothing was ever removed."""
    return read_state(connection, _STATE)


def _is_before(day: str, first: str) -> bool:
    """Whether a partial day lies before another day for certain."""
    return bool(day) and day < first and not first.startswith(day)


def _before(column: ColumnElement[str], first: str) -> ColumnElement[bool]:
    """:func:`_is_before` as a condition."""
    return and_(column > "", column < first, column.not_in((first[:4], first[:7])))


def unwanted(connection: Connection, source: str, first: str, days: Mapping[str, str]) -> set[str]:
    """Of Procedures, by id with their days, those that lie before the horizon and are not on record.

    One that is on record is taken in, so that it does not stand there as it was.

    Args:
        connection: An open transaction.
        source: Name of their source.
        first: The horizon, empty where there is none.
        days: Their partial days.
    """
    early = [name for name, day in days.items() if _is_before(day, first)]
    if not early:
        return set()
    columns = facts.c
    query = select(columns.id).where(_PROCEDURE, columns.source == source, among(connection, columns.id, early))
    return set(early).difference(connection.execute(query).scalars())


def tallied_procedures(connection: Connection) -> Iterator[tuple[str, str, bool, bool, int]]:
    """Of Procedures removed since: (month, status, mapped, known system, number)."""
    query = select(tallied.c.month, tallied.c.said, tallied.c.number).where(tallied.c.what == "procedure")
    for month, said, number in connection.execute(query):
        status, mapped, known = said.rsplit(" ", 2)  # there may be anything in a status
        yield month, status, mapped == "1", known == "1", number


def tallied_sessions(connection: Connection, start: str, end: str) -> Iterator[TalliedSessions]:
    """Sessions removed since whose month, or year, lies or may lie between two days."""
    query = select(tallied.c.month, tallied.c.said, tallied.c.number).where(
        tallied.c.what == "session", tallied.c.month >= start[:4], tallied.c.month <= end
    )
    for month, said, number in connection.execute(query.order_by(tallied.c.month, tallied.c.said)):
        category, decision, reason = said.split(" ")
        yield TalliedSessions(month, category, decision, reason, number)


def purge(
    ledger: Ledger,
    first: str,
    now: datetime,
    *,
    agent: str = "console",
    dry_run: bool = False,
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,  # noqa: ARG005
) -> Removed:
    """Removes what lies before a day, for good; for who keeps every other job from running.

    Args:
        ledger: The ledger.
        first: The first day that is kept; a later one of an earlier purge stands.
        now: When.
        agent: Who does it, for the audit.
        dry_run: Only say what would be removed.
        progress: Told what is being done.

    Raises:
        LedgerError: The database refused.
    """
    work = _Purge(ledger, dry_run)
    with work.transaction() as connection:
        work.first = first = max(first, horizon(connection))
        if not dry_run:
            write_state(connection, _STATE, first)
            note(connection, at=now, agent=agent, role="", action="E", entity="Ledger", detail=f"purge before {first}")
    removed = Removed()
    for part in (work.people(progress), work.unmapped(progress), work.drawn()):
        for one in part:
            removed = removed.plus(one)
    if not dry_run:
        with work.transaction() as connection:
            release_unmatched(connection)
            said = ", ".join(f"{number} {name}" for name, number in removed.to_json().items() if number)
            note(connection, at=now, agent=agent, role="", action="D", entity="Ledger",
                 detail=f"purged before {first}: {said or 'nothing'}")  # fmt: skip
        ledger.shorten_log()  # what was removed would stay in it
    return removed


class _Purge:
    """One purge: each part removes in steps and says what."""

    def __init__(self, ledger: Ledger, dry_run: bool) -> None:
        self.first = ""
        self._ledger = ledger
        self._dry = dry_run

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One that writes; for a dry run one that cannot."""
        if self._dry:
            with self._ledger.read() as connection:
                yield connection
            return
        with self._ledger.begin() as connection:
            if connection.dialect.name == "sqlite":  # else what was removed stays readable in the file
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            yield connection

    def people(self, progress: Callable[[str, int, int | None], None]) -> Iterator[Removed]:
        """Everyone with a session, or a Procedure that a row of the tables matches, before the horizon."""
        with self._ledger.read() as connection:
            links = person_links(connection)
            mapped = select(facts.c.patient).where(_PROCEDURE, facts.c.mapped, _before(facts.c.day, self.first))
            decided = select(decisions.c.patient).where(_before(decisions.c.date, self.first))
            found = connection.execute(mapped.union(decided)).scalars()
            concerned = {survivor(patient, links) for patient in found}
            waiting = concerned & {survivor(patient, links) for patient in stale_patients(connection)}
            aside = {(source, name) for source, names in ids_set_aside(connection).items() for name in names}
        yield Removed(waiting=len(waiting))
        everyone = sorted(concerned - waiting)
        for start in range(0, len(everyone), _PEOPLE):
            progress("removing", start, len(everyone))
            removed, tally = Removed(), Tally()
            with self.transaction() as connection:
                for patient in everyone[start : start + _PEOPLE]:
                    removed = removed.plus(self._person(connection, patient, links, aside, tally))
                self._add(connection, tally)
            yield removed

    def _person(
        self, connection: Connection, patient: str, links: Links, aside: Collection[Key], tally: Tally
    ) -> Removed:
        references = [patient, *merged_into(patient, links)]
        sessions = [one for reference in references for one in decisions_of(connection, reference)]
        old = [one for one in sessions if _is_before(one.date, self.first)]
        needed = {name for one in sessions if not _is_before(one.date, self.first) for name in one.procedures}
        query = select(*_TALLIED).where(_PROCEDURE, facts.c.mapped, facts.c.patient.in_(references))
        rows = connection.execute(query).all()
        gone = [row for row in rows if _is_before(row.day, self.first) and f"Procedure/{row.id}" not in needed]
        keys = {(row.source, row.id) for row in gone}
        stays = len(gone) < len(rows)
        others = self._others(connection, references, keys, stays=stays)
        tally.update(_tally_of(row for row in gone if (row.source, row.id) not in aside))
        tally.update(("session", one.date[:7], f"{one.category} {one.decision} {one.reason}") for one in old)
        if not self._dry:
            connection.execute(
                delete(decisions).where(decisions.c.patient.in_(references), _before(decisions.c.date, self.first))
            )
            _drop(connection, "Procedure", keys)
            for resource_type, those in others.items():
                _drop(connection, resource_type, those)
        return Removed(len(gone), len(old), int(not stays), sum(map(len, others.values())))

    def _others(
        self, connection: Connection, references: Sequence[str], gone: Collection[Key], *, stays: bool
    ) -> dict[str, set[Key]]:
        """What else of a person is not needed any more: everything, or Encounters that no later Procedure names."""
        found: dict[str, set[Key]] = {"Encounter": set(), "Condition": set(), "Patient": set()}
        records = [facts_of(connection, reference) for reference in references]
        named = {
            one.encounter for record in records for one in record.procedures if (one.source, one.id) not in gone
        }  # fmt: skip
        for record in records:
            for visit in record.encounters:
                past = _is_before(visit.end or visit.start, self.first) and f"Encounter/{visit.id}" not in named
                if past or not stays:
                    found["Encounter"].add((visit.source, visit.id))
            if not stays:
                found["Condition"].update((one.source, one.id) for one in record.conditions)
                found["Patient"].update((one.source, one.id) for one in record.people)
        return found

    def unmapped(self, progress: Callable[[str, int, int | None], None]) -> Iterator[Removed]:
        """Procedures that no row of the tables matches: they are only ever counted."""
        early = and_(_PROCEDURE, ~facts.c.mapped, _before(facts.c.day, self.first))
        if self._dry:
            with self.transaction() as connection:
                number = connection.execute(select(func.count()).select_from(facts).where(early)).scalar_one()
            yield Removed(number)
            return
        done = 0
        while True:
            with self.transaction() as connection:
                rows = connection.execute(select(*_TALLIED).where(early).limit(_FACTS)).all()
                _drop(connection, "Procedure", {(row.source, row.id) for row in rows})
                self._add(connection, Tally(_tally_of(rows)))
            if not rows:
                return
            done += len(rows)
            progress("removing", done, None)
            yield Removed(len(rows))

    def drawn(self) -> Iterator[Removed]:
        """Frames and cases of draws whose window ended before the horizon."""
        with self._ledger.read() as connection:
            query = select(draws.c.id).where(draws.c.window_end < self.first)
            has_cases = select(cases.c.draw).where(cases.c.draw == draws.c.id).exists()
            old = connection.execute(query.where(or_(draws.c.frame != _NO_FRAME, has_cases))).scalars().all()
        for number in old:
            with self.transaction() as connection:
                of_draw = select(func.count()).select_from(cases).where(cases.c.draw == number)
                held = connection.execute(of_draw).scalar_one()
                if not self._dry:
                    connection.execute(delete(reviews).where(reviews.c.draw == number))
                    connection.execute(delete(cases).where(cases.c.draw == number))
                    connection.execute(update(draws).where(draws.c.id == number).values(frame=_NO_FRAME))
            yield Removed(draws=1, cases=held)

    def _add(self, connection: Connection, tally: Tally) -> None:
        """Adds to the numbers of what was removed."""
        if self._dry or not tally:
            return
        query = select(*(tallied.c[name] for name in (*_TALLY, "number")))
        for *key, number in connection.execute(query.where(tallied.c.month.in_({month for _, month, _ in tally}))):
            if tuple(key) in tally:
                tally[*key] += number
        rows = [{**dict(zip(_TALLY, key, strict=True)), "number": number} for key, number in tally.items()]
        upsert(connection, tallied, rows, _TALLY)


def _tally_of(rows: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    for row in rows:
        yield "procedure", row.day[:7], f"{row.status} {row.mapped:d} {row.known_system:d}"


def _drop(connection: Connection, resource_type: str, keys: Iterable[Key]) -> None:
    """Removes facts of one type. Nobody has to be decided on anew: what was decided on them goes or stays by itself."""
    by_source: dict[str, list[str]] = {}
    for source, name in keys:
        by_source.setdefault(source, []).append(name)
    columns = facts.c
    for source, names in by_source.items():
        named = and_(columns.source == source, columns.resource_type == resource_type)
        connection.execute(delete(facts).where(named, among(connection, columns.id, names)))
