"""The counted years behind the pages: counted once for each state of the ledger, not for each look at a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

from io_fhir_adapter.classify.redecide import decided_with
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.standing import CountedYear, rules_under, years_as_decided, years_under
from io_fhir_adapter.ledger.runs import last_ended
from io_fhir_adapter.serve.pages.kept import Kept
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.period import Period
from io_fhir_adapter.volume.tally import count_ledger

__all__ = ["Figures", "Years"]

_PATIENCE_S: Final = 2.0
"""So long a page waits for numbers that are being counted before it shows older ones, or says so, in seconds."""


@dataclass(frozen=True)
class Years:
    """Counted years of one programme.

    Attributes:
        rules: Tables, rules and the programme that they are of.
        today: The local date that they were counted on.
        running: The year under way.
        last: The year before it.
        before: The one before that; None where it is not the facility's own programme.
        ended: When the run ended that they are of, empty where none did.
        outdated: Whether that run decided by other rules than those that the next one will decide by.
    """

    rules: Ruleset
    today: date
    running: CountedYear
    last: CountedYear
    before: Volume | None
    ended: str
    outdated: bool = False

    def volumes(self, label: str) -> tuple[Volume, Volume | None]:
        """The volume of a year, the year under way or the one before, with that of the year before it."""
        if label == self.last[0].period.label:
            return self.last[0], self.before
        return self.running[0], self.last[0]


class Figures:
    """Counts in a thread of its own, so that no page waits long; the numbers of a state of the ledger are kept.

    Decisions and facts change with runs alone: the last run that ended, the day and the rules name the state.

    Args:
        view: The facility.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._kept: Kept[Years] = Kept("figures")

    def ahead(self) -> None:
        """Begins to count the facility's own years, so that whoever looks next need not wait.

        Raises:
            AdapterError: The ledger could not be read.
        """
        self._years("", 0.0)

    def years(self, programme: str = "") -> Years | None:
        """The counted years of a programme, the facility's own where none is named.

        Returns:
            Older ones where those of the ledger's state are not counted within two seconds, None where there are none.

        Raises:
            AdapterError: The ledger could not be read, or there is no such programme.
        """
        return self._years(programme, _PATIENCE_S)

    def _years(self, programme: str, patience_s: float) -> Years | None:
        rules = rules_under(self._view.web.config, self._view.ruleset, programme)
        name, today = rules.programme.id, self._view.today
        with self._view.web.ledger.read() as connection:
            last = last_ended(connection)
            ended = (last.finished or "") if last is not None else ""
            state = (ended, decided_with(connection), today.isoformat(), rules.digest)
        return self._kept.of(name, state, lambda: self._counted(rules, today, ended), patience_s)

    def _counted(self, rules: Ruleset, today: date, ended: str) -> Years:
        own = rules.programme.id == self._view.ruleset.programme.id
        with self._view.web.ledger.read() as connection:
            outdated = own and decided_with(connection) not in ("", rules.digest)
            running, last = (years_as_decided if outdated else years_under)(connection, rules, today)
            before = None
            if own:
                year = Period.year(str(today.year - 2))
                scoped = rules.scope is not None
                before = count_ledger(connection, year, rules.programme, scoped=scoped, today=today.isoformat())
        return Years(rules, today, running, last, before, ended, outdated)
