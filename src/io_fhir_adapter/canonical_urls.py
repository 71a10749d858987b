"""The canonical URLs of this project's own FHIR artefacts, in one place.

They are this project's proposal; no accreditation body has published or adopted them.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "AGE_BAND",
    "BASE",
    "CASE_IDENTIFIER",
    "CASE_REVIEW_ANSWERS",
    "CASE_REVIEW_QUESTIONNAIRE",
    "CATEGORY_CODES",
    "DAY_OFFSET",
    "END_DAY_OFFSET",
    "PATIENT_TOKEN",
    "PREFILL_NEEDS",
    "QUARTER",
    "code_system",
    "naming_system",
    "structure_definition",
]

BASE: Final = "https://io-fhir-adapter.example/fhir"


def code_system(name: str) -> str:
    """The canonical URL of one of our CodeSystems."""
    return f"{BASE}/CodeSystem/{name}"


def naming_system(name: str) -> str:
    """The system URL of one of our identifiers."""
    return f"{BASE}/NamingSystem/{name}"


def structure_definition(name: str) -> str:
    """The canonical URL of one of our extensions or profiles."""
    return f"{BASE}/StructureDefinition/{name}"


CASE_REVIEW_QUESTIONNAIRE: Final = f"{BASE}/Questionnaire/io-case-review"
CASE_REVIEW_ANSWERS: Final = code_system("case-review")
CATEGORY_CODES: Final = code_system("procedure-category")
PATIENT_TOKEN: Final = naming_system("patient-token")
CASE_IDENTIFIER: Final = naming_system("case")
AGE_BAND: Final = structure_definition("age-band")
QUARTER: Final = structure_definition("quarter")
DAY_OFFSET: Final = structure_definition("day-offset")
END_DAY_OFFSET: Final = structure_definition("end-day-offset")
PREFILL_NEEDS: Final = structure_definition("prefill-needs")
