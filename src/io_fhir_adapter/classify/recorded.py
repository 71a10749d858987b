"""What the tables say of a Procedure as it is recorded: code by code, whether a row matches and whose it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Entry, Ruleset
from io_fhir_adapter.classify.tables import CodeRow
from io_fhir_adapter.model import Finding, ProcedureFact

__all__ = ["CodeRead", "codes_read", "text_read"]

_SHIPPED = "codes/"  # where the rules of shipped rows begin


@dataclass(frozen=True, slots=True)
class CodeRead:
    """One code of a Procedure.

    Attributes:
        system: Short name of its code system; the URI as written where no table is of it, empty where there is none.
        code: As the tables write it, or as it was written.
        has_table: Whether its system has a table.
        finding: What the row says that decides on its day, None where no row matches.
        own: Whether that row is the site's own.
        in_place_of: The shipped row that would decide without it, empty where there is none.
    """

    system: str
    code: str
    has_table: bool
    finding: Finding | None = None
    own: bool = False
    in_place_of: str = ""


def codes_read(fact: ProcedureFact, ruleset: Ruleset) -> list[CodeRead]:
    """Every code of a Procedure, in its order."""
    found = []
    for code in fact.codes:
        entry = ruleset.entry(code.system, code.code)
        row = entry.row_on(fact.day)
        if row is not None:
            own = not row.finding.rule.startswith(_SHIPPED)
            found.append(
                CodeRead(entry.system, entry.code, True, row.finding, own, _shipped(entry, fact.day) if own else "")
            )
        elif entry.system in ruleset.table_systems:
            found.append(CodeRead(entry.system, entry.code, has_table=True))
        else:
            found.append(CodeRead(code.system, code.code, has_table=False))
    return found


def text_read(fact: ProcedureFact, ruleset: Ruleset) -> tuple[Finding, ...]:
    """What its text says, where no table knows its codes; never the text itself."""
    reading = read_codes(fact, ruleset)
    return tuple(reading.findings) if reading.from_text else ()


def _shipped(entry: Entry, day: str) -> str:
    rows: tuple[CodeRow, ...] = tuple(row for row in entry.rows if row.finding.rule.startswith(_SHIPPED))
    row = replace(entry, rows=rows).row_on(day)
    return row.finding.rule if row is not None else ""
