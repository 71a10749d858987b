"""How much of what a source records the tables know, by code system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from sqlalchemy import Connection

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import ProcedureFact

__all__ = ["NO_SYSTEM", "Coverage", "SystemCoverage", "survey"]

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


def survey(facts: Iterable[ProcedureFact], ruleset: Ruleset, unmapped: Connection) -> Coverage:
    """Tallies what the tables know of Procedures as they are now, whatever they were when these were read.

    Args:
        facts: Procedures, each once.
        ruleset: The tables.
        unmapped: A ledger that is empty; what no row matches is put there, for the report's list of such codes.
    """
    procedures: Counter[str] = Counter()
    mapped: Counter[str] = Counter()
    known_names: set[str] = set()
    total = known_total = mapped_total = without_code = 0
    run = start_run(unmapped, datetime.now(UTC))
    completed = (fact for fact in facts if fact.status == "completed")
    while batch := list(islice(completed, _BATCH)):
        rest: list[StoredFact] = []
        for fact in batch:
            total += 1
            without_code += not fact.codes
            names: dict[str, bool] = {}  # system → whether a row matches
            known = False
            for code in fact.codes:
                entry = ruleset.entry(code.system, code.code)
                name = entry.system or code.system or NO_SYSTEM
                names[name] = names.get(name, False) or bool(entry.rows)
                if entry.system in ruleset.table_systems:
                    known_names.add(name)
                    known = True
            procedures.update(names.keys())
            mapped.update(name for name, has_row in names.items() if has_row)
            known_total += known
            if any(names.values()):
                mapped_total += 1
            else:
                rest.append(StoredFact(fact, mapped=False, known_system=known))
        put_facts(unmapped, rest, run)
    systems = (
        SystemCoverage(name, name in known_names, number, mapped[name])
        for name, number in sorted(procedures.items(), key=lambda item: (-item[1], item[0]))
    )
    return Coverage(total, known_total, mapped_total, without_code, tuple(systems))
