from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fhir.resources.R4B.questionnaireresponse import QuestionnaireResponse

from io_fhir_adapter.canonical_urls import ABSENCE_OF, CASE_IDENTIFIER, CASE_REVIEW_ANSWERS, CATEGORY_CODES
from io_fhir_adapter.model import Decision, Finding, Indication
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.case_input import CaseInput
from io_fhir_adapter.review.prefill import Prefilled, prefill

FORM = forms.load_questionnaire()
SNOMED = "http://snomed.info/sct"
PATIENT = {
    "resourceType": "Patient",
    "id": "pat-77",
    "name": [{"family": "Canary", "given": ["Carla"]}],
    "birthDate": "1951-07-02",
    "gender": "female",
    "deceasedDateTime": "2025-03-20T23:30:00Z",
}
PROCEDURE: dict[str, Any] = {
    "resourceType": "Procedure",
    "id": "proc-9",
    "status": "completed",
    "subject": {"reference": "Patient/pat-77"},
    "encounter": {"reference": "https://his.example/fhir/Encounter/enc-3/_history/2"},
    "performedDateTime": "2025-03-01T10:00:00+01:00",
    "basedOn": [{"reference": "ServiceRequest/1"}],
    "reasonReference": [{"reference": "https://his.example/fhir/Condition/cond-5"}],
    "outcome": {"coding": [{"system": SNOMED, "code": "385669000", "display": "Canary text"}]},
    "complication": [{"text": "Canary complication"}],
    "focalDevice": [{"manipulated": {"display": "Canary probe"}}],
    "extension": [
        {
            "url": "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-procedure-intent",
            "valueCodeableConcept": {"coding": [{"system": SNOMED, "code": "363676003"}]},
        }
    ],
}
ENCOUNTER: dict[str, Any] = {
    "resourceType": "Encounter",
    "id": "enc-3",
    "status": "finished",
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP", "display": "Canary"},
    "period": {"start": "2025-02-28T09:00:00+01:00", "end": "2025-03-03T23:30:00Z"},
}
CONDITION: dict[str, Any] = {
    "resourceType": "Condition",
    "id": "cond-5",
    "subject": {"reference": "Patient/pat-77"},
    "code": {"coding": [{"system": "http://fhir.de/CodeSystem/bfarm/icd-10-gm", "code": "C22.0"}], "text": "Canary"},
    "stage": [{"summary": {"text": "Canary stage"}}],
}
OTHER_CONDITION = {**CONDITION, "id": "cond-6", "code": {"coding": [{"code": "C50.1"}]}, "stage": []}
DECISION = Decision(
    source="his",
    patient="Patient/pat-77",
    date="2025-03-01",
    category="tace",
    decision="counted",
    reason="counted",
    findings=(
        Finding("embolisation", "hepatic-artery", "percutaneous", "cytostatic", "main", "expected", "ops", "x", "r"),
        Finding("angiography", "vessel", "percutaneous", "none", "planning", "expected", "ops", "y", "r"),
    ),
    procedures=("Procedure/proc-9",),
)
CASE = CaseInput(
    number=4,
    token="ab" * 32,
    pseudonym="0011223344556677",
    decision=DECISION,
    patient=PATIENT,
    procedures=(PROCEDURE,),
    encounters=({**ENCOUNTER, "id": "enc-1"}, ENCOUNTER),
    conditions=(OTHER_CONDITION, CONDITION),
    zone=ZoneInfo("Europe/Berlin"),
)


def answers_of(filled: Prefilled) -> dict[str, Any]:
    """Answered linkId to the code or the plain value."""
    found = {}
    for item in forms.items(filled.response):
        values = [next(iter(answer.values())) for answer in item.get("answer", ())]
        if values:
            plain = [value["code"] if isinstance(value, dict) else value for value in values]
            found[item["linkId"]] = plain[0] if len(plain) == 1 else plain
    return found


def test_everything_that_the_record_tells_is_answered() -> None:
    assert answers_of(prefill(FORM, CASE)) == {
        "case.no": 4,
        "case.pseudonym": "0011223344556677",
        "case.age-band": "70-79",
        "case.sex": "female",
        "proc.category": "tace",
        "proc.counts": True,
        "proc.quarter": "quarter-1",
        "proc.setting": "inpatient",
        "proc.site": "liver",
        "dx.tumour": "tumour-liver",
        "dx.stage": "yes",
        "plan.referral": "yes",
        "plan.intent": "intent-palliative",
        "deliv.device": "yes",
        "out.technical": "success-complete",
        "out.stay": 3,
        "ae.any": "yes",
        "ae.death30": True,
    }


def test_the_response_is_valid_in_progress_and_bound_to_the_form() -> None:
    response = prefill(FORM, replace(CASE, subject="urn:uuid:4c3f0c2e-6a4b-5d6e-8f00-112233445566")).response
    QuestionnaireResponse.model_validate(response)
    assert response["status"] == "in-progress"
    assert response["questionnaire"] == forms.canonical(FORM)
    assert response["identifier"] == {"system": CASE_IDENTIFIER, "value": "0011223344556677"}
    assert response["subject"] == {"reference": "urn:uuid:4c3f0c2e-6a4b-5d6e-8f00-112233445566"}
    links = [item["linkId"] for item in forms.items(FORM)]
    answered = [item["linkId"] for item in forms.items(response)]
    assert answered == [link for link in links if link in answered]


def test_nothing_of_the_record_itself_is_in_the_response() -> None:
    text = json.dumps(prefill(FORM, CASE).response)
    for secret in ("Canary", "pat-77", "proc-9", "enc-3", "cond-5", "1951", "2025-03", "his.example", "C22"):
        assert secret not in text


def test_codings_and_displays_are_the_forms_own() -> None:
    by_link = {item["linkId"]: item for item in forms.items(FORM)}
    for item in forms.items(prefill(FORM, CASE).response):
        for answer in item.get("answer", ()):
            if "valueCoding" in answer:
                options = [option["valueCoding"] for option in by_link[item["linkId"]]["answerOption"]]
                assert answer["valueCoding"] in options
                assert answer["valueCoding"]["system"] != SNOMED


def test_each_answer_keeps_its_source_locally() -> None:
    sources = prefill(FORM, CASE).sources
    assert sources["case.sex"] == sources["case.age-band"] == sources["ae.death30"] == "Patient/pat-77"
    assert sources["proc.setting"] == sources["out.stay"] == "Encounter/enc-3"
    assert sources["plan.referral"] == sources["plan.intent"] == sources["proc.category"] == "Procedure/proc-9"
    assert sources["dx.stage"] == "Condition/cond-5"
    assert "Condition/cond-5" in sources["dx.tumour"]
    assert "Condition/cond-6" not in sources["dx.tumour"]


def test_every_enabled_question_is_either_answered_or_missing_with_a_reason() -> None:
    filled = prefill(FORM, CASE)
    asked = {item["linkId"] for item in forms.questions(FORM) if not forms.extensions(item, ABSENCE_OF)}
    disabled = {"ae.grade", "consent.risks", "fu.response.criteria"}
    assert set(filled.sources) | set(filled.missing) == asked - disabled
    assert not set(filled.sources) & set(filled.missing)
    assert filled.share == len(filled.sources) / len(asked - disabled)
    posed = {item["linkId"] for item in forms.questions(FORM) if forms.expression_of(item)} & (asked - disabled)
    assert filled.known_share == len(filled.sources) / len(posed)
    assert filled.missing["dx.ecog"] == "not recorded"
    assert filled.missing["rev.complete"] == "for the reviewer to answer"
    assert filled.missing["fu.plan"] == "not recorded"


def test_a_type_that_the_source_does_not_give_is_the_reason() -> None:
    absent = {"Observation": "not offered", "PractitionerRole": "not offered", "Consent": "refused"}
    missing = prefill(FORM, replace(CASE, absent=absent)).missing
    assert missing["dx.ecog"] == "not offered by this source: Observation"
    assert missing["deliv.operator"] == "not offered by this source: PractitionerRole"
    assert missing["consent.signed"] == "not recorded; refused by this source: Consent"
    assert missing["plan.imaging"] == "not recorded"
    assert missing["rev.complete"] == "for the reviewer to answer"


def test_without_encounter_and_patient_the_reason_says_so() -> None:
    filled = prefill(FORM, replace(CASE, encounters=(), patient=None))
    assert filled.missing["proc.setting"] == filled.missing["out.stay"] == "no Encounter linked"
    assert filled.missing["case.sex"] == filled.missing["case.age-band"] == "no Patient linked"
    none = prefill(FORM, replace(CASE, encounters=(), absent={"Encounter": "not offered"}))
    assert none.missing["proc.setting"] == "not offered by this source: Encounter"


def test_an_event_opens_its_questions_and_silence_is_no_denial() -> None:
    assert "ae.system" in prefill(FORM, CASE).missing
    quiet = {name: value for name, value in PROCEDURE.items() if name != "complication"}
    filled = prefill(FORM, replace(CASE, procedures=(quiet,)))
    assert filled.missing["ae.any"] == "not recorded"
    assert "ae.system" not in filled.missing


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"deceasedDateTime": "2025-05-01"}, False),
        ({"deceasedDateTime": "2025-03-31"}, True),
        ({"deceasedDateTime": "2025-04"}, None),
        ({"deceasedDateTime": None, "deceasedBoolean": False}, False),
        ({"deceasedDateTime": None, "deceasedBoolean": True}, None),
        ({"deceasedDateTime": None}, None),
    ],
)
def test_death_within_thirty_days(change: dict[str, Any], expected: bool | None) -> None:
    patient = {name: value for name, value in {**PATIENT, **change}.items() if value is not None}
    assert answers_of(prefill(FORM, replace(CASE, patient=patient))).get("ae.death30") is expected


@pytest.mark.parametrize(
    ("last_contact", "expected"),
    [("2025-04-01", False), ("2025-03-31", None), ("", None)],
)
def test_who_was_seen_later_was_alive(last_contact: str, expected: bool | None) -> None:
    patient = {name: value for name, value in PATIENT.items() if name != "deceasedDateTime"}
    filled = prefill(FORM, replace(CASE, patient=patient, last_contact=last_contact))
    assert answers_of(filled).get("ae.death30") is expected


def test_a_date_of_death_beats_a_later_contact() -> None:
    assert answers_of(prefill(FORM, replace(CASE, last_contact="2025-06-01")))["ae.death30"] is True


def test_without_a_link_the_only_encounter_around_the_day_is_taken() -> None:
    procedure = {name: value for name, value in PROCEDURE.items() if name != "encounter"}
    before = {**ENCOUNTER, "id": "enc-1", "period": {"start": "2025-02-01", "end": "2025-02-05"}}
    case = replace(CASE, procedures=(procedure,), encounters=(before, ENCOUNTER))
    assert prefill(FORM, case).sources["proc.setting"] == "Encounter/enc-3"
    two = replace(case, encounters=(ENCOUNTER, {**ENCOUNTER, "id": "enc-4"}))
    assert prefill(FORM, two).missing["proc.setting"] == "no Encounter linked"
    open_end = {**ENCOUNTER, "period": {"start": "2025-02-01"}}
    assert "proc.setting" in prefill(FORM, replace(case, encounters=(open_end,))).missing


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        (("liver", "visceral-arteries"), "liver"),
        (("visceral-arteries",), "vessel"),
        (("portal-vein",), "liver"),
        (("renal-artery",), "kidney"),
        (("renal-artery", "kidney"), "kidney"),
        (("liver", "kidney"), None),
        (("portal-vein", "visceral-arteries"), None),
    ],
)
def test_the_organ_is_the_site_not_the_vessel_that_leads_there(sites: tuple[str, ...], expected: str | None) -> None:
    findings = tuple(
        Finding("embolisation", site, "percutaneous", "none", "main", "expected", "ops", "x", "r") for site in sites
    )
    decision = Decision("his", "Patient/pat-77", "2025-03-01", "tace", "counted", "counted", findings=findings)
    assert answers_of(prefill(FORM, replace(CASE, decision=decision))).get("proc.site") == expected


def test_guidance_from_the_codes_that_say_nothing_else() -> None:
    codes = ("76940", "77013", "36245")
    findings = tuple(
        Finding("guidance", "", "unspecified", "none", "add-on", "required", "cpt", code, "r") for code in codes
    )
    decision = Decision("his", "Patient/pat-77", "2025-03-01", "tace", "counted", "counted", findings=findings)
    assert answers_of(prefill(FORM, replace(CASE, decision=decision)))["proc.guidance"] == [
        "guidance-us",
        "guidance-ct",
    ]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("IMP", "inpatient"),
        ("ACUTE", "inpatient"),
        ("SS", "day-case"),
        ("AMB", "outpatient"),
        ("EMER", "emergency"),
        ("x", None),
    ],
)
def test_setting_from_the_encounters_class(code: str, expected: str | None) -> None:
    encounter = {**ENCOUNTER, "class": {"code": code}}
    assert answers_of(prefill(FORM, replace(CASE, encounters=(encounter,)))).get("proc.setting") == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("C22.0", "tumour-liver"),
        ("C22.1", "tumour-bile-duct"),
        ("C78.7", "tumour-liver-metastasis"),
        ("C787", "tumour-liver-metastasis"),
        ("C78.0", "tumour-lung-metastasis"),
        ("C79.5", "tumour-bone-metastasis"),
        ("C77.2", "tumour-other-metastasis"),
        ("C34.1", "tumour-lung"),
        ("C64", "tumour-kidney"),
        ("C90.0", "tumour-haematological"),
        ("C61", "tumour-male-genital"),
        ("C7A.02", "tumour-neuroendocrine"),
        ("D13.4", "tumour-benign"),
        ("D37.6", "tumour-in-situ"),
        ("D50.0", None),
        ("M80.0", None),
    ],
)
def test_tumour_group_from_the_decisions_evidence(code: str, expected: str | None) -> None:
    decision = copy.copy(DECISION)
    indication = Indication("reasonCode", "http://hl7.org/fhir/sid/icd-10", code)
    decision = Decision(
        decision.source, decision.patient, decision.date, "tace", "counted", "counted", indication=indication
    )
    case = replace(CASE, decision=decision, conditions=(), procedures=({**PROCEDURE, "reasonReference": []},))
    assert answers_of(prefill(FORM, case)).get("dx.tumour") == expected


@pytest.mark.parametrize(
    ("kind", "organ", "expected"),
    [
        ("malignant", "liver", "tumour-liver"),
        ("malignant", "prostate", "tumour-male-genital"),
        ("malignant", "spine", "tumour-bone-soft-tissue"),
        ("malignant", "bowel", None),
        ("malignant", "", None),
        ("metastasis", "liver", "tumour-liver-metastasis"),
        ("metastasis", "spine", "tumour-bone-metastasis"),
        ("metastasis", "brain", "tumour-other-metastasis"),
        ("metastasis", "", None),
        ("uncertain", "liver", "tumour-in-situ"),
        ("benign", "bone", "tumour-benign"),
        ("other", "liver", None),
    ],
)
def test_tumour_group_where_the_evidence_is_no_icd_code(kind: str, organ: str, expected: str | None) -> None:
    indication = Indication("reasonCode", "snomed", "109841003", kind)
    decision = Decision("his", "Patient/pat-77", "2025-03-01", "tace", "counted", "counted", indication=indication)
    procedure = {**PROCEDURE, "reasonReference": []}
    case = replace(CASE, decision=decision, conditions=(), procedures=(procedure,), organ=organ)
    assert answers_of(prefill(FORM, case)).get("dx.tumour") == expected


def test_a_value_without_an_option_is_missing_with_the_reason() -> None:
    filled = prefill(FORM, replace(CASE, patient={**PATIENT, "gender": "Canary"}))
    assert filled.missing["case.sex"] == "the record's value has no answer option"


@pytest.mark.parametrize(
    "broken",
    [
        {"patient": {**PATIENT, "gender": {"a": 1}, "birthDate": 7, "deceasedDateTime": ["x"]}},
        {"encounters": ({**ENCOUNTER, "class": "IMP", "period": "x"},)},
        {"procedures": ({**PROCEDURE, "outcome": "x", "extension": {"url": 3}, "encounter": 5, "reasonReference": 1},)},
        {"conditions": ({"resourceType": "Condition", "code": 3, "id": 4, "stage": "x"},)},
    ],
)
def test_broken_resources_leave_items_open_and_end_nothing(broken: dict[str, Any]) -> None:
    filled = prefill(FORM, replace(CASE, **broken))
    QuestionnaireResponse.model_validate(filled.response)
    assert answers_of(filled)["proc.category"] == "tace"


def test_the_inputs_are_not_changed() -> None:
    before = copy.deepcopy((CASE.patient, CASE.procedures, CASE.encounters, CASE.conditions, FORM))
    prefill(FORM, CASE)
    assert before == (CASE.patient, CASE.procedures, CASE.encounters, CASE.conditions, FORM)


def _one_item_form(kind: str, expression: str, **more: Any) -> dict[str, Any]:
    initial = {
        "url": forms.INITIAL_EXPRESSION,
        "valueExpression": {"language": "text/fhirpath", "expression": expression},
    }
    item = {"linkId": "1", "type": kind, **more}
    item["extension"] = [*more.get("extension", ()), initial]
    return {"resourceType": "Questionnaire", "url": "urn:x", "version": "1", "item": [item]}


@pytest.mark.parametrize(
    ("kind", "expression", "reason"),
    [
        ("string", "%patient.name.family", "texts of the record stay local"),
        ("text", "%session.parameter.where(name = 'indication-resource').value", "texts of the record stay local"),
        ("date", "%patient.birthDate", "a date of the record stays local"),
        ("dateTime", "%patient.deceased", "a dateTime of the record stays local"),
        ("reference", "%procedures.subject", "is not provided"),
        ("integer", "%patient.gender", "the record's value is no integer"),
        ("boolean", "%patient.gender", "the record's value is no boolean"),
        ("choice", "%patient.gender", "no answer option"),
        ("integer", "%record.entry.count() | 99", "several values"),
        ("integer", "%user.id", "%user, which is not provided"),
        ("integer", "%patient.nonsense()", "cannot be read"),
        ("quantity", "%record.entry.resource.ofType(Observation).value", "no unit of this form"),
    ],
)
def test_another_bodys_form_gets_no_text_date_or_foreign_value(kind: str, expression: str, reason: str) -> None:
    observation = {"resourceType": "Observation", "id": "o", "valueQuantity": {"value": 3, "code": "furlong"}}
    indication = Indication("reasonReference", "urn:x", "C22", resource="Condition/cond-5")
    decision = Decision("his", "Patient/pat-77", "2025-03-01", "tace", "counted", "counted", indication=indication)
    filled = prefill(
        _one_item_form(kind, expression), replace(CASE, decision=decision, conditions=(*CASE.conditions, observation))
    )
    assert "item" not in filled.response
    assert reason in filled.missing["1"]


def test_another_bodys_form_gets_numbers_and_quantities_in_its_own_units() -> None:
    unit = {
        "url": "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption",
        "valueCoding": {"system": "http://unitsofmeasure.org", "code": "s", "display": "seconds"},
    }
    value = {"value": 612, "unit": "Canary", "system": "http://unitsofmeasure.org", "code": "s"}
    observation = {"resourceType": "Observation", "id": "o", "valueQuantity": value}
    form = _one_item_form("quantity", "%record.entry.resource.ofType(Observation).value", extension=[unit])
    filled = prefill(form, replace(CASE, conditions=(*CASE.conditions, observation)))
    (item,) = filled.response["item"]
    expected = {"value": 612, "unit": "seconds", "system": "http://unitsofmeasure.org", "code": "s"}
    assert item["answer"] == [{"valueQuantity": expected}]
    decimal = prefill(_one_item_form("decimal", "%record.entry.count()"), CASE)
    assert decimal.response["item"][0]["answer"] == [{"valueDecimal": 5}]


def test_repeating_items_take_several_answers_and_inner_items_follow_an_answer() -> None:
    options = [{"valueCoding": {"system": "urn:s", "code": code}} for code in ("a", "b")]
    form = _one_item_form("choice", "'a' | 'b'", repeats=True, answerOption=options)
    form["item"][0]["item"] = _one_item_form("integer", "1")["item"]
    form["item"][0]["item"][0]["linkId"] = "1.1"
    (item,) = prefill(form, CASE).response["item"]
    assert [answer["valueCoding"]["code"] for answer in item["answer"]] == ["a", "b"]
    assert item["answer"][0]["item"] == [{"linkId": "1.1", "answer": [{"valueInteger": 1}]}]


@pytest.mark.parametrize("kind", ["integer", "decimal"])
def test_a_number_that_may_name_somebody_stays_local(kind: str) -> None:
    for large in ("19510702", "-10000"):
        filled = prefill(_one_item_form(kind, large), CASE)
        assert "item" not in filled.response
        assert "may name somebody" in filled.missing["1"]
    assert prefill(_one_item_form(kind, "9999"), CASE).missing == {}


def test_the_category_system_is_our_own() -> None:
    coded = {
        item["linkId"]: item["answer"][0]["valueCoding"]["system"]
        for item in forms.items(prefill(FORM, CASE).response)
        if "valueCoding" in item.get("answer", [{}])[0]
    }
    assert coded["proc.category"] == CATEGORY_CODES
    assert coded["proc.setting"] == CASE_REVIEW_ANSWERS


@pytest.mark.parametrize(
    ("kind", "expression"),
    [
        ("integer", "%patient.birthDate.toString().substring(0, 4).toInteger()"),
        ("decimal", "(today() - %patient.birthDate).value"),
        ("integer", "%born.toString().substring(0, 4).toInteger()"),
    ],
)
def test_a_year_of_birth_or_an_exact_age_is_no_number_of_any_form(kind: str, expression: str) -> None:
    form = _one_item_form(kind, expression)
    born = {"name": "born", "language": "text/fhirpath", "expression": "%patient.birthDate"}
    form["extension"] = [{"url": forms.VARIABLE, "valueExpression": born}]
    filled = prefill(form, CASE)
    assert "item" not in filled.response
    assert "1" in filled.missing
