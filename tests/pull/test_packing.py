"""Procedures made ready for the ledger at once are the same facts as those made one by one. All data is synthetic."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.facts import procedure_fact
from io_fhir_adapter.fhir.structs import Procedure, ProcedureSketch
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.pull.decode import Item
from io_fhir_adapter.pull.packing import Packer, Packing
from io_fhir_adapter.pull.pages import Pages

Json = dict[str, Any]
BERLIN = ZoneInfo("Europe/Berlin")
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
NOT_AFTER = "2026-01-01"
CODE = {"coding": [{"system": OPS, "code": "5-501.a3", "version": "2025", "display": "own words"}], "text": "Ölung"}
SITE = [{"coding": [{"system": "http://snomed.info/sct", "code": "10200004"}]}]
DOCTOR = [
    {"actor": {"reference": "Practitioner/1"}, "function": SITE[0], "onBehalfOf": {"reference": "Organization/1"}}
]

KINDS: dict[str, Json] = {
    "bare": {},
    "full": {
        "meta": {"lastUpdated": "2025-03-01T08:00:00Z", "source": "urn:ris#1"}, "status": "completed", "code": CODE,
        "encounter": {"reference": "Encounter/1"}, "performedDateTime": "2025-03-01T23:30:00Z", "bodySite": SITE,
        "reasonCode": SITE, "reasonReference": [{"reference": "Condition/1"}], "performer": DOCTOR,
        "location": {"reference": "Location/1"}, "category": SITE[0], "partOf": [{"reference": "Procedure/0"}],
        "identifier": [{"system": "urn:ids", "value": "1"}],
    },
    "several": {
        "reasonReference": [{"reference": "Condition/1"}, {"display": "nowhere"}, {"reference": "Condition/2"}],
        "category": [SITE[0], CODE], "location": [{"reference": "Location/1"}, {"identifier": {"value": "7"}}],
        "partOf": [{"reference": "#inside"}],
    },
    "period": {"performedPeriod": {"start": "2025-03-30T01:30:00+01:00", "end": "2025-03-30T03:10:00+02:00"}},
    "R5": {"occurrenceDateTime": "2025-03",
           "reason": [{"concept": SITE[0]}, {"reference": {"reference": "Condition/3"}}]},
    "STU3": {"notDone": True, "status": "aborted", "context": {"reference": "Encounter/2"},
             "performer": [{"actor": {"identifier": {"value": "9"}}, "role": SITE[0]}]},
    "contained": {
        "reasonReference": [{"reference": "#c"}],
        "contained": [{"resourceType": "Condition", "id": "c", "code": CODE}, {"resourceType": "Device"}],
    },
    "nulls": {"code": None, "bodySite": None, "performer": None, "contained": None, "reason": None, "category": None},
    "empty lists": {"bodySite": [], "performer": [], "reasonReference": [], "partOf": [], "contained": []},
    "logical subject": {"subject": {"identifier": {"system": "urn:mrn", "value": "1"}}},
    "absolute references": {"subject": {"reference": "https://x.example/fhir/Patient/1/_history/2"},
                            "encounter": {"reference": "urn:uuid:1"}},
    "text alone": {"code": {"text": "Radiofrequency ablation of the liver"}},
    "source of a request": {"meta": {"source": "#abc"}, "identifier": [{"value": "1"}, {"system": "urn:ids"}]},
}  # fmt: skip
BROKEN: dict[str, Json] = {
    "no subject": {"subject": None},
    "no date": {"performedDateTime": "2025-13-01"},
    "the future": {"performedDateTime": "2031-01-01"},
    "no dateTime": {"performedDateTime": "2025-03-01T25:00:00Z"},
}
ILL_TYPED: dict[str, Json] = {
    "code": {"code": "5-501.a3"},
    "coding": {"code": {"coding": [{"code": 5}]}},
    "performer": {"performer": {"actor": {"reference": "Practitioner/1"}}},
    "location": {"location": ["here"]},
    "bodySite": {"bodySite": SITE[0]},
    "contained": {"contained": {"resourceType": "Condition"}},
    "identifier": {"identifier": "1"},
}


def raw(elements: Json, name: str = "1") -> bytes:
    return json.dumps(
        {"resourceType": "Procedure", "id": name, "subject": {"reference": "Patient/p"}} | elements
    ).encode()


def packer(scope: str = "") -> Packer:
    def reads(fact: ProcedureFact) -> tuple[bool, bool]:
        return any(code.code == "5-501.a3" for code in fact.codes) or bool(fact.text), bool(fact.codes)

    return Packer("his", BERLIN, NOT_AFTER, scope, reads)


def pack(maker: Packer, *resources: bytes) -> Packing | None:
    return maker.pack([msgspec.json.decode(one, type=ProcedureSketch) for one in resources])


def whole(resource: bytes) -> Procedure:
    return msgspec.json.decode(resource, type=Procedure)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_procedure_is_the_fact_that_is_made_of_it_otherwise(kind: str) -> None:
    resource, maker = raw(KINDS[kind]), packer()
    expected = procedure_fact(whole(resource), "his", BERLIN, not_after=NOT_AFTER)
    for _ in range(2):  # worked out, and then remembered
        packing = pack(maker, resource)
        assert packing is not None
        if packing.packed:
            made = packing.packed[0]
            assert made.data == msgspec.msgpack.encode(expected)
            assert (made.id, made.patient, made.status, made.day, made.updated) == (
                expected.id, expected.patient, expected.status, expected.day, expected.updated,
            )  # fmt: skip
        else:
            assert list(packing.others) == [whole(resource)]


def test_what_is_usual_is_packed_and_what_is_rare_is_not() -> None:
    rare = {kind for kind in KINDS if not (pack(packer(), raw(KINDS[kind])) or Packing((), ())).packed}
    assert rare == {"R5", "contained", "empty lists"}


def test_what_the_tables_say_goes_with_it() -> None:
    packing = pack(packer(), raw(KINDS["full"]), raw(KINDS["bare"], "2"))
    assert packing is not None
    assert [(one.mapped, one.known_system) for one in packing.packed] == [(True, True), (False, False)]


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_used_is_handed_on_whole(kind: str) -> None:
    resource = raw(BROKEN[kind])
    packing = pack(packer(), raw(KINDS["full"], "2"), resource)
    assert packing is not None
    assert [one.id for one in packing.packed] == ["2"]
    assert list(packing.others) == [whole(resource)]
    with pytest.raises(ResourceError):
        procedure_fact(packing.others[0], "his", BERLIN, not_after=NOT_AFTER)


@pytest.mark.parametrize("kind", ILL_TYPED)
def test_one_of_another_form_has_all_looked_at_one_by_one(kind: str) -> None:
    resource = raw(ILL_TYPED[kind])
    with pytest.raises(msgspec.ValidationError):
        whole(resource)
    try:
        packing = pack(packer(), raw(KINDS["full"], "2"), resource)
    except msgspec.ValidationError:
        packing = None
    assert packing is None


def test_none_is_packed_where_an_id_is_missing_or_comes_twice() -> None:
    assert pack(packer(), raw({"id": None})) is None
    assert pack(packer(), raw({}), raw(KINDS["full"])) is None


def test_references_carry_the_source_where_people_are_told_apart() -> None:
    packing = pack(packer("his"), raw({}))
    assert packing is not None
    fact = msgspec.msgpack.decode(packing.packed[0].data, type=ProcedureFact)
    assert packing.packed[0].patient == fact.patient == "Patient/p@his"


def test_pages_are_written_together_unless_an_earlier_version_would_come_last() -> None:
    good = pack(packer(), raw(KINDS["full"]))
    assert good is not None
    rare, broken = whole(raw(KINDS["contained"])), (Item("", "Procedure", None, "", "broken"), "1")
    assert Pages().takes(good.packed, [rare], [broken])
    pages = Pages()
    assert pages.takes([], [rare], [])
    assert not pages.takes(good.packed, [], [])
    pages = Pages()
    assert pages.takes([], [], [broken])
    assert not pages.takes(good.packed, [], [])
    pages = Pages()
    assert pages.takes([], [], [broken])
    assert not pages.takes([], [rare], [])
    assert pages.takes([], [], [broken])
