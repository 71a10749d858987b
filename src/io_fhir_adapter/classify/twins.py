"""Whether two sessions on neighbouring days are one treatment that two systems recorded, and on which day it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from io_fhir_adapter.classify.findings import Reading, is_usable
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.sessions import Session
from io_fhir_adapter.model import ProcedureFact

__all__ = ["Twins"]

_FAMILIES = frozenset({"ablation", "arterial"})
_BY_ORGAN = frozenset({"ablation", "drainage"})
_BONES = {"spine": "bone"}
_Mark = tuple[str, str, str]
"""(what was done, site, system that recorded it)"""


@dataclass(frozen=True, slots=True)
class Twins:
    """Compares sessions of one patient.

    Attributes:
        ruleset: The tables.
        reading: What the codes of a Procedure say.
    """

    ruleset: Ruleset
    reading: Callable[[ProcedureFact], Reading]

    def recorded_twice(self, first: Session, second: Session) -> bool:
        """Whether both hold the same treatment, recorded by systems of which none recorded it on both days."""
        common = _in_common(self._marks(first), self._marks(second))
        return bool(common) and all(system != other for system, other in common)

    def coded_on_second(self, first: Session, second: Session) -> bool:
        """Whether what they have in common is known by a code in the second alone: the day of the code holds."""
        coded = self._marks(first, coded=True), self._marks(second, coded=True)
        return not _in_common(coded[0], self._marks(second)) and bool(_in_common(self._marks(first), coded[1]))

    def _marks(self, session: Session, *, coded: bool = False) -> set[_Mark]:
        """What was done in a session, where that tells treatments apart, and who recorded it; or by codes alone.

        One system may name an energy, or a part of a chemoembolisation, where another does not.
        """
        techniques = self.ruleset.rules.techniques
        marks: set[_Mark] = set()
        for fact in session.facts:
            reading = self.reading(fact)
            if fact.status != "completed" or (coded and reading.from_text):
                continue
            for finding in reading.findings:
                if finding.role == "main" and is_usable(finding):
                    family = techniques[finding.technique].family
                    word = family if family in _FAMILIES else finding.technique
                    site = _BONES.get(finding.site, finding.site) if family in _BY_ORGAN else ""
                    marks.add((word, site, self._system_of(fact)))
        return marks

    def _system_of(self, fact: ProcedureFact) -> str:
        systems = self.ruleset.systems
        named = fact.origin or next((systems.name(code.system) for code in fact.codes), "")
        return f"{fact.source} {named}"  # two servers are two systems, whatever their records say


def _in_common(first: Iterable[_Mark], second: Iterable[_Mark]) -> list[tuple[str, str]]:
    """For each mark that may be the same treatment in both, the systems that recorded it."""
    there = list(second)
    return [
        (system, other)
        for word, site, system in first
        for same, place, other in there
        if word == same and (not site or not place or site == place)
    ]
