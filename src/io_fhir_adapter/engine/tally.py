"""Tallying Procedures as they stream by: status, period, what the tables know; each distinct one once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

import msgspec

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import days_apart, local_day
from io_fhir_adapter.fhir.structs import CodeableConcept, ProcedureGlance
from io_fhir_adapter.model import STATUSES, ProcedureFact
from io_fhir_adapter.volume.count import Period, Seen

__all__ = ["Extend", "ProcedureTally", "UnmappedCode", "seen_of"]

Extend = Callable[[Iterable[int], Iterable[int]], None]
"""Takes the hashes of the ids of Procedures, and one byte of flags of each."""

# Flags of a Procedure, one byte: status << 4 | place << 2 | what the tables know of its codes
_STATUS_BITS = 4
_OTHER_STATUS = len(STATUSES) << _STATUS_BITS
_STATUS_FLAGS: Final[dict[str | bool | None, int]] = {
    **{name: index << _STATUS_BITS for index, name in enumerate(STATUSES)},
    True: STATUSES.index("not-done") << _STATUS_BITS,  # STU3's notDone, which stands before the status
    None: STATUSES.index("unknown") << _STATUS_BITS,
    "": STATUSES.index("unknown") << _STATUS_BITS,
    "aborted": STATUSES.index("stopped") << _STATUS_BITS,  # STU3
    "suspended": STATUSES.index("on-hold") << _STATUS_BITS,  # STU3
}
_INSIDE, _OUTSIDE, _UNPLACED, _PLACE = 0 << 2, 1 << 2, 2 << 2, 3 << 2
_PLACES = {"inside": _INSIDE, "outside": _OUTSIDE, "unplaced": _UNPLACED}
_MAPPED, _KNOWN = 1, 2
_FLAGS, _FLAG_BITS = 255, 8
# At a glance the number of its code element stands above the flags; _CLOSER stands above all numbers, and both
# within thirty bits, because Python reckons with those twice as fast
_CLOSER = 1 << 29
_LIMIT = 100_000  # values of a kind that are remembered
_DAY = 10
# No zone, offset or midnight written as 24:00 moves a moment by as many days as this
_SHIFT_DAYS = 3
_CONCEPT: Final = msgspec.json.Decoder(CodeableConcept | None)


@dataclass(frozen=True, slots=True)
class UnmappedCode:
    """A code that no row matches: its system as written, whether that system has a table, how often it was read."""

    system: str
    code: str
    known_system: bool
    codings: int


class _Known(dict[Any, int]):
    """What was found out about values, each looked at once. Whoever uses it empties it when it has grown large."""

    def __init__(self, find: Callable[[Any], int]) -> None:
        self._find = find

    def __missing__(self, value: Any) -> int:
        found = self[value] = self._find(value)
        return found


def _codes_of(concept: CodeableConcept | None) -> list[tuple[str, str]]:
    """System and code of every coding that has a code."""
    codings = (concept.coding or ()) if concept is not None else ()
    return [(coding.system or "", coding.code) for coding in codings if coding.code]


def _beside(offsets: list[int], keys: list[int]) -> list[int]:
    """The offsets, and those of other versions of the same: the last one holds, so all are looked at in order."""
    if not offsets or len(set(keys)) == len(keys):
        return offsets
    wanted = {keys[offset] for offset in offsets}
    return [offset for offset, key in enumerate(keys) if key in wanted]


class ProcedureTally:
    """The tallies of one pass.

    Args:
        ruleset: The tables.
        period: Whose Procedures are tallied.
        tz: The facility's time zone, None for dates as written.
        not_after: Last local date that can be true.
        extend: Takes what is tallied over distinct Procedures; :func:`seen_of` makes the tallies of it.
    """

    def __init__(self, ruleset: Ruleset, period: Period, tz: tzinfo | None, not_after: str, extend: Extend) -> None:
        self._extend = extend
        self._without_code = 0
        self._ruleset = ruleset
        self._period = period
        self._tz = tz
        self._not_after = not_after
        self._codes: dict[tuple[str, str], list[int]] = {}  # (system, code) → [flags, codings]
        # Hospitals write the same things to the byte again and again: each is looked at once
        self._concepts = _Known(self._concept)
        self._known: list[list[list[int]]] = []  # number of a code element → what is known of each of its codes
        self._times_read: list[int] = []  # number of a code element → how often it was read
        self._days = _Known(self._day)
        self._times = _Known(self._time)
        self._statuses = _Known(lambda status: _STATUS_FLAGS.get(status, _OTHER_STATUS))

    def glance(self, procedures: Sequence[ProcedureGlance]) -> list[int]:
        """Tallies Procedures at a glance; gives the offsets of those that need a closer look, not tallied yet."""
        self._forget()
        # The hot loops: everything that a Procedure of no interest costs happens here
        concept, status, begin = self._concepts.get, self._statuses.get, self._begin
        day, time = self._days.get, self._times.get
        found = [
            concept(bytes(one.code), _CLOSER)
            | status(one.notDone or one.status, _CLOSER)
            | day((begun := one.performedDateTime or begin(one))[:_DAY], _CLOSER)
            | time(begun[_DAY:], _CLOSER)
            if one.id and one.subject
            else _CLOSER
            for one in procedures
        ]
        for offset in [offset for offset, what in enumerate(found) if what >= _CLOSER]:
            found[offset] = self._first_look(procedures[offset])
        keys = [hash(one.id) for one in procedures]
        closer = _beside([offset for offset, what in enumerate(found) if what >= _CLOSER], keys)
        for offset in closer:
            found[offset] = _CLOSER
        kept = [what for what in found if what < _CLOSER]
        times = self._times_read
        for what in kept:
            times[what >> _FLAG_BITS] += 1
        if closer:
            keys = [key for key, what in zip(keys, found, strict=True) if what < _CLOSER]
        self._extend(keys, [what & _FLAGS for what in kept])
        return closer

    def _first_look(self, procedure: ProcedureGlance) -> int:
        """The same as at a glance, for one with a value that nobody remembers yet or that the closer look is for."""
        if not (procedure.id and procedure.subject):
            return _CLOSER
        begun = procedure.performedDateTime or self._begin(procedure)
        return (
            self._concepts[bytes(procedure.code)]
            | self._statuses[procedure.notDone or procedure.status]
            | self._days[begun[:_DAY]]
            | self._times[begun[_DAY:]]
        )

    def _begin(self, procedure: ProcedureGlance) -> str:
        """When a Procedure without ``performedDateTime`` began, as written; empty where a closer look has to say."""
        if procedure.occurrenceDateTime:
            return procedure.occurrenceDateTime
        period = procedure.performedPeriod or procedure.occurrencePeriod
        if period is None or not period.start:
            return ""
        end = period.end
        if end and (self._days[end[:_DAY]] | self._times[end[_DAY:]]) >= _CLOSER:
            return ""
        return period.start

    def _forget(self) -> None:
        """Keeps what is remembered in bounds. Only between blocks: numbers of code elements hold within one."""
        if len(self._concepts) > _LIMIT:
            self._settle_concepts()
            self._concepts.clear()
            self._known.clear()
            self._times_read.clear()
        for known in (self._days, self._times, self._statuses):
            if len(known) > _LIMIT:
                known.clear()

    def _day(self, day: str) -> int:
        """Where the date that a value starts with stands to the period; the closer look where that is not sure."""
        borders = (self._period.start, self._period.end, self._not_after, "0001-01-01", "9999-12-31")
        try:
            if len(day) != _DAY or local_day(day, None) > self._not_after:
                return _CLOSER
        except ResourceError:
            return _CLOSER
        if self._tz is not None and any((days_apart(day, border) or 0) < _SHIFT_DAYS for border in borders):
            return _CLOSER  # it may fall on the other side in the facility's time zone
        return _PLACES[self._period.place(day)]

    def _time(self, time: str) -> int:
        """Nothing for what follows the date where it can follow a date, the closer look where not."""
        try:
            return 0 if not time or local_day(f"2000-01-01{time}", self._tz) else _CLOSER
        except ResourceError:
            return _CLOSER

    def _concept(self, text: bytes) -> int:
        """The number of a code element and what the tables know of it; the closer look for one that may count."""
        try:
            found = _CONCEPT.decode(text) if text else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _CLOSER  # which will say what is wrong
        flags, codes = 0, _codes_of(found)
        for system, code in codes:
            flags |= self._code(system, code)[0]
        if found is not None and not flags & _MAPPED:
            displays = [coding.display or "" for coding in found.coding or () if coding.code]
            if self._ruleset.text_findings(codes, [found.text or "", *displays]):
                flags |= _MAPPED
        if flags & _MAPPED:
            return _CLOSER
        self._known.append([self._code(system, code) for system, code in codes])
        self._times_read.append(0)
        return len(self._known) - 1 << _FLAG_BITS | flags

    def _code(self, system: str, code: str) -> list[int]:
        known = self._codes.get((system, code))
        if known is None:
            entry = self._ruleset.entry(system, code)
            flags = _KNOWN if entry.rows or entry.system in self._ruleset.table_systems else 0
            known = self._codes[system, code] = [flags | (_MAPPED if entry.rows else 0), 0]
        return known

    def _settle_concepts(self) -> None:
        """Moves what was counted by code element to what is counted by code."""
        for codes, times in zip(self._known, self._times_read, strict=True):
            self._without_code += 0 if codes else times
            for known in codes:
                known[1] += times
        self._times_read[:] = [0] * len(self._times_read)

    def closer(self, fact: ProcedureFact) -> bool:
        """Tallies one Procedure that was looked at whole; says whether a row of the tables matches."""
        flags = 0
        for code in fact.codes:
            known = self._code(code.system, code.code)
            known[1] += 1
            flags |= known[0]
        if not flags & _MAPPED and read_codes(fact, self._ruleset).from_text:
            flags |= _MAPPED | _KNOWN
        self._without_code += not fact.codes
        flags |= self._statuses[fact.status] | _PLACES[self._period.place(fact.day)]
        self._extend((hash(fact.id),), (flags,))
        return bool(flags & _MAPPED)

    def take(self) -> tuple[list[UnmappedCode], int]:
        """Codes that no row matches, in no order, and Procedures without any code, both since the last time."""
        self._settle_concepts()
        unmapped = []
        for (system, code), known in self._codes.items():
            flags, number = known
            known[1] = 0
            if number and not flags & _MAPPED:
                unmapped.append(UnmappedCode(system, code, bool(flags & _KNOWN), number))
        without_code, self._without_code = self._without_code, 0
        return unmapped, without_code


def seen_of(distinct: Mapping[int, int], quarantined: int) -> Seen:
    """The tallies over distinct Procedures.

    Args:
        distinct: Flags to number of Procedures that have them.
        quarantined: How many could not be read.
    """
    status: Counter[str] = Counter()
    completed = mapped = known = outside = unplaced = 0
    for flags, number in distinct.items():
        where = flags & _PLACE
        if where != _INSIDE:
            outside += number if where == _OUTSIDE else 0
            unplaced += number if where == _UNPLACED else 0
            continue
        index = flags >> _STATUS_BITS
        name = STATUSES[index] if index < len(STATUSES) else "other"
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
