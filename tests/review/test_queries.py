"""What a form wants searched for its cases: read from the Questionnaire, merged for the source, looked at again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from io_fhir_adapter.canonical_urls import DAY_OFFSET, END_DAY_OFFSET, HOUR_OFFSET
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.queries import as_found, last_contact_in, last_moment, lookups_for, record_queries

ZONE = ZoneInfo("Europe/Berlin")
INDEX = "2025-03-31"
DAY = "%session.parameter.where(name = 'index-date').value"
LOINC = "http://loinc.org"


def form(*searches: str) -> dict[str, Any]:
    """A form of searches alone, named ``a``, ``b``, ..."""
    language = "application/x-fhir-query"
    return {
        "extension": [
            {"url": forms.VARIABLE, "valueExpression": {"name": name, "language": language, "expression": text}}
            for name, text in zip("abcdefg", searches, strict=False)
        ]
    }


def observation(name: str, day: str, code: str = "1-1", system: str = LOINC, **more: Any) -> dict[str, Any]:
    coding = [{"system": system, "code": code}]
    return {"resourceType": "Observation", "id": name, "code": {"coding": coding}, "effectiveDateTime": day, **more}


def ids(found: dict[str, tuple[dict[str, Any], ...]], name: str = "a") -> list[str]:
    return [resource["id"] for resource in found[name]]


def offsets(resource: dict[str, Any]) -> dict[str, int]:
    return {one["url"]: one["valueInteger"] for one in resource["extension"]}


def test_windows_of_days_months_and_without_an_end() -> None:
    searches = (
        f"Observation?patient={{{{%patient.id}}}}&date=ge{{{{{DAY} - 90 days}}}}&date=le{{{{{DAY} + 1 day}}}}",
        f"ImagingStudy?patient={{{{%patient.id}}}}&started=ge{{{{{DAY} - 1 month}}}}",
        "AllergyIntolerance?patient={{%patient.id}}",
    )
    first, second, third = lookups_for(record_queries(form(*searches)), ["Patient/2", "Patient/1"], INDEX)
    assert (first.first, first.last, first.date_parameter) == ("2024-12-31", "2025-04-01", "date")
    assert first.patients == ("Patient/1", "Patient/2")
    assert (second.first, second.last, second.date_parameter) == ("2025-02-28", "", "started")
    assert third.narrowing == ()


def test_searches_of_a_type_are_one_question_to_the_source() -> None:
    start = "Observation?patient={{%patient.id}}"
    one = f"{start}&code={LOINC}|1-1&date=ge{{{{{DAY} - 30 days}}}}&date=le{{{{{DAY}}}}}"
    two = f"{start}&code=2-2,{LOINC}|3-3&date=ge{{{{{DAY}}}}}&date=le{{{{{DAY} + 9 days}}}}"
    (lookup,) = lookups_for(record_queries(form(one, two)), ["Patient/1"], INDEX)
    assert lookup.narrowing == (
        ("code", f"2-2,{LOINC}|1-1,{LOINC}|3-3"),
        ("date", "ge2025-03-01"),
        ("date", "le2025-04-09"),
    )
    anything = f"{start}&category=x&date=le{{{{{DAY}}}}}"
    (wide,) = lookups_for(record_queries(form(one, two, anything)), ["Patient/1"], INDEX)
    assert wide.narrowing == (("date", "le2025-04-09"),)


def test_a_patient_known_by_an_identifier_alone_is_not_searched_for() -> None:
    (lookup,) = lookups_for(record_queries(form("Consent?patient={{%patient.id}}")), ["Patient?identifier=a|b"], INDEX)
    assert lookup.patients == ()


@pytest.mark.parametrize(
    "search",
    [
        "Observation",
        "Observation?code=x",
        "?patient={{%patient.id}}",
        "Observation?patient=4711",
        "Observation?patient={{%patient.id}}&patient={{%patient.id}}",
        "Observation?patient={{%patient.id}}&_include=*",
        "Observation?patient={{%patient.id}}&date=2025",
        "Observation?patient={{%patient.id}}&date=gt{{%x}}",
        "Observation?patient={{%patient.id}}&code={{%x}}",
        "Observation?patient={{%patient.id}}&date=ge{{iif(}}",
        "Observation/$everything?patient={{%patient.id}}",
    ],
)
def test_a_search_that_could_read_more_than_its_case_is_refused(search: str) -> None:
    with pytest.raises(MappingError, match=r"form\.json, variable a"):
        record_queries(form(search), "form.json")


def test_what_is_found_is_within_the_window_fits_the_codes_and_is_in_order() -> None:
    window = f"date=ge{{{{{DAY} - 2 days}}}}&date=le{{{{{DAY}}}}}"
    search = f"Observation?patient={{{{%patient.id}}}}&code={LOINC}|1-1,2-2&{window}"
    given = [
        observation("late", "2025-03-31T23:30:00Z"),  # the next day in the facility's zone
        observation("then", "2025-03-31T21:00:00Z"),
        observation("first", "2025-03-29", code="2-2", system="urn:any"),
        observation("early", "2025-03-28"),
        observation("other code", "2025-03-30", code="9-9"),
        observation("other system", "2025-03-30", system="urn:other"),
        observation("wrong", "2025-03-30", status="entered-in-error"),
        observation("month", "2025-03"),
        observation("no date", "tomorrow"),
        {"resourceType": "Consent", "id": "other type", "dateTime": "2025-03-30"},
    ]
    found = as_found(record_queries(form(search)), given, INDEX, ZONE)
    assert ids(found) == ["first", "then"]


def test_a_period_is_found_where_it_overlaps_and_says_both_ends() -> None:
    search = f"Encounter?patient={{{{%patient.id}}}}&class=IMP,EMER&date=ge{{{{{DAY}}}}}"
    stay = {
        "resourceType": "Encounter",
        "id": "e",
        "class": {"code": "IMP"},
        "period": {"start": "2025-03-30T08:00:00+02:00", "end": "2025-04-02T08:00:00+02:00"},
        "extension": [{"url": DAY_OFFSET, "valueInteger": 99}, {"url": "urn:theirs", "valueInteger": 1}, "broken"],
    }
    (found,) = as_found(record_queries(form(search)), [stay], INDEX, ZONE)["a"]
    assert offsets(found) == {"urn:theirs": 1, DAY_OFFSET: -1, END_DAY_OFFSET: 2}
    assert as_found(record_queries(form(search)), [{**stay, "class": {"code": "AMB"}}], INDEX, ZONE) == {"a": ()}


def test_hours_count_from_the_end_of_the_session() -> None:
    procedures: list[dict[str, Any]] = [
        {"performedDateTime": "2025-03-31"},
        {"performedDateTime": "2025-03-31T09:00:00+02:00"},
        {"performedPeriod": {"start": "2025-03-31T10:00:00+02:00", "end": "2025-03-31T11:30:00+02:00"}},
        {"performedPeriod": {"start": "broken"}},
    ]
    ended = last_moment(procedures)
    assert ended == datetime(2025, 3, 31, 9, 30, tzinfo=UTC)
    assert last_moment(procedures[:1]) is None
    report = {"resourceType": "DiagnosticReport", "id": "r", "issued": "2025-03-31T14:29:00Z"}
    search = "DiagnosticReport?patient={{%patient.id}}"
    (found,) = as_found(record_queries(form(search)), [report], INDEX, ZONE, ended)["a"]
    assert offsets(found)[HOUR_OFFSET] == 4
    (untold,) = as_found(record_queries(form(search)), [report], INDEX, ZONE)["a"]
    assert HOUR_OFFSET not in offsets(untold)


def test_who_was_examined_later_was_alive_and_a_letter_proves_nothing() -> None:
    found: dict[str, tuple[dict[str, Any], ...]] = {
        "a": ({"resourceType": "Encounter", "period": {"start": "2025-05-01"}},),
        "b": ({"resourceType": "DocumentReference", "date": "2025-09-01"},),
    }
    assert last_contact_in(found, ZONE) == "2025-05-01"
    assert last_contact_in({"b": found["b"]}, ZONE) == ""


def test_the_shipped_form_asks_each_type_once_for_the_case_alone() -> None:
    lookups = lookups_for(record_queries(forms.load_questionnaire()), ["Patient/1"], INDEX)
    types = [lookup.resource_type for lookup in lookups]
    assert len(types) == len(set(types))
    assert {
        "Encounter", "Observation", "DiagnosticReport", "ImagingStudy", "MedicationAdministration", "Consent",
        "AdverseEvent", "DocumentReference", "Procedure",
    } <= set(types)  # fmt: skip
    assert all(lookup.patients == ("Patient/1",) for lookup in lookups)
    assert all(lookup.first and lookup.last for lookup in lookups if lookup.resource_type != "AllergyIntolerance")
