"""Short ways to make facts; everything here is synthetic."""

from __future__ import annotations

from functools import cache

import pytest

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.model import Code, ConditionFact, Decision, EncounterFact, ProcedureFact

SYSTEMS = {
    "ops": "http://fhir.de/CodeSystem/bfarm/ops",
    "pcs": "http://www.cms.gov/Medicare/Coding/ICD10",
    "sct": "http://snomed.info/sct",
    "cpt": "http://www.ama-assn.org/go/cpt",
    "icd": "http://hl7.org/fhir/sid/icd-10",
    "local": "http://hospital.example/keys",
}
PATIENT = "Patient/p1"


@cache
def _ruleset() -> Ruleset:
    return load_ruleset()


class Make:
    """Makes facts of one patient and decides on them."""

    @property
    def ruleset(self) -> Ruleset:
        """The shipped rules."""
        return _ruleset()

    @staticmethod
    def codes(text: str) -> tuple[Code, ...]:
        """Codings such as ``ops:5-501.a3 & sct:609232008``; without a system, ICD-10."""
        parts = (part.partition(":") if ":" in part else ("icd", ":", part) for part in text.replace("&", " ").split())
        return tuple(Code(SYSTEMS[system], code) for system, _, code in parts)

    def procedure(
        self,
        name: str,
        codes: str,
        day: str = "2025-03-14",
        stated: str = "",
        status: str = "completed",
        **more: object,
    ) -> ProcedureFact:
        return ProcedureFact(
            more.pop("source", "his"),  # type: ignore[arg-type]
            name,
            PATIENT,
            status,
            day,
            codes=self.codes(codes),
            reasons=self.codes(stated),
            **more,  # type: ignore[arg-type]
        )

    def procedures(
        self, text: str, day: str = "2025-03-14", stated: str = "", prefix: str = "x", **more: object
    ) -> list[ProcedureFact]:
        """One Procedure per part of ``ops:… + ops:…``."""
        return [
            self.procedure(f"{prefix}{number}", part, day, stated, **more)  # type: ignore[arg-type]
            for number, part in enumerate(text.split(" + "), start=1)
        ]

    def condition(self, name: str, codes: str, **more: object) -> ConditionFact:
        return ConditionFact("his", name, PATIENT, self.codes(codes), **more)  # type: ignore[arg-type]

    def decide(
        self,
        facts: list[ProcedureFact],
        conditions: list[ConditionFact] | tuple[()] = (),
        encounters: list[EncounterFact] | tuple[()] = (),
    ) -> list[Decision]:
        return decide_patient(facts, conditions, encounters, _ruleset())

    def one(self, text: str, stated: str = "", on_record: str = "", **more: object) -> Decision:
        """The only decision on one day."""
        conditions = [self.condition(f"c{number}", code) for number, code in enumerate(on_record.split())]
        (decision,) = self.decide(self.procedures(text, stated=stated, **more), conditions)  # type: ignore[arg-type]
        return decision


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()
