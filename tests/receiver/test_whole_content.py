"""The contract between both sides: what the stages make of a synthetic case passes the receiver's checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.ledger.draws import StoredCase
from io_fhir_adapter.model import Decision
from io_fhir_adapter.receiver.checks import check_submission
from io_fhir_adapter.receiver.wire import RefusedError
from io_fhir_adapter.report.standards import questionnaire
from io_fhir_adapter.review.cases import CaseNeeds, prepare_case
from io_fhir_adapter.review.forms import load_questionnaire
from io_fhir_adapter.review.profile import load_profile
from io_fhir_adapter.submit.content import StandardsContent
from io_fhir_adapter.submit.seal import CaseContent, SubmissionContent, seal
from io_fhir_adapter.volume.count import Period, SeenCounter, VolumeCounter
from io_fhir_adapter.volume.measure import build_measure, build_measure_report

NOW = datetime(2026, 2, 1, 3, 0, tzinfo=UTC)
DIGEST = "sha256:" + "d" * 64
RESOURCES: dict[str, dict[str, Any]] = {
    "Patient/1": {
        "resourceType": "Patient",
        "id": "1",
        "name": [{"family": "Canary-Name"}],
        "birthDate": "1951-03-07",
        "gender": "female",
        "identifier": [{"system": "urn:hospital", "value": "CANARY-MRN"}],
    },
    "Procedure/2": {
        "resourceType": "Procedure",
        "id": "2",
        "status": "completed",
        "subject": {"reference": "Patient/1", "display": "Canary-Name"},
        "encounter": {"reference": "Encounter/3"},
        "code": {"coding": [{"system": "http://fhir.de/CodeSystem/bfarm/ops", "code": "8-836.ka"}]},
        "performedDateTime": "2025-05-06T10:00:00+02:00",
        "reasonReference": [{"reference": "Condition/4"}],
        "note": [{"text": "CANARY note"}],
    },
    "Encounter/3": {
        "resourceType": "Encounter",
        "id": "3",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": "Patient/1"},
        "period": {"start": "2025-05-05", "end": "2025-05-08"},
    },
    "Condition/4": {
        "resourceType": "Condition",
        "id": "4",
        "subject": {"reference": "Patient/1"},
        "code": {"coding": [{"system": "http://fhir.de/CodeSystem/bfarm/icd-10-gm", "code": "C22.0"}]},
    },
}


def content(draw: Any) -> SubmissionContent:
    programme, form, period = load_programme("iasios"), load_questionnaire(), Period.year("2025")
    decision = Decision("s", "Patient/1", "2025-05-06", "tace", "counted", "counted", procedures=("Procedure/2",))
    volume = VolumeCounter(period, programme.threshold, {"tace": "yes"})
    volume.add(decision)
    case = prepare_case(
        CaseNeeds(
            StoredCase(1, "case", draw.tokens[0], "Patient/1", "2025-05-06", "tace", ("Procedure/2",)),
            decision,
            frozenset(RESOURCES),
        ),
        RESOURCES,
        form,
        load_profile(),
        key=b"k" * 32,
        nonce="ab" * 32,
        zone=UTC,
    )
    return SubmissionContent(
        facility_code="F-001",
        programme=programme.id,
        period_start=date(2025, 1, 1),
        period_end=date(2025, 12, 31),
        measure=build_measure(programme),
        measure_report=build_measure_report(
            volume.result(SeenCounter(period).result()),
            programme_id=programme.id,
            facility_code="F-001",
            facility_name="Synthetic department",
            time_zone="Europe/Berlin",
            produced=NOW,
            ruleset_digest=DIGEST,
        ),
        group=draw.group,
        draw=draw.drawn,
        questionnaire=form,
        cases=(
            CaseContent(
                number=case.number,
                token=case.token,
                patient=case.patient,
                procedures=case.procedures,
                conditions=case.conditions,
                questionnaire_response=case.response,
                encounters=case.encounters,
            ),
        ),
        method={
            "frame_digest": draw.commitment.digest,
            "nonce": draw.nonce,
            "ruleset_digest": DIGEST,
            "software_version": "0",
        },
    )


def test_what_the_stages_make_passes_the_receiver(synthetic_draw: Callable[..., Any]) -> None:
    bundle = seal(content(synthetic_draw(cases=1)), NOW)
    submission = check_submission(bundle, programmes={"iasios"})
    assert (submission.cases, submission.facility) == (1, "F-001")
    assert dict(submission.populations)["numerator"] == 1
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert sorted(kinds[5:]) == [
        "Condition", "Encounter", "Patient", "Procedure", "Provenance", "QuestionnaireResponse",
    ]  # fmt: skip
    text = json.dumps(bundle)
    assert "canary" not in text.lower()
    assert "2025-05-06" not in text


def test_the_procedure_keeps_its_links(synthetic_draw: Callable[..., Any]) -> None:
    entries = seal(content(synthetic_draw(cases=1)), NOW)["entry"]
    kinds = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in entries}
    (procedure,) = [entry["resource"] for entry in entries if entry["resource"]["resourceType"] == "Procedure"]
    assert kinds[procedure["subject"]["reference"]] == "Patient"
    assert kinds[procedure["encounter"]["reference"]] == "Encounter"
    assert kinds[procedure["reasonReference"][0]["reference"]] == "Condition"


def _met(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every requirement of the form answered with its first option, without evidence."""
    answered = []
    for item in items:
        if item["type"] == "choice":
            answered.append({"linkId": item["linkId"], "answer": [item["answerOption"][0]]})
        elif below := _met(item.get("item", [])):
            answered.append({"linkId": item["linkId"], "item": below})
    return answered


def test_the_self_assessment_of_the_facility_passes_beside_the_cases(synthetic_draw: Callable[..., Any]) -> None:
    form = questionnaire(load_programme("iasios"))
    response: dict[str, Any] = {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": f"{form['url']}|{form['version']}",
        "status": "completed",
        "item": _met(form["item"]),
    }
    said = replace(content(synthetic_draw(cases=1)), standards=StandardsContent(form, response))
    assert check_submission(seal(said, NOW)).cases == 1
    response["item"][0]["item"][0]["item"][0]["answer"] = [{"valueString": "CANARY"}]
    with pytest.raises(RefusedError) as caught:
        check_submission(seal(said, NOW))
    assert caught.value.issues[0].expression.endswith(".answer[0].valueString")
