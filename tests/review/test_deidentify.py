from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.canonical_urls import AGE_BAND, CATEGORY_CODES, DAY_OFFSET, END_DAY_OFFSET, PATIENT_TOKEN, QUARTER
from io_fhir_adapter.errors import MappingError, ReviewError
from io_fhir_adapter.review.deidentify import DeidContext, deidentify
from io_fhir_adapter.review.profile import load_profile
from io_fhir_adapter.shipped import shipped_path

PROFILE = load_profile()
TOKEN = "0f" * 32
CANARY = "CANARY7f3a"
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
ICD = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
SUBJECT = {"reference": f"Patient/{CANARY}", "display": CANARY}

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": CANARY,
    "meta": {"source": CANARY},
    "text": {"status": "generated", "div": f"<div>{CANARY}</div>"},
    "identifier": [{"system": "urn:mrn", "value": CANARY}],
    "name": [{"family": CANARY, "given": [CANARY]}],
    "gender": "female",
    "_gender": {"extension": [{"url": CANARY, "valueString": CANARY}]},
    "birthDate": "1951-07-02",
    "address": [{"line": [CANARY], "city": CANARY}],
    "contained": [{"resourceType": "Organization", "id": "o", "name": CANARY, "modifierExtension": [{"url": "urn:x"}]}],
    "extension": [{"url": "urn:a", "extension": [{"url": "b", "valueString": CANARY}]}],
}
PROCEDURE: dict[str, Any] = {
    "resourceType": "Procedure",
    "id": CANARY,
    "identifier": [{"value": CANARY}],
    "status": "completed",
    "code": {
        "coding": [
            {"system": OPS, "version": "2025", "code": "8-836.ka", "display": CANARY},
            {"system": "http://local.example", "code": CANARY},
            {"system": "http://snomed.info/sct", "code": CANARY},
            {"system": "http://snomed.info/sct", "version": f"http://{CANARY}", "code": "387713003"},
            {"code": "8-836.kb"},
        ],
        "text": CANARY,
    },
    "subject": SUBJECT,
    "encounter": {"reference": f"https://his.example/fhir/Encounter/{CANARY}/_history/3"},
    "performedPeriod": {"start": "2025-03-01T23:30:00Z", "end": "2025-03-03"},
    "reasonReference": [{"reference": f"Condition/{CANARY}"}, {"reference": "Condition/not-included"}],
    "performer": [{"actor": {"display": CANARY}}],
    "note": [{"text": CANARY}],
}
CONDITION: dict[str, Any] = {
    "resourceType": "Condition",
    "id": CANARY,
    "clinicalStatus": {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}],
        "text": CANARY,
    },
    "code": {"coding": [{"system": ICD, "version": "2025", "code": "C22.0", "display": CANARY}], "text": CANARY},
    "subject": SUBJECT,
}
ENCOUNTER: dict[str, Any] = {
    "resourceType": "Encounter",
    "id": CANARY,
    "status": "finished",
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP", "display": CANARY},
    "subject": SUBJECT,
    "period": {"start": "2025-02-28", "end": "2025-03-05T12:00:00+01:00"},
    "location": [{"location": {"display": CANARY}}],
}
ALL = [PATIENT, PROCEDURE, CONDITION, ENCOUNTER]


def context(**more: Any) -> DeidContext:
    included = frozenset({f"Encounter/{CANARY}", f"Condition/{CANARY}"})
    base = DeidContext(
        key=b"k" * 32,
        token=TOKEN,
        patient=f"Patient/{CANARY}",
        index_date="2025-03-02",
        category="tace",
        included=included,
        zone=ZoneInfo("Europe/Berlin"),
    )
    return replace(base, **more)


def check_valid(resource: dict[str, Any]) -> None:
    get_fhir_model_class(resource["resourceType"]).model_validate(resource)


@pytest.mark.parametrize("resource", ALL, ids=lambda resource: str(resource["resourceType"]))
def test_copies_are_valid_and_hold_nothing_personal(resource: dict[str, Any]) -> None:
    before = copy.deepcopy(resource)
    made = deidentify(resource, PROFILE, context())
    check_valid(made)
    text = json.dumps(made)
    for secret in (CANARY, "his.example", "1951", "2025-03", "2025-02", "local.example", "display", "not-included"):
        assert secret not in text
    assert resource == before


def test_a_patient_leaves_as_token_sex_and_age_band() -> None:
    assert deidentify(PATIENT, PROFILE, context()) == {
        "resourceType": "Patient",
        "id": TOKEN,
        "identifier": [{"system": PATIENT_TOKEN, "value": TOKEN}],
        "gender": "female",
        "extension": [{"url": AGE_BAND, "valueCode": "70-79"}],
    }


def test_a_procedure_leaves_as_codes_quarter_and_offsets() -> None:
    place = context()
    made = deidentify(PROCEDURE, PROFILE, place)
    assert made == {
        "resourceType": "Procedure",
        "id": place.resource_token(f"Procedure/{CANARY}"),
        "status": "completed",
        "category": {"coding": [{"system": CATEGORY_CODES, "code": "tace"}]},
        "code": {
            "coding": [
                {"system": OPS, "version": "2025", "code": "8-836.ka"},
                {"system": "http://snomed.info/sct", "code": "387713003"},
            ]
        },
        "subject": {"reference": place.url(f"Patient/{CANARY}")},
        "encounter": {"reference": place.url(f"Encounter/{CANARY}")},
        "reasonReference": [{"reference": place.url(f"Condition/{CANARY}")}],
        "extension": [
            {"url": QUARTER, "valueCode": "2025-Q1"},
            {"url": DAY_OFFSET, "valueInteger": 0},
            {"url": END_DAY_OFFSET, "valueInteger": 1},
        ],
    }


def test_a_condition_leaves_as_its_group_and_an_encounter_as_class_and_offsets() -> None:
    condition = deidentify(CONDITION, PROFILE, context())
    assert condition["code"] == {"coding": [{"system": ICD, "version": "2025", "code": "C22"}]}
    assert condition["clinicalStatus"]["coding"][0]["code"] == "active"
    encounter = deidentify(ENCOUNTER, PROFILE, context())
    assert encounter["class"]["code"] == "IMP"
    assert [part["valueInteger"] for part in encounter["extension"]] == [-2, 3]


def test_references_and_ids_are_tokens_that_hang_together_and_need_the_key() -> None:
    place = context()
    procedure, encounter = (deidentify(resource, PROFILE, place) for resource in (PROCEDURE, ENCOUNTER))
    assert procedure["encounter"]["reference"] == place.url(f"Encounter/{CANARY}")
    assert encounter["id"] == place.resource_token(f"Encounter/{CANARY}")
    assert procedure["subject"] == encounter["subject"]
    assert procedure["subject"]["reference"].startswith("urn:uuid:")
    other = context(key=b"q" * 32)
    assert other.resource_token(f"Encounter/{CANARY}") != encounter["id"]


def test_references_as_in_transaction_bundles_are_understood() -> None:
    identity = "4c3f0c2e-6a4b-5d6e-8f00-112233445566"
    place = context(patient=f"Patient/{identity}", included=frozenset({f"Encounter/{identity}"}))
    urn = {"reference": f"urn:uuid:{identity}"}
    made = deidentify({**PROCEDURE, "subject": urn, "encounter": urn}, PROFILE, place)
    assert made["subject"] == {"reference": place.url(f"Patient/{identity}")}
    assert made["encounter"] == {"reference": place.url(f"Encounter/{identity}")}
    check_valid(made)


def test_extensions_and_contained_resources_are_counted_as_dropped() -> None:
    place = context()
    deidentify(PATIENT, PROFILE, place)
    assert dict(place.dropped) == {"Patient.extension": 3, "Patient.contained": 1, "Patient.text": 1}
    assert CANARY not in str(place.dropped)


@pytest.mark.parametrize(
    "change",
    [
        {"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]},
        {"performer": [{"modifierExtension": [{"url": "urn:x"}], "actor": {"display": CANARY}}]},
        {"status": "entered-in-error"},
        {"subject": {"reference": "Patient/another"}},
        {"subject": None},
        {"subject": "Patient/1"},
        {"id": None},
        {"resourceType": CANARY},
        {"resourceType": "Observation"},
        {"resourceType": ["Procedure"]},
    ],
    ids=str,
)
def test_what_must_not_leave_is_refused_without_saying_its_values(change: dict[str, Any]) -> None:
    with pytest.raises(ReviewError) as caught:
        deidentify({**PROCEDURE, **change}, PROFILE, context())
    assert CANARY not in str(caught.value)
    assert "another" not in str(caught.value).replace("another patient", "")


def test_another_patient_and_an_erroneous_condition_are_refused() -> None:
    with pytest.raises(ReviewError, match="another patient"):
        deidentify({**PATIENT, "id": "2"}, PROFILE, context())
    status = {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "entered-in-error"}]
    }
    with pytest.raises(ReviewError, match="verificationStatus"):
        deidentify({**CONDITION, "verificationStatus": status}, PROFILE, context())


@pytest.mark.parametrize(
    "broken",
    [
        {**PATIENT, "gender": CANARY, "birthDate": CANARY},
        {**PATIENT, "gender": [CANARY], "birthDate": {"x": CANARY}},
        {**PROCEDURE, "status": CANARY, "code": CANARY, "performedPeriod": CANARY, "reasonReference": CANARY},
        {**PROCEDURE, "status": None, "code": {"coding": CANARY}, "performedPeriod": [CANARY], "encounter": [1]},
        {**PROCEDURE, "code": {"coding": [CANARY, None, {"system": OPS}, {"system": [OPS], "code": {"x": 1}}]}},
        {**CONDITION, "code": [CANARY], "clinicalStatus": {"coding": [{"code": CANARY}]}},
        {**ENCOUNTER, "class": CANARY, "status": CANARY, "period": {"start": CANARY, "end": 7}},
        {"resourceType": "Encounter", "id": "x", "subject": SUBJECT},
    ],
    ids=lambda broken: str(broken["resourceType"]),
)
def test_broken_elements_stay_behind_and_what_leaves_is_valid(broken: dict[str, Any]) -> None:
    made = deidentify(broken, PROFILE, context())
    check_valid(made)
    assert CANARY not in json.dumps(made)


plain = st.sampled_from([CANARY, f"x {CANARY}", f"https://h/{CANARY}", f"Patient/{CANARY}"])
NAMES = """
extension _status _birthDate text contained note display valueString coding code system version div url
"""
names = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=9) | st.sampled_from(NAMES.split())
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
named = sorted(
    {element for rules in PROFILE.resources.values() for element in rules} | {"performedDateTime", "language"}
)


def _places(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _places(value)
    elif isinstance(node, list):
        for value in node:
            yield from _places(value)


@given(st.sampled_from(ALL), st.data())
@settings(max_examples=150, deadline=None)
def test_no_canary_put_anywhere_ever_leaves(original: dict[str, Any], data: st.DataObject) -> None:
    resource = copy.deepcopy(original)
    for place in data.draw(st.lists(st.sampled_from(list(_places(resource))), min_size=1, max_size=4)):
        place[data.draw(names | st.sampled_from(named))] = data.draw(anything)
    resource.update(resourceType=original["resourceType"], id=CANARY)
    if "subject" in original:
        resource["subject"] = SUBJECT
    made = deidentify(resource, PROFILE, context())
    assert CANARY not in json.dumps(made)
    check_valid(made)
    assert set(made) <= {"resourceType", "id", "extension", *PROFILE.resources[made["resourceType"]]}


def _profile(tmp_path: Path, change: dict[str, Any]) -> Path:
    data = yaml.safe_load(shipped_path("mappings", "deidentification.yaml").read_text(encoding="utf-8"))
    data["resources"]["Patient"]["gender"] = change
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "rule",
    [
        {"how": "send"},
        {"how": "keep"},
        {"how": "keep", "values": ["male"], "vlaues": []},
        {"how": "fixed"},
        {"how": "code-list", "type": "Coding"},
        {"how": "code-list", "type": "Coding", "systems": ["unknown"]},
        {"how": "age-band", "type": "CodeableConcept"},
        {"how": []},
    ],
    ids=str,
)
def test_a_profile_with_a_rule_that_cannot_be_meant_is_refused(tmp_path: Path, rule: dict[str, Any]) -> None:
    with pytest.raises(MappingError, match=r"profile\.yaml"):
        load_profile(_profile(tmp_path, rule))


def test_a_profile_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingError):
        load_profile(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(MappingError):
        load_profile(tmp_path / "bad.yaml")


def test_a_narrower_profile_needs_no_code(tmp_path: Path) -> None:
    made = deidentify(PATIENT, load_profile(_profile(tmp_path, {"how": "drop"})), context())
    assert "gender" not in made


@pytest.mark.parametrize(
    ("system", "code", "leaves"),
    [
        ("https://smt.esante.gouv.fr/terminologie-ccam", "HLNM001", True),
        ("https://smt.esante.gouv.fr/terminologie-ccam", "HLNM001 Dupont", False),
        ("https://fhir.hl7.org.uk/CodeSystem/OPCS-4", "J12.4", True),
        ("https://fhir.hl7.org.uk/CodeSystem/OPCS-4", "J124", True),
        ("https://fhir.hl7.org.uk/CodeSystem/OPCS-4", "Jones", False),
        ("urn:oid:2.16.756.5.30.1.126.3.1", "Z50.27.31", True),
        ("urn:oid:2.16.756.5.30.1.126.3.1", "50.27.Meier", False),
        ("https://local.example/ccam", "HLNM001", False),
    ],
)
def test_codes_of_each_procedure_system_leave_in_their_shape_alone(system: str, code: str, leaves: bool) -> None:
    made = deidentify({**PROCEDURE, "code": {"coding": [{"system": system, "code": code}]}}, PROFILE, context())
    assert made.get("code") == ({"coding": [{"system": system, "code": code}]} if leaves else None)


def test_every_procedure_code_system_of_the_code_tables_has_a_shape_for_its_codes() -> None:
    folder = shipped_path("mappings", "codes")
    names = {"icd10pcs": "icd-10-pcs", "opcs4": "opcs-4"}
    for table in sorted(folder.glob("*.csv")):
        system = PROFILE.systems[names.get(table.stem, table.stem)]
        codes = [line.partition(",")[0] for line in table.read_text(encoding="utf-8").splitlines()[1:]]
        plain = [code for code in codes if code.isascii() and not set(code) & set('[]*?"')]
        hcpcs = PROFILE.systems["hcpcs"] if table.stem == "cpt" else system
        assert [code for code in plain if not (system.admits(code) or hcpcs.admits(code))] == [], table.stem


@pytest.mark.parametrize("k", [0, -1])
def test_a_risk_rule_that_cannot_be_meant_is_refused(tmp_path: Path, k: int) -> None:
    data = yaml.safe_load(shipped_path("mappings", "deidentification.yaml").read_text(encoding="utf-8"))
    data["risk"]["k"] = k
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(MappingError, match="risk"):
        load_profile(path)
