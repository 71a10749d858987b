"""What leaves is checked against the invariants of FHIR R4 by a second, independent library (slow to import)."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from tests.second_validator import r4

from io_fhir_adapter.model import Decision
from io_fhir_adapter.review.case_input import CaseInput
from io_fhir_adapter.review.deidentify import DeidContext, deidentify
from io_fhir_adapter.review.forms import load_questionnaire
from io_fhir_adapter.review.prefill import prefill
from io_fhir_adapter.review.profile import load_profile

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("fhircraft")]  # which takes ten seconds to load

CONTEXT = DeidContext(
    key=b"k" * 32,
    token="0f" * 32,
    patient="Patient/1",
    index_date="2025-03-02",
    category="tace",
    included=frozenset({"Condition/1"}),
)
SUBJECT = {"reference": "Patient/1"}
SOURCES: list[dict[str, Any]] = [
    {"resourceType": "Patient", "id": "1", "gender": "male", "birthDate": "1950"},
    {
        "resourceType": "Procedure",
        "id": "1",
        "status": "completed",
        "subject": SUBJECT,
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "387713003"}]},
        "performedDateTime": "2025-03-02",
        "reasonReference": [{"reference": "Condition/1"}],
    },
    {
        "resourceType": "Condition",
        "id": "1",
        "subject": SUBJECT,
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "C22.0"}]},
        "clinicalStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "resolved"}]
        },
        "abatementDateTime": "2025-05-01",
    },
    {
        "resourceType": "Encounter",
        "id": "1",
        "subject": SUBJECT,
        "status": "finished",
        "period": {"start": "2025-03-01"},
    },
]


def check(resource: dict[str, Any]) -> None:
    models = r4()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*dom-6")  # recommends a narrative, which must not leave
        getattr(models, resource["resourceType"]).model_validate(resource)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source["resourceType"]))
def test_copies_keep_the_invariants(source: dict[str, Any]) -> None:
    check(deidentify(source, load_profile(), CONTEXT))


def test_the_form_and_its_response_keep_the_invariants() -> None:
    form = load_questionnaire()
    decision = Decision("his", "Patient/1", "2025-03-02", "tace", "counted", "counted")
    case = CaseInput(1, "0f" * 32, decision, patient=SOURCES[0], procedures=(SOURCES[1],), conditions=(SOURCES[2],))
    check(form)
    check(prefill(form, case).response)
