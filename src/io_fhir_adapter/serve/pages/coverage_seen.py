"""What the sources record, code by code, and what the tables know of it: counted once for each state of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from io_fhir_adapter.classify.category_cells import literal_pattern
from io_fhir_adapter.classify.redecide import decided_with
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.workbench.coverage import CodeCount, Coverage, frequencies
from io_fhir_adapter.classify.workbench.rows import read_rows
from io_fhir_adapter.classify.workbench.site import tables_of
from io_fhir_adapter.classify.workbench.suggest import LocalCode, Suggestion, load_spellings, suggest_rows
from io_fhir_adapter.ledger.facts import every_procedure
from io_fhir_adapter.ledger.runs import last_ended
from io_fhir_adapter.report.gather import UnmappedCodes
from io_fhir_adapter.report.nightly import UnmappedCode
from io_fhir_adapter.serve.pages.kept import Kept
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.trust.canonical import digest

__all__ = ["Proposal", "Seen", "SeenCodes"]

_PATIENCE_S: Final = 2.0
_TOKEN: Final = slice(7, 31)  # of a digest, behind the name of its algorithm


@dataclass(frozen=True, slots=True)
class Proposal:
    """A row for a code of a site's own; ``token`` is of the code and of each cell of the row."""

    suggestion: Suggestion
    token: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The codes of completed Procedures.

    Attributes:
        ended: When the run ended that this is of, empty where none did.
        rules: The tables that it was counted with.
        decided: Digest of the rules that the last night decided by, empty where none did.
        coverage: The tallies by system.
        mapped: Codes with a row, the most frequent first.
        open: Codes of Procedures that no row matches, those of systems without a table first.
        proposals: (system, code) to the proposed row.
    """

    ended: str
    rules: Ruleset
    decided: str
    coverage: Coverage
    mapped: tuple[CodeCount, ...]
    open: tuple[UnmappedCode, ...]
    proposals: Mapping[tuple[str, str], Proposal]


class SeenCodes:
    """Counts in a thread of its own; facts change with runs alone, so the last that ended and the rules name the state.

    Args:
        view: The facility.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._kept: Kept[Seen] = Kept("coverage")

    def now(self) -> Seen | None:
        """What was seen up to the last night; older while it is counted, None where there is none.

        Raises:
            AdapterError: The ledger or a table could not be read.
        """
        rules = self._view.ruleset
        with self._view.web.ledger.read() as connection:
            last = last_ended(connection)
            ended = (last.finished or "") if last is not None else ""
            state = (ended, decided_with(connection), rules.digest)
        return self._kept.of("", state, lambda: self._counted(rules, *state[:2]), _PATIENCE_S)

    def _counted(self, rules: Ruleset, ended: str, decided: str) -> Seen:
        without = UnmappedCodes()
        with self._view.web.ledger.read() as connection:
            coverage, codes = frequencies(every_procedure(connection), rules, without.add)
        unmapped = without.rows(rules)
        known = [row for table in tables_of(None) for row in read_rows(table.path, table.label).rows]
        spellings = load_spellings(shipped_path("mappings", "technique-words.csv"))
        asked = [LocalCode(row.system, row.code, row.display, row.procedures) for row in unmapped]
        made = {(one.system, one.row.code): one for one in suggest_rows(asked, known, rules, spellings)}
        proposals = {}
        for row in unmapped:
            found = made.get((row.system, literal_pattern(row.code))) if row.code else None
            if found is not None:
                token = digest({"system": row.system, "code": row.code, "row": found.row.cells()})[_TOKEN]
                proposals[row.system, row.code] = Proposal(found, token)
        mapped = tuple(code for code in codes if code.has_row)
        return Seen(ended, rules, decided, coverage, mapped, tuple(unmapped), proposals)
