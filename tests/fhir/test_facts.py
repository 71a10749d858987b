"""Facts out of STU3, R4, R4B and R5 resources; all data is synthetic."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.facts import condition_fact, encounter_fact, patient_fact, procedure_fact
from io_fhir_adapter.fhir.structs import Condition, Encounter, Patient, Procedure
from io_fhir_adapter.model import Code, ConditionFact, EncounterFact, Mention, PatientFact, ProcedureFact

BERLIN = ZoneInfo("Europe/Berlin")
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
ICD = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
MINIMAL: dict[str, Any] = {"resourceType": "Procedure", "id": "1", "subject": {"reference": "Patient/p"}}


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def procedure(fallback_id: str = "", **elements: Any) -> ProcedureFact:
    data = json.dumps({**MINIMAL, **elements})
    return procedure_fact(msgspec.json.decode(data, type=Procedure), "his", BERLIN, fallback_id)


def condition(**elements: Any) -> ConditionFact:
    base = {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}}
    return condition_fact(msgspec.json.decode(json.dumps({**base, **elements}), type=Condition), "his", BERLIN)


def encounter(**elements: Any) -> EncounterFact:
    base = {"resourceType": "Encounter", "id": "e", "subject": {"reference": "Patient/p"}}
    return encounter_fact(msgspec.json.decode(json.dumps({**base, **elements}), type=Encounter), "his", BERLIN)


def patient(**elements: Any) -> PatientFact:
    base = {"resourceType": "Patient", "id": "p"}
    return patient_fact(msgspec.json.decode(json.dumps({**base, **elements}), type=Patient), "his", BERLIN)


def test_r4() -> None:
    fact = procedure(
        meta={"lastUpdated": "2025-03-02T01:00:00Z", "source": "urn:ris#42"},
        status="completed",
        code={
            "coding": [{"system": OPS, "version": "2025", "code": "5-501.a3", "display": "own words"}],
            "text": "MWA",
        },
        encounter={"reference": "Encounter/e"},
        performedDateTime="2025-03-01T23:30:00Z",
        reasonCode=[concept(ICD, "C22.0")],
        reasonReference=[{"reference": "Condition/c"}],
        bodySite=[concept("http://snomed.info/sct", "10200004")],
        partOf=[{"reference": "Procedure/0"}],
        performer=[{"actor": {"reference": "Practitioner/d"}}],
    )
    assert fact == ProcedureFact(
        source="his",
        id="1",
        patient="Patient/p",
        status="completed",
        day="2025-03-02",
        encounter="Encounter/e",
        codes=(Code(OPS, "5-501.a3", "2025", "own words"),),
        text="MWA",
        reasons=(Code(ICD, "C22.0"),),
        reason_refs=("Condition/c",),
        body_sites=(Code("http://snomed.info/sct", "10200004"),),
        part_of=("Procedure/0",),
        origin="urn:ris",
        operator="Practitioner/d",
        time="00:30",
        updated="2025-03-02T01:00:00Z",
        mentions=(Mention("performer.actor", "Practitioner/d"),),
    )


def test_r5_says_occurrence_and_reason() -> None:
    fact = procedure(
        status="completed",
        occurrencePeriod={"start": "2025-03-01T22:00:00+01:00", "end": "2025-03-02T01:00:00+01:00"},
        reason=[{"concept": concept(ICD, "C22.0")}, {"reference": {"reference": "Condition/c"}}],
    )
    assert (fact.day, fact.end_day) == ("2025-03-01", "2025-03-02")
    assert fact.reasons == (Code(ICD, "C22.0"),)
    assert fact.reason_refs == ("Condition/c",)
    assert procedure(occurrenceDateTime="2025-03").day == "2025-03"


def test_stu3_says_context_and_not_done() -> None:
    fact = procedure(status="completed", notDone=True, context={"reference": "Encounter/e"}, performedDateTime="2017")
    assert (fact.status, fact.encounter, fact.day) == ("not-done", "Encounter/e", "2017")


@pytest.mark.parametrize(
    ("written", "status"),
    [("aborted", "stopped"), ("suspended", "on-hold"), ("completed", "completed"), (None, "unknown")],
)
def test_statuses_in_r4_terms(written: str | None, status: str) -> None:
    assert procedure(**({"status": written} if written else {})).status == status


def test_a_date_that_is_absent_with_a_reason_is_no_date() -> None:
    absent = {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
    }
    assert procedure(_performedDateTime=absent).day == ""


def test_a_period_without_start_is_dated_by_its_end() -> None:
    fact = procedure(performedPeriod={"end": "2025-03-02"})
    assert (fact.day, fact.end_day) == ("2025-03-02", "2025-03-02")


def test_the_departmental_system_is_the_source_or_else_the_identifier() -> None:
    assert procedure(identifier=[{"value": "1"}, {"system": "urn:ris:acc", "value": "7"}]).origin == "urn:ris:acc"
    assert procedure().origin == ""
    only_request: dict[str, Any] = {
        "meta": {"source": "#8s878U3PTObBV03b"},
        "identifier": [{"system": "urn:ris:acc", "value": "7"}],
    }
    assert procedure(**only_request).origin == "urn:ris:acc"  # what HAPI makes of a record without a source


def test_the_bundle_entry_names_a_procedure_without_an_id() -> None:
    assert procedure("urn-7", id=None).id == "urn-7"


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"id": None}, "no id"),
        ({"subject": None}, "no subject"),
        ({"subject": {"display": "Erika Mustermann"}}, "no subject"),
        ({"performedDateTime": "gestern"}, "date"),
        ({"performedPeriod": {"start": "2025-02-30"}}, "date"),
    ],
)
def test_what_cannot_be_used_says_why_and_nothing_else(elements: dict[str, Any], words: str) -> None:
    with pytest.raises(ResourceError) as caught:
        procedure(**elements)
    assert words in caught.value.sentence
    assert "Mustermann" not in caught.value.sentence
    assert "gestern" not in caught.value.sentence


def test_a_condition_of_r4_and_of_stu3() -> None:
    r4 = condition(
        clinicalStatus=concept("x", "active"),
        verificationStatus=concept("x", "confirmed"),
        code=concept(ICD, "C22.0"),
        onsetPeriod={"start": "2024-01", "end": "2024-02"},
        recordedDate="2024-03-01",
        encounter={"reference": "Encounter/e"},
    )
    assert (r4.clinical_status, r4.verification_status, r4.onset, r4.recorded) == (
        "active",
        "confirmed",
        "2024-01",
        "2024-03-01",
    )
    stu3 = condition(
        clinicalStatus="resolved",
        verificationStatus="refuted",
        assertedDate="2017-01-01",
        context={"reference": "Encounter/e"},
        abatementDateTime="2018",
    )
    assert (stu3.clinical_status, stu3.verification_status, stu3.recorded, stu3.encounter, stu3.abated) == (
        "resolved", "refuted", "2017-01-01", "Encounter/e", "2018",
    )  # fmt: skip


def test_an_encounter_of_r4_and_of_r5() -> None:
    r4 = encounter(
        **{"class": {"code": "IMP"}},
        status="finished",
        period={"start": "2025-03-01", "end": "2025-03-03"},
        diagnosis=[{"condition": {"reference": "Condition/c"}, "use": concept("x", "CC"), "rank": 1}],
        reasonCode=[concept(ICD, "C22.0")],
    )
    assert (r4.class_code, r4.start, r4.end) == ("IMP", "2025-03-01", "2025-03-03")
    assert r4.diagnoses == (("Condition/c", "CC", 1),)
    assert r4.reasons == (Code(ICD, "C22.0"),)
    r5 = encounter(
        **{"class": [concept("x", "IMP")]},
        actualPeriod={"start": "2025-03-01"},
        diagnosis=[
            {
                "condition": [{"reference": {"reference": "Condition/c"}}, {"concept": concept(ICD, "C22.0")}],
                "use": [concept("x", "CC")],
            }
        ],
    )
    assert (r5.class_code, r5.start) == ("IMP", "2025-03-01")
    assert r5.diagnoses == (("Condition/c", "CC", 0),)
    assert r5.reasons == (Code(ICD, "C22.0"),)


def test_a_patient_without_a_name() -> None:
    fact = patient(
        name=[{"family": "Mustermann"}],
        gender="female",
        birthDate="1950-02",
        deceasedBoolean=True,
        link=[{"other": {"reference": "Patient/q"}, "type": "replaced-by"}],
        active=False,
    )
    assert fact == PatientFact("his", "p", "female", "1950-02", "unknown", active=False, replaced_by="Patient/q")
    assert patient(deceasedDateTime="2025-03-01T23:30:00Z").deceased == "2025-03-02"


@pytest.mark.parametrize("make", [condition, encounter])
def test_background_without_id_or_subject_is_refused(make: Any) -> None:
    for elements in ({"id": None}, {"subject": None}):
        with pytest.raises(ResourceError):
            make(**elements)
    with pytest.raises(ResourceError):
        patient(id=None)


def test_the_reason_of_a_stay_in_every_version() -> None:
    r4 = encounter(reasonReference=[{"reference": "Condition/c"}])
    assert r4.diagnoses == (("Condition/c", "", 0),)
    stu3 = encounter(reason=[concept(ICD, "C22.0")])
    assert stu3.reasons == (Code(ICD, "C22.0"),)
    r5 = encounter(
        reason=[{"value": [{"concept": concept(ICD, "C22.0")}, {"reference": {"reference": "Condition/c"}}]}]
    )
    assert r5.reasons == (Code(ICD, "C22.0"),)
    assert r5.diagnoses == (("Condition/c", "", 0),)


@pytest.mark.parametrize(
    ("day", "fits"), [("2025-06-30", True), ("2025-07-01", False), ("2025", True), ("2026", False)]
)
def test_a_date_in_the_future_is_a_mistake_of_the_record(day: str, fits: bool) -> None:
    record = msgspec.json.decode(json.dumps({**MINIMAL, "performedDateTime": day}), type=Procedure)
    if fits:
        assert procedure_fact(record, "his", BERLIN, not_after="2025-06-30").day == day
    else:
        with pytest.raises(ResourceError, match="future"):
            procedure_fact(record, "his", BERLIN, not_after="2025-06-30")


def mentions(fact: ProcedureFact | EncounterFact) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mention in fact.mentions:
        found.setdefault(mention.element, []).append(mention.value)
    return found


SCT = "http://snomed.info/sct"


@pytest.mark.parametrize(
    "elements",
    [
        {  # R4, R4B
            "performer": [
                {
                    "function": concept(SCT, "1"),
                    "actor": {"reference": "https://his.example/fhir/PractitionerRole/r/_history/2"},
                    "onBehalfOf": {"reference": "Organization/o"},
                }
            ],
            "location": {"reference": "Location/l"},
            "category": concept(SCT, "2"),
        },
        {  # STU3
            "performer": [
                {
                    "role": concept(SCT, "1"),
                    "actor": {"reference": "PractitionerRole/r"},
                    "onBehalfOf": {"reference": "Organization/o"},
                }
            ],
            "location": {"reference": "Location/l"},
            "category": concept(SCT, "2"),
        },
        {  # R5, and servers that repeat what R4 does not
            "performer": [
                {"function": concept(SCT, "1"), "actor": {"reference": "PractitionerRole/r"}},
                {"onBehalfOf": {"reference": "Organization/o"}},
            ],
            "location": [{"reference": "Location/l"}, {"reference": "Location/l"}],
            "category": [concept(SCT, "2")],
        },
    ],
)
def test_where_a_procedure_belongs_in_every_version(elements: dict[str, Any]) -> None:
    assert mentions(procedure(**elements)) == {
        "category": [f"{SCT}|2"],
        "location": ["Location/l"],
        "performer.actor": ["PractitionerRole/r"],
        "performer.function": [f"{SCT}|1"],
        "performer.onBehalfOf": ["Organization/o"],
    }


@pytest.mark.parametrize(
    "elements",
    [
        {  # STU3, R4, R4B
            "serviceType": concept(SCT, "3"),
            "participant": [
                {"type": [concept("urn:type", "PPRF")], "individual": {"reference": "Practitioner/d"}},
                {"type": [concept("urn:type", "ATND")], "individual": {"reference": "Practitioner/ward"}},
            ],
        },
        {  # R5
            "serviceType": [{"concept": concept(SCT, "3")}],
            "participant": [
                {"type": [concept("urn:type", "SPRF")], "actor": {"reference": "Practitioner/d"}},
                {"actor": {"reference": "Practitioner/ward"}},
            ],
        },
    ],
)
def test_where_an_encounter_belongs_in_every_version(elements: dict[str, Any]) -> None:
    fact = encounter(
        serviceProvider={"reference": "Organization/o"},
        location=[
            {"location": {"reference": "Location/l"}, "status": "completed"},
            {"location": {"reference": "Location/later"}, "status": "planned"},
        ],
        **elements,
    )
    assert mentions(fact) == {
        "location.location": ["Location/l"],
        "participant": ["Practitioner/d"],
        "serviceProvider": ["Organization/o"],
        "serviceType": [f"{SCT}|3"],
    }


def test_a_service_by_reference_and_everything_by_identifier_and_never_a_name() -> None:
    fact = encounter(
        serviceType=[{"reference": {"reference": "HealthcareService/h", "display": "Radiologie"}}],
        serviceProvider={"identifier": {"system": "urn:ik", "value": "77"}, "display": "Haus am See"},
        location=[{"location": {"reference": "Location?identifier=urn:rooms|12"}}],
    )
    assert mentions(fact) == {
        "location.location": ["urn:rooms|12"],
        "serviceProvider": ["urn:ik|77"],
        "serviceType": ["HealthcareService/h"],
    }
    both = procedure(
        performer=[
            {
                "actor": {
                    "reference": "Practitioner/d",
                    "identifier": {"system": "urn:arzt", "value": "9"},
                    "display": "Dr. Erika Muster",
                }
            }
        ],
        location={"reference": "#inside", "display": "Raum 3"},
    )
    assert mentions(both) == {"performer.actor": ["Practitioner/d", "urn:arzt|9"]}
    assert "Muster" not in repr(both)


def test_a_reason_may_lie_in_a_contained_condition() -> None:
    contained = [
        {"resourceType": "Condition", "id": "c1", "code": {"coding": [{"system": "urn:icd", "code": "C22.0"}]}},
        {"resourceType": "Condition", "id": "c2", "code": {"coding": [{"system": "urn:icd", "code": "K70"}]}},
        {"resourceType": "Medication", "id": "m", "code": 7},
    ]
    fact = procedure(contained=contained, reasonReference=[{"reference": "#c1"}, {"reference": "Condition/9"}])
    assert [code.code for code in fact.reasons] == ["C22.0"]
    assert fact.reason_refs == ("Condition/9",)
    assert procedure(contained=contained).reasons == ()


def test_a_contained_condition_in_another_encoding_is_passed_over() -> None:
    contained = '[{"resourceType": "Condition", "id": "c", "code": {"text": "Läsion"}}]'.encode("latin-1")
    elements = json.dumps({**MINIMAL, "reasonReference": [{"reference": "#c"}]}).encode()
    sent = msgspec.json.decode(elements[:-1] + b', "contained": ' + contained + b"}", type=Procedure)
    assert procedure_fact(sent, "his", BERLIN).reasons == ()


@pytest.mark.parametrize("subject", ["Patient/", "urn:uuid:", "https://h.example/fhir/Patient/", "/"])
def test_a_subject_without_an_id_is_none(subject: str) -> None:
    with pytest.raises(ResourceError, match="no subject"):
        procedure(subject={"reference": subject})


@pytest.mark.parametrize(("rank", "kept"), [(1, 1), (None, 0), (-1, 0), (10**21, 0)])
def test_a_rank_is_a_small_number(rank: int | None, kept: int) -> None:
    fact = encounter(diagnosis=[{"condition": {"reference": "Condition/1"}, "rank": rank}])
    assert fact.diagnoses == (("Condition/1", "", kept),)


def test_times_are_local_where_they_are_known() -> None:
    period = {"start": "2025-03-14T21:30:00Z", "end": "2025-03-14T23:40:00Z"}
    fact = procedure(performedPeriod=period)
    assert (fact.day, fact.time, fact.end_day, fact.end_time) == ("2025-03-14", "22:30", "2025-03-15", "00:40")
    assert (procedure(performedDateTime="2025-03-14").time, procedure().end_time) == ("", "")
