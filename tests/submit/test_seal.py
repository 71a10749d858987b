from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest
from fhir.resources.R4B.bundle import Bundle
from tests.second_validator import r4

from io_fhir_adapter.errors import SubmitError
from io_fhir_adapter.submit.seal import CaseContent, SubmissionContent, seal
from io_fhir_adapter.trust.submission import submission_digest

Make = Callable[..., SubmissionContent]
NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 6, 3, 0, tzinfo=UTC)


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def test_the_same_content_gives_the_same_bundle_in_any_order_of_cases(make_content: Make) -> None:
    content = make_content()
    first = seal(content, NOW)
    for seed in range(5):
        shuffler = random.Random(seed)
        cases = [
            replace(case, procedures=tuple(shuffler.sample(case.procedures, len(case.procedures))))
            for case in content.cases
        ]
        shuffler.shuffle(cases)
        assert seal(replace(content, cases=tuple(cases)), NOW) == first


def test_the_identifier_says_what_and_not_when(make_content: Make) -> None:
    content = make_content()
    first = seal(content, NOW)
    report = content.measure_report | {"date": "2026-01-06T03:00:00+01:00"}
    later = seal(replace(content, measure_report=report), LATER)
    assert later["identifier"] == first["identifier"]
    assert later["timestamp"] != first["timestamp"]
    assert [entry["fullUrl"] for entry in later["entry"]] == [entry["fullUrl"] for entry in first["entry"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, programme="degir"),
        lambda c: replace(c, cases=c.cases[:2]),
        lambda c: replace(c, method=c.method | {"nonce": "cd" * 32}),
        lambda c: replace(c, method=c.method | {"software_version": "0.2.0"}),
        lambda c: replace(c, cases=(*c.cases[:2], replace(c.cases[2], token="other"))),
        lambda c: replace(c, measure_report=c.measure_report | {"status": "pending"}),
    ],
)
def test_other_content_has_another_identifier(
    make_content: Make, change: Callable[[SubmissionContent], SubmissionContent]
) -> None:
    assert seal(change(make_content()), NOW)["identifier"] != seal(make_content(), NOW)["identifier"]


def test_every_entry_is_a_conditional_update_and_carries_what_it_is_known_by(make_content: Make) -> None:
    bundle = seal(make_content(), NOW)
    urls = [entry["request"]["url"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls) == 5 + 3 * 6 + 1
    for entry in bundle["entry"]:
        resource, url = entry["resource"], entry["request"]["url"]
        assert entry["request"]["method"] == "PUT"
        kind, _, query = url.partition("?")
        if not query:
            assert url == f"Provenance/{resource['id']}"
            continue
        assert kind == resource["resourceType"]
        assert "|" not in query
        assert ":" not in query
        assert "id" not in resource
        name, _, value = query.partition("=")
        if name == "url":
            assert resource["url"] == unquote(value)
        else:
            given = resource["identifier"] if isinstance(resource["identifier"], list) else [resource["identifier"]]
            assert f"{given[0]['system']}|{given[0]['value']}" == unquote(value)


def test_references_lead_to_entries_by_urn(make_content: Make) -> None:
    bundle = seal(make_content(), NOW)
    kinds = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}
    for procedure in resources(bundle, "Procedure"):
        assert kinds[procedure["subject"]["reference"]] == "Patient"
    full = next(item for item in resources(bundle, "Procedure") if "encounter" in item)
    assert kinds[full["encounter"]["reference"]] == "Encounter"
    assert kinds[full["reasonReference"][0]["reference"]] == "Condition"
    for encounter in resources(bundle, "Encounter"):
        assert kinds[encounter["subject"]["reference"]] == "Patient"
    (provenance,) = resources(bundle, "Provenance")
    assert {target["reference"] for target in provenance["target"]} == kinds.keys() - {bundle["entry"][-1]["fullUrl"]}
    (drawn,) = resources(bundle, "List")
    assert kinds[drawn["subject"]["reference"]] == "Group"
    cases = [place["item"] for place in drawn["entry"] if place["flag"]["coding"][0]["code"] == "case"]
    assert [kinds[case["reference"]] for case in cases] == ["Patient"] * 3


def test_nothing_of_the_sources_own_ids_narrative_or_meta_leaves(make_content: Make) -> None:
    content = make_content()
    patient = content.cases[0].patient | {
        "id": "LOCALID",
        "identifier": [{"system": "urn:hospital", "value": "CANARY"}],
        "meta": {"source": "CANARY", "lastUpdated": "2025-01-01T00:00:00Z", "profile": ["https://example.org/p"]},
        "text": {"status": "generated", "div": "CANARY"},
    }
    case = replace(
        content.cases[0],
        patient=patient,
        procedures=(content.cases[0].procedures[0] | {"subject": {"reference": "Patient/LOCALID"}},),
    )
    bundle = seal(replace(content, cases=(case,)), NOW)
    text = json.dumps(bundle)
    assert "CANARY" not in text
    assert "LOCALID" not in text
    assert resources(bundle, "Patient")[0]["meta"] == {"profile": ["https://example.org/p"]}


# dom-6 asks for narrative, which does not leave on purpose.
@pytest.mark.interop
@pytest.mark.xdist_group("fhircraft")
@pytest.mark.filterwarnings(r"ignore:(?s).*\[dom-6\]")
def test_the_bundle_is_valid_for_two_independent_validators(make_content: Make) -> None:
    bundle = seal(make_content(), NOW)
    Bundle.model_validate(bundle)
    models = r4()
    for entry in bundle["entry"]:
        model = getattr(models, entry["resource"]["resourceType"])
        model.model_validate(entry["resource"])
    assert submission_digest(bundle) == bundle["identifier"]["value"]


def test_volumes_alone_need_no_frame(make_content: Make) -> None:
    bundle = seal(make_content(group=None, draw=None, questionnaire=None, cases=()), NOW)
    assert [entry["resource"]["resourceType"] for entry in bundle["entry"]] == [
        "Measure",
        "MeasureReport",
        "Provenance",
    ]
    systems = [entity["what"]["identifier"]["system"] for entity in resources(bundle, "Provenance")[0]["entity"]]
    assert len(systems) == 1


def _with_case(content: SubmissionContent, **changes: Any) -> SubmissionContent:
    case: CaseContent = replace(content.cases[0], **changes)
    return replace(content, cases=(case, *content.cases[1:]))


def _with_procedure(content: SubmissionContent, **changes: Any) -> SubmissionContent:
    return _with_case(content, procedures=(content.cases[0].procedures[0] | changes,))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: replace(c, facility_code="a|b"), "facility_code"),
        (lambda c: replace(c, measure={"resourceType": "Measure", "status": "draft"}), "MeasureReport.measure"),
        (lambda c: replace(c, period_start=c.period_start.replace(year=2024)), "MeasureReport.period.start"),
        (
            lambda c: replace(c, measure_report=c.measure_report | {"reporter": {"identifier": {"value": "F-002"}}}),
            "MeasureReport.reporter",
        ),
        (lambda c: replace(c, group=None), "group"),
        (lambda c: replace(c, draw=None), "draw"),
        (lambda c: replace(c, method=c.method | {"frame_digest": "sha256:" + "c" * 64}), "Group.identifier"),
        (lambda c: replace(c, method=c.method | {"nonce": "xyz"}), "method.nonce"),
        (lambda c: replace(c, method=c.method | {"ruleset_digest": "1"}), "method.ruleset_digest"),
        (lambda c: replace(c, cases=(c.cases[0], c.cases[0])), "cases"),
        (lambda c: _with_case(c, token="a b"), "case 1"),
        (lambda c: _with_case(c, patient={"resourceType": "Person"}), "case 1, Patient"),
        (lambda c: _with_procedure(c, performer=[{"actor": {"reference": "Practitioner/9"}}]), "performer[0].actor"),
        (lambda c: _with_procedure(c, contained=[{"resourceType": "Patient"}]), "contained"),
        (lambda c: _with_procedure(c, status="finished"), "resource.status"),
        (lambda c: _with_procedure(c, nonsense=1), "resource.nonsense"),
        (lambda c: _with_procedure(c, performedDateTime=""), "performedDateTime"),
        (
            lambda c: _with_case(c, questionnaire_response=c.cases[0].questionnaire_response | {"questionnaire": "x"}),
            "case 1, QuestionnaireResponse.questionnaire",
        ),
    ],
)
def test_what_does_not_hold_together_is_refused_by_element(
    make_content: Make, change: Callable[[SubmissionContent], SubmissionContent], named: str
) -> None:
    with pytest.raises(SubmitError) as caught:
        seal(change(make_content()), NOW)
    assert named in caught.value.sentence


def test_an_error_never_quotes_a_value(make_content: Make) -> None:
    for wrong in ({"status": "CANARY"}, {"performedDateTime": "CANARY"}, {"CANARY oh": 1}):
        with pytest.raises(SubmitError) as caught:
            seal(_with_procedure(make_content(), **wrong), NOW)
        assert "CANARY" not in caught.value.sentence


def test_a_time_without_zone_is_refused(make_content: Make) -> None:
    with pytest.raises(SubmitError, match="time zone"):
        seal(make_content(), datetime(2026, 1, 1))  # noqa: DTZ001
