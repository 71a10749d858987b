"""Deciding patient by patient, and what only that can know of a Procedure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.lifespan import set_aside
from io_fhir_adapter.classify.sessions import latest
from io_fhir_adapter.classify.statuses import has_ended
from io_fhir_adapter.engine.partial import QUARANTINED_KEPT
from io_fhir_adapter.engine.spool import PatientFacts
from io_fhir_adapter.engine.terms import Terms
from io_fhir_adapter.model import Decision, ProcedureFact, Quarantined

__all__ = ["Deciding"]


class Deciding:
    """Decides on patients, and notes what reading alone could not know of their Procedures.

    Args:
        terms: By what; patients who have nothing to do with the period are left out, unless everything is wanted.

    Attributes:
        quarantined: The first thousand Procedures that were set aside, since the patient cannot have been alive.
        aside: Day and status of all those to their number.
        ended: Day to number of those that the programme takes for completed.
    """

    def __init__(self, terms: Terms) -> None:
        self.quarantined: list[Quarantined] = []
        self.aside: Counter[tuple[str, str]] = Counter()
        self.ended: Counter[str] = Counter()
        self._ruleset = terms.ruleset
        self._period = None if terms.everything else terms.period
        self._today = terms.today

    def decisions(self, patients: Iterable[PatientFacts]) -> Iterator[Decision]:
        """The decisions on patients, in their order, and by date."""
        for facts in patients:
            versions = latest(facts.procedures)
            good, aside = set_aside(facts.patient, versions, facts.people, self._ruleset)
            if aside:
                self._note(versions, aside)
            if self._ruleset.programme.takes_ended_for_completed:
                self.ended.update(fact.day for fact in good if self._has_ended(fact))
            if self._period is None or any(self._period.place(fact.day) != "outside" for fact in good):
                yield from decide_patient(good, facts.conditions, facts.encounters, self._ruleset, today=self._today)

    def _has_ended(self, fact: ProcedureFact) -> bool:
        return has_ended(fact, self._today) and bool(read_codes(fact, self._ruleset).findings)

    def _note(self, versions: Sequence[ProcedureFact], aside: Sequence[Quarantined]) -> None:
        places = {entry.position for entry in aside}
        self.aside.update((fact.day, fact.status) for fact in versions if f"Procedure/{fact.id}" in places)
        self.quarantined.extend(aside[: QUARANTINED_KEPT - len(self.quarantined)])
