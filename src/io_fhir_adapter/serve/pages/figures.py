"""The counted years behind the pages: counted once for each state of the ledger, not for each look at a page."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date
from typing import Final

from io_fhir_adapter.classify.redecide import decided_with
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.standing import CountedYear, rules_under, years_under
from io_fhir_adapter.ledger.runs import recent_runs
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.period import Period
from io_fhir_adapter.volume.tally import count_ledger

__all__ = ["Figures", "Years"]

_PATIENCE_S: Final = 2.0
"""So long a page waits for numbers that are being counted before it shows older ones, or says so, in seconds."""
_LOOKED_AT: Final = 5
"""Of so many runs, the last that ended is what numbers are of."""


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
    """

    rules: Ruleset
    today: date
    running: CountedYear
    last: CountedYear
    before: Volume | None
    ended: str

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
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="figures")
        self._known: dict[str, tuple[tuple[str, ...], Future[Years]]] = {}
        self._older: dict[str, Years] = {}

    def years(self, programme: str = "") -> Years | None:
        """The counted years of a programme, the facility's own where none is named.

        Returns:
            Older ones where those of the ledger's state are not counted within two seconds, None where there are none.

        Raises:
            AdapterError: The ledger could not be read, or there is no such programme.
        """
        rules = rules_under(self._view.web.config, self._view.ruleset, programme)
        name, today = rules.programme.id, self._view.today
        with self._view.web.ledger.read() as connection:
            ended = next((run.finished for run in recent_runs(connection, _LOOKED_AT) if run.finished), "") or ""
            state = (ended, decided_with(connection), today.isoformat(), rules.digest)
        with self._lock:
            known = self._known.get(name)
            if known is None or known[0] != state or _failed(known[1]):
                known = (state, self._pool.submit(self._counted, rules, today, ended))
                self._known[name] = known
        if not wait([known[1]], _PATIENCE_S).done:
            return self._older.get(name)
        found = known[1].result()
        self._older[name] = found
        return found

    def _counted(self, rules: Ruleset, today: date, ended: str) -> Years:
        own = rules.programme.id == self._view.ruleset.programme.id
        with self._view.web.ledger.read() as connection:
            running, last = years_under(connection, rules, today)
            before = None
            if own:
                year = Period.year(str(today.year - 2))
                scoped = rules.scope is not None
                before = count_ledger(connection, year, rules.programme, scoped=scoped, today=today.isoformat())
        return Years(rules, today, running, last, before, ended)


def _failed(counting: Future[Years]) -> bool:
    return counting.done() and counting.exception() is not None
