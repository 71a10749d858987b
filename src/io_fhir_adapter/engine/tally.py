"""Tallying Procedures as they stream by: status, period, what the tables know; each distinct one once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

import msgspec

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.distinct import DistinctTally
from io_fhir_adapter.fhir.dates import days_apart
from io_fhir_adapter.fhir.structs import CodeableConcept, ProcedureGlance
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.volume.count import Period, Seen

__all__ = ["ProcedureTally", "UnmappedCode"]

_STATUSES = (
    "completed", "not-done", "entered-in-error", "in-progress", "preparation", "on-hold", "stopped", "unknown",
)  # fmt: skip
_OTHER_STATUS = len(_STATUSES) << 4
_NOT_DONE = _STATUSES.index("not-done") << 4
# Flags of a Procedure, one byte: status << 4 | place << 2 | what the tables know of its codes
_INSIDE, _OUTSIDE, _UNPLACED, _UNSURE = 0 << 2, 1 << 2, 2 << 2, 3 << 2
_PLACES = {"inside": _INSIDE, "outside": _OUTSIDE, "unplaced": _UNPLACED}
_MAPPED, _KNOWN, _NO_CODE = 1, 2, 4
_DAY = 10
_CACHE_LIMIT = 100_000
_CONCEPT: Final = msgspec.json.Decoder(CodeableConcept | None)


@dataclass(frozen=True, slots=True)
class UnmappedCode:
    """A code that no row matches: its system as written, whether that system has a table, how often it was read."""

    system: str
    code: str
    known_system: bool
    codings: int


class ProcedureTally:
    """The tallies of one pass. Use as a context manager.

    Args:
        ruleset: The tables.
        period: Whose Procedures are tallied.
        tz: The facility's time zone, None for dates as written.
    """

    def __init__(self, ruleset: Ruleset, period: Period, tz: tzinfo | None) -> None:
        self.distinct = DistinctTally()
        self.without_code = 0
        self._ruleset = ruleset
        self._period = period
        self._tz = tz
        self._codes: dict[tuple[str, str], list[int]] = {}  # (system, code) → [flags, codings]
        # Hospitals write the same CodeableConcept to the byte again and again: each text is looked at once.
        self._concepts: dict[bytes, list[int]] = {}  # text → [flags, times]
        self._statuses: dict[str | None, int] = {
            **{name: index << 4 for index, name in enumerate(_STATUSES)},
            None: _STATUSES.index("unknown") << 4,
            "aborted": _STATUSES.index("stopped") << 4,  # STU3
            "suspended": _STATUSES.index("on-hold") << 4,  # STU3
        }
        self._days: dict[str, int] = {}
        self._borders = (period.start, period.end)

    def glance(self, procedures: Sequence[ProcedureGlance]) -> list[int]:
        """Tallies Procedures at a glance; gives the offsets of those that need a closer look, not tallied yet."""
        # The hot loop: everything that a Procedure of no interest costs happens here.
        concept_of, status_of, day_of = self._concepts.get, self._statuses.get, self._days.get
        adders, mask = self.distinct.adders, DistinctTally.MASK
        closer: list[int] = []
        for offset, procedure in enumerate(procedures):
            text = bytes(procedure.code)
            concept = concept_of(text)
            if concept is None:
                concept = self._new_concept(text)
            flags = concept[0]
            value = procedure.performedDateTime
            if value is None and procedure.performedPeriod is not None:
                value = procedure.performedPeriod.start
            where = day_of(value[:10], _UNSURE) if value is not None else _UNSURE
            resource_id = procedure.id
            if flags & _MAPPED or where == _UNSURE or procedure.subject is None or not resource_id:
                closer.append(offset)
                continue
            concept[1] += 1
            status = _NOT_DONE if procedure.notDone else status_of(procedure.status, _OTHER_STATUS)
            word = hash(resource_id) & mask | status | where | flags & 3
            adders[word >> 8 & 255](word)
        self.distinct.settle()
        return closer

    def _new_concept(self, text: bytes) -> list[int]:
        """What the tables know of a CodeableConcept; remembered by its text."""
        if len(self._concepts) > _CACHE_LIMIT:
            self._settle_concepts()
        try:
            found = _CONCEPT.decode(text) if text else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            concept = self._concepts[text] = [_MAPPED, 0]  # the closer look will say what is wrong
            return concept
        flags = _NO_CODE
        codings = [coding for coding in (found.coding or ()) if coding.code] if found is not None else []
        for coding in codings:
            flags = flags & ~_NO_CODE | self._code(coding.system or "", coding.code or "")[0]
        if found is not None and not flags & _MAPPED:
            codes = [(coding.system or "", coding.code or "") for coding in codings]
            if self._ruleset.text_findings(codes, [found.text or "", *(coding.display or "" for coding in codings)]):
                flags |= _MAPPED
        concept = self._concepts[text] = [flags, 0]
        return concept

    def _code(self, system: str, code: str) -> list[int]:
        known = self._codes.get((system, code))
        if known is None:
            entry = self._ruleset.entry(system, code)
            flags = _KNOWN if entry.rows or entry.system in self._ruleset.table_systems else 0
            known = self._codes[system, code] = [flags | (_MAPPED if entry.rows else 0), 0]
        return known

    def _settle_concepts(self) -> None:
        """Moves what was counted by text to what is counted by code."""
        for text, (flags, times) in self._concepts.items():
            if not times:
                continue
            if flags & _NO_CODE:
                self.without_code += times
                continue
            found = _CONCEPT.decode(text)
            for coding in (found.coding or ()) if found is not None else ():
                if coding.code:
                    self._code(coding.system or "", coding.code)[1] += times
        self._concepts.clear()

    def closer(self, fact: ProcedureFact) -> bool:
        """Tallies one Procedure that was looked at whole; says whether a row of the tables matches."""
        flags = 0
        for code in fact.codes:
            known = self._code(code.system, code.code)
            known[1] += 1
            flags |= known[0]
        if not flags & _MAPPED and read_codes(fact, self._ruleset).from_text:
            flags |= _MAPPED | _KNOWN
        self.without_code += not fact.codes
        where = _PLACES[self._period.place(fact.day)]
        word = hash(fact.id) & DistinctTally.MASK
        word |= self._statuses.get(fact.status, _OTHER_STATUS) | where | flags
        self.distinct.adders[word >> 8 & 255](word)
        self._remember(fact.day, where)
        return bool(flags & _MAPPED)

    def _remember(self, day: str, where: int) -> None:
        """Remembers where a day stands to the period, so that the next Procedure of it needs only a glance.

        A day within one of the period's borders may fall on the other side in the facility's time zone; those are
        never remembered.
        """
        if len(day) == _DAY and day not in self._days and all((days_apart(day, b) or 0) > 1 for b in self._borders):
            if len(self._days) > _CACHE_LIMIT:
                self._days.clear()
            self._days[day] = where

    def seen(self, quarantined: int) -> Seen:
        """The tallies over distinct Procedures, beside those that could not be read."""
        status: Counter[str] = Counter()
        completed = mapped = known = outside = unplaced = 0
        for flags, number in self.distinct.result().items():
            where = flags & _UNSURE
            if where != _INSIDE:
                outside += number if where == _OUTSIDE else 0
                unplaced += number if where == _UNPLACED else 0
                continue
            index = flags >> 4
            name = _STATUSES[index] if index < len(_STATUSES) else "other"
            status[name] += number
            if name == "completed":
                completed += number
                mapped += number if flags & _MAPPED else 0
                known += number if flags & _KNOWN else 0
        return Seen(
            procedures=status.total(),
            completed=completed,
            by_status=dict(sorted(status.items())),
            mapped=mapped,
            known_system=known,
            quarantined=quarantined,
            undated=unplaced,
            outside=outside,
        )

    def unmapped(self) -> list[UnmappedCode]:
        """Codes that no row matches, those read most often first."""
        self._settle_concepts()
        codes: Iterable[UnmappedCode] = (
            UnmappedCode(system, code, bool(flags & _KNOWN), number)
            for (system, code), (flags, number) in self._codes.items()
            if number and not flags & _MAPPED
        )
        return sorted(codes, key=lambda entry: (-entry.codings, entry.system, entry.code))
