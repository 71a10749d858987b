"""A Procedure before its patient's birth or after the death: a mistake of the record, set aside and never counted.

Which of the dates is wrong cannot be known, so nothing is decided on such a Procedure until one is corrected. Dates are
compared as far as they are known: only what lies outside for certain is set aside. The days of birth and death belong
to the life, and so does the day before and after, since a source may write one of the dates in another time zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.versions import newest
from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import first_of, last_of
from io_fhir_adapter.model import PatientFact, ProcedureFact, Quarantined

__all__ = ["Lives", "set_aside"]

_EARLIEST_DEATH: Final = "1900"  # before it stands what systems write for a date that is not known
_SLACK: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Lives:
    """The first and last day on which something can have been done to a person, by source; empty where not known.

    Several sources, and records that were merged, may each have dates. Those of the Procedure's own source hold, the
    surviving record's first; where it has none, those of another source.
    """

    spans: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, person: str, records: Iterable[PatientFact]) -> Lives:
        """The life of one person.

        Args:
            person: Reference of the surviving record.
            records: That record and those merged into it, in any order and version.
        """
        known = newest(records, lambda fact: (fact.source, fact.id)).values()
        dated = [fact for fact in known if fact.birth_date or fact.deceased[:1].isdigit()]
        if not dated:
            return cls({})
        ranked = sorted(dated, key=lambda fact: (f"Patient/{fact.id}" != person, fact.source, fact.id))
        return cls({"": _span(ranked)} | {source: _span(ranked, source) for source in {fact.source for fact in ranked}})

    def fault(self, fact: ProcedureFact) -> ResourceError | None:
        """Why the Procedure cannot have been done on its date, or None; it says no date."""
        if not self.spans or not fact.day:
            return None
        first, last = self.spans.get(fact.source) or self.spans[""]
        if first and last_of(fact.day) < first:
            return ResourceError("the date lies before the patient's birth", number=14)
        if last and first_of(fact.day) > last:
            return ResourceError("the date lies after the patient's death", number=15)
        return None


def set_aside(
    person: str, facts: Sequence[ProcedureFact], people: Sequence[PatientFact], ruleset: Ruleset
) -> tuple[Sequence[ProcedureFact], list[Quarantined]]:
    """Procedures that can be true, and what is said of the others.

    Those that no row of the tables matches are never decided on; they stay what they are, tallied and no more.

    Args:
        person: Reference of the patient's surviving record.
        facts: The person's Procedures, each resource once.
        people: The surviving record and those merged into it.
        ruleset: Says which Procedures a row matches.
    """
    lives = Lives.of(person, people)
    if not lives.spans:
        return facts, []
    good: list[ProcedureFact] = []
    aside: list[Quarantined] = []
    for fact in facts:
        fault = lives.fault(fact)
        if fault is None or not read_codes(fact, ruleset).findings:
            good.append(fact)
        else:
            aside.append(Quarantined(fact.source, f"Procedure/{fact.id}", "Procedure", fault.what, fault.code))
    return good, aside


def _span(ranked: Sequence[PatientFact], source: str = "") -> tuple[str, str]:
    """First and last day by the records in their order, those of a source before the others."""
    records = sorted(ranked, key=lambda fact: fact.source != source) if source else ranked
    born = next((fact.birth_date for fact in records if fact.birth_date), "")
    died = next((fact.deceased for fact in records if _EARLIEST_DEATH <= fact.deceased < ":"), "")
    return _shifted(first_of(born), -_SLACK) if born else "", _shifted(last_of(died), _SLACK) if died else ""


def _shifted(day: str, by: timedelta) -> str:
    """A day earlier or later; at the end of the calendar the day itself."""
    try:
        return (date.fromisoformat(day) + by).isoformat()
    except (ValueError, OverflowError):
        return day
