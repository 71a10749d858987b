from __future__ import annotations

import base64
import json
import random
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.errors import LeakError
from io_fhir_adapter.review.forms import load_questionnaire, public_words
from io_fhir_adapter.review.identifiers import values_of
from io_fhir_adapter.review.leaks import Leak, LeakScanner, identifiers_of, refuse_leaks, scan
from io_fhir_adapter.review.profile import load_profile

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "pat-00123",
    "identifier": [{"system": "urn:mrn", "value": "MRN-998877"}],
    "name": [{"family": "Größmann-Łukasz", "given": ["Zoë", "Adelheid"], "prefix": ["Dr."], "text": "Heidi G. L."}],
    "birthDate": "1951-07-02",
    "gender": "female",
    "telecom": [{"system": "phone", "value": "+49 (0)30 1234-567"}, {"system": "email", "value": "zoe@mail.example"}],
    "address": [{"line": ["Feldweg 7a"], "city": "Unterhausen", "postalCode": "12345", "text": "Feldweg 7a, 12345 U."}],
    "contact": [{"name": {"family": "Notfallmann"}, "address": {"city": "Oberdorf"}}],
}
PROCEDURE: dict[str, Any] = {
    "resourceType": "Procedure",
    "id": "4711",
    "status": "completed",
    "code": {
        "coding": [{"system": "urn:x", "code": "8-836.ka", "display": "Chemoembolisation"}],
        "text": "TACE bei Zoë",
    },
    "note": [{"text": "seen with her daughter"}, {"text": "ok"}],
    "performer": [{"actor": {"reference": "Practitioner/9", "display": "Prof. Eisenbart"}}],
    "contained": [{"resourceType": "Practitioner", "id": "prac-1", "name": [{"family": "Eisenbart"}]}],
}
IDENTIFIERS = identifiers_of([PATIENT, PROCEDURE])


def paths(payload: Any, identifiers: Any = IDENTIFIERS) -> list[str]:
    return [leak.path for leak in scan(json.dumps(payload).encode(), identifiers)]


@pytest.mark.parametrize(
    "expected",
    [
        "pat-00123",
        "MRN-998877",
        "Größmann-Łukasz",
        "Adelheid",
        "Adelheid Größmann-Łukasz",
        "Größmann-Łukasz, Adelheid",
        "Heidi G. L.",
        "1951-07-02",
        "19510702",
        "02.07.1951",
        "2.7.1951",
        "07/02/1951",
        "2/7/1951",
        "2. juli 1951",
        "july 2, 1951",
        "+49 (0)30 1234-567",
        "490301234567",
        "zoe@mail.example",
        "Feldweg 7a",
        "Unterhausen",
        "12345 Unterhausen",
        "Notfallmann",
        "Oberdorf",
        "Procedure/4711",
        "TACE bei Zoë",
        "seen with her daughter",
        "Prof. Eisenbart",
        "prac-1",
        "Eisenbart",
    ],
)
def test_what_identifies_is_collected(expected: str) -> None:
    assert expected in IDENTIFIERS


@pytest.mark.parametrize(
    "left_out", ["Zoë", "ok", "4711", "12345", "female", "completed", "8-836.ka", "Chemoembolisation"]
)
def test_what_is_too_short_or_no_identifier_is_left_out(left_out: str) -> None:
    assert left_out not in IDENTIFIERS


def test_published_words_are_no_identifiers() -> None:
    words = public_words(load_questionnaire())
    patient = {"resourceType": "Patient", "name": [{"family": "Liver", "given": ["Ottilie"]}]}
    assert identifiers_of([patient], words) == {"Ottilie", "Ottilie Liver", "Liver, Ottilie", "Liver Ottilie"}


def test_the_codes_that_a_profile_names_are_published() -> None:
    assert {"completed", "confirmed", "active", "female"} <= load_profile().public_words


def test_a_value_that_is_published_as_a_whole_holds_no_leak() -> None:
    published = frozenset({"stable disease"})
    assert scan(b'{"display": "Stable disease"}', ["Stable"], published) == []
    assert scan(b'{"display": "Stable disease of Jo"}', ["Stable"], published) == [Leak("display")]


def test_broken_source_resources_are_searched_as_far_as_they_go() -> None:
    broken = {
        "resourceType": "Patient",
        "id": 5,
        "name": ["Freitextname", 7],
        "address": "x",
        "contact": [3],
        "birthDate": "1951",
    }
    assert identifiers_of([broken]) == {"Freitextname"}


@pytest.mark.parametrize("identifier", sorted(IDENTIFIERS))
def test_every_identifier_is_found_as_a_value_in_any_letter_case(identifier: str) -> None:
    for written in (identifier, identifier.upper(), f"see: {identifier.lower()}."):
        assert paths({"resourceType": "Bundle", "entry": [{"a": 1}, {"resource": {"note": written}}]}) == [
            "Bundle.entry[1].resource.note"
        ]


@given(
    st.recursive(
        st.just("Größmann-Łukasz"),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=2)
            | st.dictionaries(st.text("abc", min_size=1), inner, min_size=1, max_size=2)
        ),
    )
)
def test_it_is_found_at_any_depth_escaped_or_not(payload: Any) -> None:
    for ascii_only in (True, False):
        assert scan(json.dumps(payload, ensure_ascii=ascii_only).encode(), IDENTIFIERS)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":"MR\\u004e-998877"}',
        b'{"a":"hidden MRN-998877","a":"repeated name"}',
        b'{"a":{"MRN-998877":1}}',
        b'{"a":19510702}',
        b'["x",["MRN-998877"]]',
        b'"MRN-998877"',
        f'{{"a":"{quote("Größmann-Łukasz")}"}}'.encode(),
        b'{"a":"<div>Gr&ouml;&szlig;mann-&#321;ukasz</div>"}',
        '{"a":"Gro\u0308\u00dfmann-\u0141ukasz"}'.encode(),
        b'{"a":"GR\xc3\x96SSMANN-\xc5\x81UKASZ"}',
        b'{"a":"seen  with\\nher\\u00a0daughter"}',
        b"plain text, MRN-998877, and more",
        b"\xff\xfe MRN-998877",
        b'{"a":1}\n{"b":"MR\\u004e-998877"}\n',
    ],
)
def test_spelling_and_encoding_hide_nothing(payload: bytes) -> None:
    assert scan(payload, IDENTIFIERS)


HIDDEN = {
    "base64": base64.b64encode("seen: Größmann-Łukasz".encode()).decode(),
    "base64 within a sentence": f"file {base64.urlsafe_b64encode('Größmann-Łukasz, Zoë'.encode()).decode()} attached",
    "hexadecimal": b"MRN-998877".hex(),
    "percent twice": quote(quote("Größmann-Łukasz")),
    "percent of another alphabet": quote("Gr\u00f6\u00dfmann".encode("latin-1")) + "-Lukasz",
    "entities twice": "Gr&amp;#246;&amp;#223;mann-&amp;#321;ukasz",
    "quoted-printable": "Gr=C3=B6=C3=9Fmann-=C5=81ukasz",
    "JSON within a text": json.dumps({"a": "Größmann-Łukasz"}),
    "tags within a word": "Größ<b>mann</b>-Łukasz",
    "plus for a space": "Feldweg+7a%2C+Unterhausen",
    "a space of no width": "Größ\u200bmann-Łukasz",
    "a soft hyphen": "MRN-99\u00ad8877",
    "a hyphen that does not break": "MRN\u2011998877",
    "a dash": "MRN\u2013998877",
    "no umlauts": "Groessmann-Lukasz",
    "no marks": "Grossmann-Lukasz",
    "a moment on the birth date": "1951-07-02T00:00:00+02:00",
    "a moment without hyphens": "19510702000000",
    "a birth date with a short year": "geb. 02.07.51.",
    "a birth date with spaces": "02. 07. 1951",
    "a month cut short": "2 Jul 1951",
    "a month in capitals": "02JUL1951",
    "an ordinal": "born on the 2nd July 1951",
    "a birth date without zeros": "1951-7-2",
    "a birth date within a word": "born19510702",
    "a phone number of the country": "030/1234567",
    "a phone number in groups": "(030) 123 45 67",
    "a phone number from abroad": "0049 30 1234 567",
    "a phone link": "tel:+49-30-1234567",
}


@pytest.mark.parametrize("way", HIDDEN)
def test_nor_does_any_other_way_of_writing_it(way: str) -> None:
    assert paths({"resourceType": "Basic", "note": HIDDEN[way]}) == ["Basic.note"]


@pytest.mark.parametrize(
    "text",
    [
        "1.2.07.51.3",
        "2.07.519",
        "102.07.51",
        "2025-07-02",
        "+1 202 555 0100",
        "01234567",
        "a19510702b",
        "719510702",
        "VGhlIHF1aWNrIGJyb3duIGZveA==",
    ],
)
def test_other_numbers_and_encoded_words_are_no_leaks(text: str) -> None:
    assert paths({"resourceType": "Basic", "note": text}) == []


@pytest.mark.parametrize(
    ("source", "written"),
    [("030 1234567", "+49 30 1234567"), ("0049-30-1234567", "0301234567"), ("+1 (555) 123-4567", "001 555 1234567")],
)
def test_a_phone_number_is_found_with_and_without_the_code_of_its_country(source: str, written: str) -> None:
    assert scan(json.dumps({"a": f"call {written} please"}).encode(), [source])


def test_a_short_name_that_is_only_written_out_is_an_identifier() -> None:
    assert scan(b'{"a": "seen by bo li"}', identifiers_of([{"resourceType": "Patient", "name": [{"text": "Bo Li"}]}]))


def test_the_place_is_named_and_the_value_never_is() -> None:
    assert scan(b"first\nsecond MRN-998877\n", IDENTIFIERS) == [Leak("line 2")]
    payload = {"resourceType": "Patient", "name": [{"family": "Eisenbart"}], "Eisenbart-Haus": {"x": "Eisenbart"}}
    with pytest.raises(LeakError) as caught:
        refuse_leaks(json.dumps(payload).encode(), IDENTIFIERS)
    assert "Patient.name[0].family" in str(caught.value)
    assert "Patient.(name).x" in str(caught.value)
    assert "Eisenbart" not in str(caught.value)
    assert "Eisenbart" not in repr(scan(b'{"resourceType":"Eisenbart","a":"Eisenbart"}', IDENTIFIERS))


def test_many_leaks_are_counted_in_the_message() -> None:
    payload = [{"a": f"{number} Eisenbart"} for number in range(9)]
    with pytest.raises(LeakError, match="and 6 more"):
        refuse_leaks(json.dumps(payload).encode(), LeakScanner(IDENTIFIERS))


def test_a_clean_payload_passes() -> None:
    refuse_leaks(
        json.dumps({"resourceType": "Procedure", "status": "completed", "id": "ab" * 32}).encode(), IDENTIFIERS
    )
    refuse_leaks(b"", IDENTIFIERS)
    refuse_leaks(b'{"a": null, "b": true}', frozenset())


@pytest.mark.parametrize(
    ("identifier", "text", "found"),
    [
        ("Kern", "Kerne", False),
        ("Kern", "Herr Kern, Kiel", True),
        ("Kern", "(kern)", True),
        ("deadbeef", "00deadbeef00", False),
        ("deadbeef", "urn/deadbeef", True),
        ("Mustermann", "XMustermannX", True),
        ("abc", "abc", False),
        ("12345678", "token912345678", False),
        ("12345678", "nr 12345678", True),
    ],
)
def test_short_and_token_like_identifiers_must_stand_alone(identifier: str, text: str, found: bool) -> None:
    assert bool(scan(json.dumps({"a": text}).encode(), [identifier])) is found


def test_overlapping_identifiers_are_all_looked_for() -> None:
    scanner = LeakScanner(["Schneidermann", "neiderma-x", "hneid-yy", "ermannsen"])
    assert scanner.hits("xx schneidermannsen")
    assert scanner.hits("aschneiderma hneid-yy")
    assert not scanner.hits("schneiderman neiderma- hneid-y ermannse")


@given(st.lists(st.text("abxyzß-", min_size=6, max_size=9), min_size=1, max_size=6), st.text("abxyzß-", max_size=40))
def test_it_agrees_with_plain_search(identifiers: list[str], text: str) -> None:
    needles = [needle.replace("ß", "ss") for needle in identifiers]
    if any(set(needle) <= set("ab-") for needle in needles):
        return
    assert LeakScanner(identifiers).hits(text) == any(needle in text.replace("ß", "ss") for needle in needles)


def test_a_name_like_an_element_is_found_as_value_only() -> None:
    payload = {"resourceType": "Bundle", "link": [{"url": "x"}], "a": "Frau Link"}
    assert paths(payload, ["Link"]) == ["Bundle.a"]
    assert scan(json.dumps(payload).encode(), ["Link"])[0].kind == "value"


def test_a_hundred_times_the_identifiers_take_hardly_longer() -> None:
    source = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    identifiers = ["".join(source.choices(letters, k=source.randint(5, 14))) + "Q" for _ in range(2000)]
    entries = [
        {"text": f"inpatient liver {source.random()}", "id": f"{source.getrandbits(256):064x}"} for _ in range(9000)
    ]
    payload = json.dumps(entries).encode()
    assert len(payload) > 1_000_000

    def taken(known: list[str]) -> float:
        started = time.process_time()
        assert scan(payload, known) == []
        return time.process_time() - started

    assert min(taken(identifiers) for _ in range(2)) < 2 * max(taken(identifiers[:20]) for _ in range(2))


RECORD: dict[str, Any] = {
    "resourceType": "DocumentReference",
    "id": "doc-5",
    "meta": {"source": "https://his.example/ward/7#x81"},
    "status": "current",
    "type": {"coding": [{"system": "urn:oid:1.2.3.4.5", "code": "WARD-7-BED-2", "display": "Local letter"}]},
    "content": [{"attachment": {"contentType": "text/plain", "url": "https://his.example/a/Eisenbart.pdf"}}],
    "context": {"related": [{"reference": "Practitioner/house-9"}, {"reference": "urn:uuid:4c3f0c2e"}]},
    "extension": [{"url": "urn:x", "valueHumanName": {"family": "Hinterhuber"}}],
}


def test_other_values_of_a_record_are_looked_for_as_a_whole() -> None:
    shapes = load_profile().shapes
    found = values_of([RECORD, PROCEDURE], frozenset(), shapes)
    assert {"https://his.example/ward/7#x81", "WARD-7-BED-2", "https://his.example/a/Eisenbart.pdf"} <= found
    assert "Local letter" in found
    assert found & {"current", "text/plain", "completed", "8-836.ka", "DocumentReference"} == set()
    scanner = LeakScanner([], frozenset(), found)
    assert scanner.scan(b'{"a": {"code": "ward-7-bed-2"}}') == [Leak("a.code")]
    assert scanner.scan(b'{"a": {"code": "see WARD-7-BED-2 there"}}') == []


def test_codes_that_may_leave_and_published_values_are_no_leaks_however_they_are_written() -> None:
    record = {"code": {"coding": [{"code": "8-836.KA"}, {"code": "HLNM001"}], "text": "Stable Disease"}}
    assert values_of([record], frozenset({"stable disease"}), load_profile().shapes) == frozenset()


def test_people_that_a_record_points_to_and_names_at_any_depth_are_identifiers() -> None:
    found = identifiers_of([RECORD])
    assert {"Hinterhuber", "Practitioner/house-9", "house-9", "4c3f0c2e", "doc-5"} <= found
    place = {"serviceProvider": {"reference": "Organization/org-1234567"}}
    assert identifiers_of([place]) == frozenset()
