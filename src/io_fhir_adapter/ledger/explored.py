"""Decisions as people look through them: counted by what they have in common, and listed without saying whose they are.

A decision is named by its date and a handle: a keyed hash of patient and place, which is the same as long as the
decision stays where it is, and from which nobody without this ledger's key learns anything.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import decisions_of, procedures_of, survivor
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.ledger.runs import change_state, read_state
from io_fhir_adapter.ledger.schema import decisions
from io_fhir_adapter.model import Decision, ProcedureFact

__all__ = [
    "UNDATED", "Alike", "Chosen", "Listed", "decision_at", "decisions_alike", "handle_key", "listed",
    "procedures_behind", "tally_alike", "with_record",
]  # fmt: skip

UNDATED: Final = "undated"
"""Stands for the date, and the year, of a decision that has none."""
_KEY: Final = "handles of decisions"
_LENGTH: Final = 16
_DECISION: Final = msgspec.json.Decoder(Decision)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which decisions are asked for; an empty part asks for any. ``year`` has four digits or is :data:`UNDATED`."""

    year: str = ""
    category: str = ""
    decision: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Alike:
    """How many decisions of one year have category, state and reason in common."""

    year: str
    category: str
    decision: str
    reason: str
    number: int

    def fits(self, chosen: Chosen, *, but: str = "") -> bool:
        """Whether they are among those asked for, whatever is asked for of the part named in ``but``."""
        parts = ("year", "category", "decision", "reason")
        return all(part == but or getattr(chosen, part) in ("", getattr(self, part)) for part in parts)


@dataclass(frozen=True, slots=True)
class Listed:
    """A decision in a line; ``date`` may be partial or empty, ``handle`` names it together with the date."""

    handle: str
    date: str
    category: str
    decision: str
    reason: str


def handle_key(ledger: Ledger) -> bytes:
    """The key of this ledger's handles, made when it is first asked for; outside transactions."""
    with ledger.read() as connection:
        kept = read_state(connection, _KEY)
    if not kept:
        with ledger.begin() as connection:
            change_state(connection, _KEY, "", secrets.token_hex(32))
            kept = read_state(connection, _KEY)
    return bytes.fromhex(kept)


def tally_alike(connection: Connection) -> list[Alike]:
    """All decisions, counted by year, category, state and reason."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for one, number in decisions_alike(connection):
        found[one.date[:4] or UNDATED, one.category, one.decision, one.reason] += number
    return [Alike(*key, number) for key, number in found.items()]


def decisions_alike(connection: Connection, start: str = "", end: str = "") -> Iterator[tuple[Decision, int]]:
    """Decisions without patient, records and trail: each once, with the number of those that say the same.

    Nothing is read but an index: a year is counted without decoding each of its decisions.

    Args:
        connection: An open transaction.
        start: With ``end``: only those whose date lies, or may lie, between these local dates.
        end: See ``start``.
    """
    columns = decisions.c
    parts = (columns.category, columns.decision, columns.reason, columns.date)
    query = select(*parts, func.count()).group_by(*parts)
    if end:
        query = query.where((columns.date >= start[:4]) & (columns.date <= end) | (columns.date == ""))
    for category, decision, reason, date, number in connection.execute(query):
        yield Decision("", "", date, category, decision, reason), number


def listed(connection: Connection, chosen: Chosen, key: bytes, *, first: int, most: int) -> list[Listed]:
    """Decisions in lines, the latest first and those without a date last.

    Args:
        connection: An open transaction.
        chosen: Which.
        key: Of :func:`handle_key`.
        first: So many before them are left out.
        most: So many at most.
    """
    columns = decisions.c
    query = (
        select(columns.patient, columns.number, columns.date, columns.category, columns.decision, columns.reason)
        .order_by(columns.date.desc(), columns.patient.desc(), columns.number.desc())
        .offset(first)
        .limit(most)
    )
    for condition in _conditions(chosen):
        query = query.where(condition)
    return [
        Listed(_handle(key, row.patient, row.number), row.date, row.category, row.decision, row.reason)
        for row in connection.execute(query)
    ]


def decision_at(connection: Connection, key: bytes, date: str, handle: str) -> Decision | None:
    """The decision of a date (:data:`UNDATED` for none) and handle; None where there is none, or none any more."""
    columns = decisions.c
    day = "" if date == UNDATED else date
    for row in connection.execute(select(columns.patient, columns.number).where(columns.date == day)):
        if hmac.compare_digest(_handle(key, row.patient, row.number), handle):
            wanted = (columns.patient == row.patient) & (columns.number == row.number)
            return _DECISION.decode(connection.execute(select(columns.data).where(wanted)).scalar_one())
    return None


def procedures_behind(connection: Connection, decision: Decision, sources: Iterable[str]) -> list[ProcedureFact]:
    """The Procedures of a decision, as far as they are still on record.

    Args:
        connection: An open transaction.
        decision: The decision.
        sources: The sources that are looked into; the decision's own is, too.
    """
    ids = [reference.partition("/")[2] for reference in decision.procedures]
    names = dict.fromkeys((decision.source, *sources))
    found = [fact for name in names for fact in procedures_of(connection, name, ids)]
    if any(fact.patient != decision.patient for fact in found):  # a record that was merged, or another's same id
        links = person_links(connection)
        found = [fact for fact in found if survivor(fact.patient, links) == decision.patient]
    return found


def with_record(connection: Connection, key: bytes, record: str, sources: Iterable[str]) -> list[Listed]:
    """The decisions that a Procedure with that logical id takes part in, whichever of the sources it is of."""
    facts = [fact for name in sources for fact in procedures_of(connection, name, [record])]
    links = person_links(connection) if facts else {}
    found = []
    for patient in dict.fromkeys(survivor(fact.patient, links) for fact in facts):
        for number, one in enumerate(decisions_of(connection, patient)):
            if f"Procedure/{record}" in one.procedures:
                found.append(Listed(_handle(key, patient, number), one.date, one.category, one.decision, one.reason))
    return found


def _handle(key: bytes, patient: str, number: int) -> str:
    return hmac.new(key, f"{number} {patient}".encode(), hashlib.sha256).hexdigest()[:_LENGTH]


def _conditions(chosen: Chosen) -> list[ColumnElement[bool]]:
    columns = decisions.c
    found: list[ColumnElement[bool]] = []
    if chosen.year == UNDATED:
        found.append(columns.date == "")
    elif chosen.year:
        found += [columns.date >= chosen.year, columns.date < str(int(chosen.year) + 1)]
    for name in ("category", "decision", "reason"):
        if wanted := getattr(chosen, name):
            found.append(columns[name] == wanted)
    return found
