"""One person in several servers: told by identifiers of systems that the facility names, kept as keyed hashes only.

Every server counts its patients by itself, so ``Patient/1`` of two servers are two people until an identifier says
otherwise. Where a facility names identifier systems and has several sources, the first source's patients keep their
references, and those of every other source carry its name: ``Patient/1@archive``.

The hashes are keyed with a random value of this ledger: who finds a copy of some rows learns no number from them. Who
has the whole ledger could still try all numbers of a system; the ledger is to be kept like the record itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from io_fhir_adapter.fhir.structs import Identifier
from io_fhir_adapter.ledger.facts import decode_fact, patient_links, survivor
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.ledger.schema import facts
from io_fhir_adapter.model import PatientFact

__all__ = ["Identities", "Links", "holders_of", "identities_of", "person_links", "settle_identities"]

_STATE: Final = "identities"
_PLACEHOLDER: Final = 3
"""An identifier that more records of one source carry than this is none: ``0``, ``unknown``, a test number."""


@dataclass(frozen=True, slots=True)
class Identities:
    """How people are told apart.

    Attributes:
        systems: Identifier systems that say who someone is.
        apart: Names of the sources whose references carry their name.
        salt: The key of the hashes.
    """

    systems: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    salt: bytes = b""

    def scope(self, source: str) -> str:
        """What references of a source end with, empty where they stay as they are."""
        return source if source in self.apart else ""

    def tokens(self, identifiers: Iterable[Identifier] | None) -> tuple[str, ...]:
        """The keyed hashes of the identifiers that count, sorted; white space around them does not."""
        found = set()
        for identifier in identifiers or ():
            value = (identifier.value or "").strip()
            if identifier.system in self.systems and value:
                text = f"{identifier.system}|{value}".encode()
                found.add(hmac.new(self.salt, text, hashlib.sha256).hexdigest()[:32])
        return tuple(sorted(found))


def identities_of(connection: Connection) -> Identities:
    """How people are told apart in this ledger."""
    text = read_state(connection, _STATE)
    if not text:
        return Identities()
    kept = json.loads(text)
    return Identities(tuple(kept["systems"]), tuple(kept["apart"]), bytes.fromhex(kept["salt"]))


def settle_identities(connection: Connection, systems: Sequence[str], sources: Sequence[str]) -> bool:
    """Writes down how people are told apart from now on.

    Args:
        connection: An open transaction.
        systems: The facility's identifier systems.
        sources: Names of all sources, in order.

    Returns:
        Whether that is another way than before, so that every patient has to be read again.
    """
    before = identities_of(connection)
    apart = tuple(sources[1:]) if systems else ()
    wanted = tuple(sorted(systems)) if len(sources) > 1 else ()
    if not wanted:
        apart = ()
    if (before.systems, before.apart) == (wanted, apart):
        return False
    salt = before.salt or secrets.token_bytes(32)
    kept = {"systems": wanted, "apart": apart, "salt": salt.hex()}
    write_state(connection, _STATE, json.dumps(kept))
    return True


class Links(dict[str, str]):
    """References of records to the one that stands for the person; ``members`` is the other way round."""

    def __init__(self, links: dict[str, str]) -> None:
        super().__init__(links)
        self.members: dict[str, list[str]] = {}
        for reference in sorted(links):
            self.members.setdefault(survivor(reference, links), []).append(reference)


def person_links(connection: Connection) -> Links:
    """Every record that is not the one that stands for its person, with the one that does.

    Records were merged (``Patient.link``), or records of several sources carry the same identifier. Two that
    contradict each other in their date of birth stay two, also where a third one would go with either.
    """
    merged = patient_links(connection)
    if not identities_of(connection).systems:
        return Links(merged)
    people = _people(connection)
    born = {_key(person): {person.birth_date} for person in people if person.birth_date and not person.replaced_by}
    holders: dict[str, list[PatientFact]] = {}
    for person in people:
        for token in person.tokens:
            holders.setdefault(token, []).append(person)
    stands_for: dict[str, str] = {}
    for token in sorted(holders):
        keys = sorted({survivor(_key(person), merged) for person in _real(holders[token])}, key=_rank)
        for number, key in enumerate(keys):
            _join(key, keys[:number], stands_for, born)
    links = {key: survivor(survivor(key, merged), stands_for) for key in (*merged, *stands_for)}
    return Links({key: other for key, other in links.items() if key != other})


def _join(key: str, others: Sequence[str], stands_for: dict[str, str], born: dict[str, set[str]]) -> None:
    """Makes a record one with the first of the others that it may be one with.

    Args:
        key: The record.
        others: Records with the same identifier.
        stands_for: Records to those that stand for them; takes another one.
        born: By the record that stands for a person, all dates of birth that are known of the person.
    """
    for other in others:
        first, second = survivor(other, stands_for), survivor(key, stands_for)
        if first == second:
            return
        dates = born.get(first, set()), born.get(second, set())
        if all(_may_be_one(one, another) for one in dates[0] for another in dates[1]):
            kept, joined = sorted((first, second), key=_rank)
            stands_for[joined] = kept
            born[kept] = dates[0] | dates[1]
            return


def _people(connection: Connection) -> list[PatientFact]:
    query = select(facts.c.data).where(facts.c.resource_type == "Patient").order_by(facts.c.source, facts.c.id)
    found = [decode_fact("Patient", data) for data in connection.execute(query).scalars().all()]
    return [fact for fact in found if isinstance(fact, PatientFact)]


def _real(holders: Sequence[PatientFact]) -> Sequence[PatientFact]:
    """The holders of an identifier, none where it is a placeholder."""
    by_source: dict[str, int] = {}
    for person in holders:
        if not person.replaced_by:
            by_source[person.source] = by_source.get(person.source, 0) + 1
    return () if max(by_source.values(), default=0) > _PLACEHOLDER else holders


def _may_be_one(first: str, second: str) -> bool:
    known = min(len(first), len(second))
    return first[:known] == second[:known]


def _key(person: PatientFact) -> str:
    return f"Patient/{person.id}@{person.scope}" if person.scope else f"Patient/{person.id}"


def _rank(key: str) -> tuple[bool, str]:
    """The first source's record stands for a person, as it did before there were others."""
    return "@" in key, key


def holders_of(connection: Connection, tokens: Iterable[str]) -> set[str]:
    """The references of everyone whose record carries one of these hashes."""
    wanted = set(tokens)
    return {_key(person) for person in _people(connection) if wanted & set(person.tokens)} if wanted else set()
