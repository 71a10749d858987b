"""Synthetic submissions for the receiver: sealed by the sender's own function, then broken on purpose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.submit.seal import CaseContent, SubmissionContent, seal
from io_fhir_adapter.trust.submission import submission_digest

BASE = "https://io-fhir-adapter.example/fhir"
DIAGNOSIS = {"system": "http://hl7.org/fhir/sid/icd-10", "code": "C22"}


def _populations(counted: int, review: int) -> list[dict[str, Any]]:
    counts = {"numerator": counted, "review": review}
    return [{"code": {"coding": [{"code": code}]}, "count": count} for code, count in counts.items()]


def _case(number: int, token: str) -> CaseContent:
    return CaseContent(
        number=number,
        token=token,
        patient={"resourceType": "Patient", "gender": "male"},
        procedures=(
            {
                "resourceType": "Procedure",
                "status": "completed",
                "code": {"coding": [{"system": "http://snomed.info/sct", "code": "108192008"}]},
                "reasonReference": [{"reference": "Condition/c"}],
            },
        ),
        conditions=({"resourceType": "Condition", "id": "c", "code": {"coding": [DIAGNOSIS]}},),
        questionnaire_response={
            "resourceType": "QuestionnaireResponse",
            "questionnaire": f"{BASE}/Questionnaire/io-case-review|0.1.0",
            "status": "in-progress",
        },
    )


def sealed_submission(draw: Any, facility: str, counted: int) -> dict[str, Any]:
    measure = f"{BASE}/Measure/io-annual-volume-iasios"
    strata = [
        {"value": {"text": "tace"}, "population": _populations(counted - 1, 2)},
        {"value": {"text": "pve"}, "population": _populations(1, 0)},
    ]
    content = SubmissionContent(
        facility_code=facility,
        programme="iasios",
        period_start=date(2025, 1, 1),
        period_end=date(2025, 12, 31),
        measure={"resourceType": "Measure", "url": measure, "status": "draft"},
        measure_report={
            "resourceType": "MeasureReport",
            "status": "complete",
            "type": "summary",
            "measure": measure,
            "period": {"start": "2025-01-01", "end": "2025-12-31"},
            "group": [{"population": _populations(counted, 2), "stratifier": [{"stratum": strata}]}],
        },
        group=draw.group,
        draw=draw.drawn,
        questionnaire=None,
        cases=tuple(_case(number, token) for number, token in enumerate(draw.tokens, start=1)),
        method={
            "frame_digest": draw.commitment.digest,
            "nonce": draw.nonce,
            "ruleset_digest": "sha256:" + "b" * 64,
            "software_version": "0.1.0",
        },
    )
    return seal(content, datetime(2026, 1, 5, 3, 0, tzinfo=UTC))


@pytest.fixture
def sealed(synthetic_draw: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Makes a sealed Bundle: ``sealed(facility="F-001", counted=151, cases=3, seed="")``."""

    def make(facility: str = "F-001", counted: int = 151, cases: int = 3, seed: str = "") -> dict[str, Any]:
        return sealed_submission(synthetic_draw(cases, facility=facility, seed=seed), facility, counted)

    return make


@pytest.fixture
def altered(sealed: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Makes a sealed Bundle, changes it and corrects its digest: ``altered(change, **sealed)``."""

    def make(change: Callable[[dict[str, Any]], Any], **fields: Any) -> dict[str, Any]:
        bundle = copy.deepcopy(sealed(**fields))
        change(bundle)
        bundle["identifier"]["value"] = submission_digest(bundle)
        return bundle

    return make


class Clock:
    """A clock that goes on by a second at every look."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture(params=["memory", "file", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[ReceiverStore]:
    """A store in memory, one in a file, and one in PostgreSQL where the machine has one."""
    with ExitStack() as stack:
        url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'receiver.db'}"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgres").database())
        yield stack.enter_context(closing(ReceiverStore(url, clock=Clock())))
