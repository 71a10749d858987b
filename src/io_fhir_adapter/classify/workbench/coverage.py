"""How much of what a source records the tables know, by code system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from sqlalchemy import Connection

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import ProcedureFact

__all__ = ["NO_SYSTEM", "CodeCount", "Coverage", "SystemCoverage", "frequencies", "survey"]

NO_SYSTEM = "(no system)"
_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class SystemCoverage:
    """One code system in the data.

    Attributes:
        name: Short name, or the URI as written where it is not known.
        known: Whether it has a code table.
        procedures: Completed Procedures with a code of it.
        mapped: Those of which a code of it has a row.
    """

    name: str
    known: bool
    procedures: int
    mapped: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Completed Procedures: all, with a code of a system that has a table, with a row, without any code."""

    procedures: int
    known: int
    mapped: int
    without_code: int
    systems: tuple[SystemCoverage, ...]


@dataclass(frozen=True, slots=True)
class CodeCount:
    """One code in the data, its system as written: in how many completed Procedures, and whether it has a row."""

    system: str
    code: str
    procedures: int
    has_row: bool


def survey(facts: Iterable[ProcedureFact], ruleset: Ruleset, unmapped: Connection) -> Coverage:
    """Tallies what the tables know of Procedures as they are now, whatever they were when these were read.

    Args:
        facts: Procedures, each once.
        ruleset: The tables.
        unmapped: A ledger that is empty; what no row matches is put there, for the report's list of such codes.
    """
    tally = _Tally(ruleset)
    run = start_run(unmapped, datetime.now(UTC))
    completed = (fact for fact in facts if fact.status == "completed")
    while batch := list(islice(completed, _BATCH)):
        rest: list[StoredFact] = []
        for fact in batch:
            known, mapped = tally.add(fact)
            if not mapped:
                rest.append(StoredFact(fact, mapped=False, known_system=known))
        put_facts(unmapped, rest, run)
    return tally.result()


def frequencies(
    facts: Iterable[ProcedureFact], ruleset: Ruleset, unmapped: Callable[[ProcedureFact], None]
) -> tuple[Coverage, list[CodeCount]]:
    """The same tallies, and every code with the number of completed Procedures that have it, the most first.

    Args:
        facts: Procedures, each once.
        ruleset: The tables.
        unmapped: Told of each completed Procedure that no row matches.
    """
    tally = _Tally(ruleset)
    codes: Counter[tuple[str, str]] = Counter()
    for fact in facts:
        if fact.status == "completed":
            _, mapped = tally.add(fact)
            if not mapped:
                unmapped(fact)
            codes.update({(code.system or NO_SYSTEM, code.code) for code in fact.codes})
    counts = (
        CodeCount(system, code, number, bool(ruleset.entry(system, code).rows))
        for (system, code), number in sorted(codes.items(), key=lambda item: (-item[1], item[0]))
    )
    return tally.result(), list(counts)


class _Tally:
    """What the tables know of completed Procedures, told one by one."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._procedures: Counter[str] = Counter()
        self._mapped: Counter[str] = Counter()
        self._known_names: set[str] = set()
        self._total = self._known = self._with_row = self._without_code = 0

    def add(self, fact: ProcedureFact) -> tuple[bool, bool]:
        """Counts one; says whether a code of it is of a system that has a table, and whether a row matches."""
        self._total += 1
        self._without_code += not fact.codes
        names: dict[str, bool] = {}  # system → whether a row matches
        known = False
        for code in fact.codes:
            entry = self._ruleset.entry(code.system, code.code)
            name = entry.system or code.system or NO_SYSTEM
            names[name] = names.get(name, False) or bool(entry.rows)
            if entry.system in self._ruleset.table_systems:
                self._known_names.add(name)
                known = True
        self._procedures.update(names.keys())
        self._mapped.update(name for name, has_row in names.items() if has_row)
        mapped = any(names.values())
        self._known += known
        self._with_row += mapped
        return known, mapped

    def result(self) -> Coverage:
        """All tallies, the system with the most Procedures first."""
        systems = (
            SystemCoverage(name, name in self._known_names, number, self._mapped[name])
            for name, number in sorted(self._procedures.items(), key=lambda item: (-item[1], item[0]))
        )
        return Coverage(self._total, self._known, self._with_row, self._without_code, tuple(systems))
