"""Synthetic content of a submission: three cases, one Measure, one report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.submit.seal import CaseContent, SubmissionContent

MEASURE = "https://io-fhir-adapter.example/fhir/Measure/io-annual-volume-iasios"
FORM = "https://io-fhir-adapter.example/fhir/Questionnaire/io-case-review"


def _concept(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "https://io-fhir-adapter.example/fhir/CodeSystem/volume-population", "code": code}]}


def _case(number: int, token: str) -> CaseContent:
    codes = [{"system": "http://snomed.info/sct", "code": "108192008"}]
    return CaseContent(
        number=number,
        token=token,
        patient={"resourceType": "Patient", "id": f"p{number}", "gender": "female"},
        procedures=(
            {
                "resourceType": "Procedure",
                "id": "b",
                "status": "completed",
                "subject": {"reference": f"Patient/p{number}"},
                "code": {"coding": codes},
                "reasonReference": [{"reference": "Condition/c"}],
                "encounter": {"reference": "Encounter/e"},
            },
            {
                "resourceType": "Procedure",
                "id": "a",
                "status": "completed",
                "subject": {"reference": f"Patient/p{number}"},
                "code": {"text": "second"},
                "partOf": [{"reference": "Procedure/b"}],
            },
        ),
        conditions=(
            {
                "resourceType": "Condition",
                "id": "c",
                "subject": {"reference": f"Patient/p{number}"},
                "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "C22"}]},
            },
        ),
        encounters=(
            {
                "resourceType": "Encounter",
                "id": "e",
                "status": "finished",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            },
        ),
        questionnaire_response={
            "resourceType": "QuestionnaireResponse",
            "questionnaire": f"{FORM}|0.1.0",
            "status": "in-progress",
            "item": [{"linkId": "case.no", "answer": [{"valueInteger": number}]}],
        },
    )


@pytest.fixture
def make_content(synthetic_draw: Callable[..., Any]) -> Callable[..., SubmissionContent]:
    """A factory of contents; any field may be given."""
    draw = synthetic_draw()

    def make(**changes: Any) -> SubmissionContent:
        fields: dict[str, Any] = {
            "facility_code": "F-001",
            "programme": "iasios",
            "period_start": date(2025, 1, 1),
            "period_end": date(2025, 12, 31),
            "measure": {
                "resourceType": "Measure",
                "id": "m",
                "url": MEASURE,
                "version": "1.0.0",
                "status": "draft",
                "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'},
            },
            "measure_report": {
                "resourceType": "MeasureReport",
                "id": "r",
                "status": "complete",
                "type": "summary",
                "measure": f"{MEASURE}|1.0.0",
                "date": "2026-01-05T03:00:00+01:00",
                "period": {"start": "2025-01-01T00:00:00+01:00", "end": "2025-12-31T23:59:59+01:00"},
                "group": [{"population": [{"code": _concept("numerator"), "count": 151}]}],
            },
            "group": draw.group,
            "draw": draw.drawn,
            "questionnaire": {
                "resourceType": "Questionnaire",
                "url": FORM,
                "version": "0.1.0",
                "status": "draft",
                "item": [{"linkId": "case.no", "type": "integer", "text": "Case number"}],
            },
            "cases": tuple(_case(number, token) for number, token in enumerate(draw.tokens, start=1)),
            "method": {
                "frame_digest": draw.commitment.digest,
                "nonce": draw.nonce,
                "ruleset_digest": "sha256:" + "b" * 64,
                "software_version": "0.1.0",
            },
        }
        return SubmissionContent(**(fields | changes))

    return make


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger of the test's own."""
    opened = new_ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()
