"""Servers that want a patient in every search: whose Procedures are read, and which way is chosen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from io_fhir_adapter.config import FhirSourceConfig, PatientsConfig
from io_fhir_adapter.ledger.runs import move_cursor
from io_fhir_adapter.pull.strategy import abilities_of
from io_fhir_adapter.sandbox.faults import Faults, PageFault

Make = Callable[..., Any]
STRICT = Faults(patient_required=400)
STEPWISE = {
    "strategy": "patient", "patients": {"from": "group", "id": "g"}, "batch_size": 1, "concurrency": 1, "retries": 0,
}  # fmt: skip
GROUP: dict[str, Any] = {
    "resourceType": "Group", "id": "g", "type": "person", "actual": True,
    "member": [{"entity": {"reference": f"Patient/{name}"}} for name in "abcd"] + [{"entity": {"display": "x"}}],
}  # fmt: skip
LIST = {
    "resourceType": "List", "id": "l", "status": "current", "mode": "working",
    "entry": [{"item": {"reference": f"Patient/{name}"}} for name in "abcd"]
    + [{"item": {"reference": "Patient/gone"}, "deleted": True}],
}  # fmt: skip


def hospital(kit: Any) -> list[dict[str, Any]]:
    """The small hospital with a Group and a List; patients carry a number of the hospital."""
    made = [one for one in kit.small_hospital() if one["resourceType"] != "Patient"]
    made += [kit.person(name, identifier=[{"system": "urn:mrn", "value": f"M-{name}"}]) for name in "abcd"]
    return [*made, GROUP, LIST]


def rosters(folder: Path) -> dict[str, dict[str, Any]]:
    """Every kind of roster that names the four patients."""
    (folder / "ids.csv").write_text("# the department's list\na\nPatient/b\nc,x\nd\na\n")
    (folder / "mrn.csv").write_text("name;x,number\nA,M-a\nB,M-b\nC,M-c\nD,M-d\nE,M-unknown\n")
    return {
        "group": {"from": "group", "id": "g"},
        "list": {"from": "list", "id": "l"},
        "encounters": {"from": "encounters", "query": "status=finished"},
        "ids": {"from": "csv", "path": folder / "ids.csv"},
        "identifiers": {"from": "csv", "path": folder / "mrn.csv", "column": "number", "system": "urn:mrn"},
    }


@pytest.mark.parametrize("kind", ["group", "list", "encounters", "ids", "identifiers"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_roster_gives_the_whole_ledger(
    make_site: Make, kit: Any, tmp_path: Path, kind: str, batch_size: int
) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    site, searched = make_site(hospital(kit)), make_site(hospital(kit))
    searched.pull()
    site.app.store = site.store
    site.switch(STRICT)
    outcome = site.pull(strategy="patient", patients=rosters(folder)[kind], batch_size=batch_size)
    assert outcome.error == ""
    assert (outcome.complete, outcome.strategy) == (True, "patient")
    assert site.facts() == searched.facts()
    assert any("unknown" in note for note in outcome.notes) is (kind == "identifiers")
    again = site.pull(strategy="patient", patients=rosters(folder)[kind], batch_size=batch_size)
    assert again.error == ""
    assert again.since
    assert sum(found.new + found.changed for found in again.types.values()) == 0
    assert site.facts() == searched.facts()


def test_changes_of_the_known_and_all_of_the_new(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.switch(STRICT)
    site.store.put({**GROUP, "member": GROUP["member"][:2]})
    patients = {"from": "group", "id": "g"}
    site.pull(strategy="patient", patients=patients)
    assert len(site.ids("Procedure")) == 6
    site.store.put(GROUP)
    site.store.put(kit.procedure("p00", "a", meta={}, status="not-done"))
    outcome = site.pull(strategy="patient", patients=patients)
    assert outcome.error == ""
    assert len(site.ids("Procedure")) == 12
    assert (outcome.types["Procedure"].new, outcome.types["Procedure"].changed) == (6, 1)


def test_windows_where_the_server_does_not_say_what_changed(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.switch(Faults(patient_required=403, unsupported_parameters=("_lastUpdated",), strict_parameters=True))
    patients = {"from": "group", "id": "g", "window_days": 30}
    assert site.pull(strategy="patient", patients=patients).error == ""
    recent = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    site.store.put(kit.procedure("fresh", "a", performedDateTime=recent))
    outcome = site.pull(strategy="patient", patients=patients)
    assert outcome.error == ""
    assert "the server does not say what changed; the last 30 days were read again" in outcome.notes
    assert (outcome.types["Procedure"].read, outcome.types["Procedure"].new) == (1, 1)


def test_a_pull_that_was_cut_off_goes_on_where_it_ended(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    patients = {"from": "group", "id": "g"}
    site.switch(Faults(patient_required=400, page_faults=(PageFault("error", token="patient=Patient/c", times=None),)))
    asked = {"strategy": "patient", "patients": patients, "batch_size": 1, "concurrency": 1, "retries": 0}
    assert site.pull(**asked).error
    assert site.cursor() == ""
    before = len(site.requests())
    site.switch(STRICT)
    outcome = site.pull(**asked)
    assert outcome.error == ""
    assert "a pull that was cut off went on where it ended" in outcome.notes
    assert len(site.ids("Procedure")) == 12
    queries = [parse_qs(one["query"]) for one in site.requests()[before:] if one["path"].endswith("/Procedure")]
    assert [query["patient"] for query in queries] == [["Patient/c"], ["Patient/d"]]
    assert site.pull(**asked).error == ""


def test_who_joins_the_roster_while_a_pull_is_cut_off_is_read_whole(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.store.put({**GROUP, "member": GROUP["member"][1:4]})
    site.switch(Faults(patient_required=400, page_faults=(PageFault("error", token="patient=Patient/d", times=None),)))
    assert site.pull(**STEPWISE).error
    site.store.put(GROUP)
    site.switch(STRICT)
    outcome = site.pull(**STEPWISE)
    assert outcome.error == ""
    assert "a pull that was cut off went on where it ended" in outcome.notes
    assert len(site.ids("Procedure")) == 12
    again = site.pull(**STEPWISE)
    assert again.since
    assert sum(found.new + found.changed for found in again.types.values()) == 0


def test_who_left_the_roster_before_being_read_and_comes_back_is_read(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    for members, fault in (
        ("acd", PageFault("error", token="patient=Patient/c", times=None)),
        ("ad", PageFault("error", types=("Condition",), times=None)),  # all Procedures of the two were read by then
    ):
        site.store.put({**GROUP, "member": [{"entity": {"reference": f"Patient/{name}"}} for name in members]})
        site.switch(Faults(patient_required=400, page_faults=(fault,)))
        assert site.pull(**STEPWISE).error
    site.store.put(GROUP)
    site.switch(STRICT)
    assert site.pull(**STEPWISE).error == ""
    assert len(site.ids("Procedure")) == 12


def identified(*names: str) -> list[dict[str, Any]]:
    """References that name patients by the hospital's numbers."""
    return [{"identifier": {"system": "urn:mrn", "value": f"M-{name}"}} for name in names]


@pytest.mark.parametrize("reads_all", [False, True])
def test_who_was_merged_is_followed_although_the_roster_names_the_former_record(
    make_site: Make, kit: Any, tmp_path: Path, reads_all: bool
) -> None:
    site = make_site([kit.procedure("p", "old"), kit.person("old"), kit.condition("c", "old"), kit.procedure("q", "b")])
    site.switch(STRICT)
    path = tmp_path / "roster.csv"
    path.write_text("old\nb\n", encoding="utf-8")
    asked = {"strategy": "patient", "patients": {"from": "csv", "path": str(path)}}
    assert site.pull(**asked).error == ""
    link = [{"other": {"reference": "Patient/new"}, "type": "replaced-by"}]
    site.store.put(kit.person("old", meta={}, active=False, link=link))
    site.store.put(kit.person("new", meta={}))
    site.store.put(kit.procedure("p", "new", meta={}))
    site.store.put(kit.condition("c", "new", meta={}))
    site.store.put(kit.procedure("later", "new", meta={}))
    if reads_all:
        site.forget_reconciling()
    outcome = site.pull(**asked)
    assert outcome.error == ""
    assert [(row[1], row[2]) for row in site.facts() if row[0] in {"Condition", "Procedure"}] == [
        ("c", "Patient/new"), ("later", "Patient/new"), ("p", "Patient/new"), ("q", "Patient/b"),
    ]  # fmt: skip
    site.store.put(kit.procedure("last", "new", meta={}))
    assert site.pull(**asked).error == ""
    assert "last" in site.ids("Procedure")


def test_a_merge_into_what_is_no_record_is_not_followed(make_site: Make, kit: Any, tmp_path: Path) -> None:
    link = [{"other": {"identifier": {"system": "urn:mrn", "value": "M-1"}}, "type": "replaced-by"}]
    site = make_site([kit.procedure("p", "old"), kit.person("old", link=link)])
    site.switch(STRICT)
    path = tmp_path / "roster.csv"
    path.write_text("old\n", encoding="utf-8")
    for _ in range(2):
        assert site.pull(strategy="patient", patients={"from": "csv", "path": str(path)}).error == ""
    asked = [parse_qs(one["query"]).get("patient", [""])[0] for one in site.requests()]
    assert set(asked) <= {"", "Patient/old", "old"}


def test_a_date_that_is_corrected_to_before_the_first_day_is_taken(make_site: Make, kit: Any, tmp_path: Path) -> None:
    site = make_site([kit.procedure("p", performedDateTime="2024-05-01")])
    site.switch(STRICT)
    path = tmp_path / "roster.csv"
    path.write_text("a\n", encoding="utf-8")
    asked = {"strategy": "patient", "patients": {"from": "csv", "path": str(path)}, "since": "2024-01-01"}
    site.pull(**asked)
    site.store.put(kit.procedure("p", performedDateTime="2019-05-01", meta={}))
    assert site.pull(**asked).error == ""
    assert [row[4] for row in site.facts() if row[1] == "p"] == ["2019-05-01"]


def test_a_pull_that_was_cut_off_begins_anew_where_something_else_is_asked_for(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.store.put(kit.procedure("early", "a", performedDateTime="2015-01-01"))
    site.switch(Faults(patient_required=400, page_faults=(PageFault("error", token="patient=Patient/c", times=None),)))
    assert site.pull(**STEPWISE, since="2020-01-01").error
    site.switch(STRICT)
    assert site.pull(**STEPWISE, since="2010-01-01").error == ""
    assert "early" in site.ids("Procedure")


def test_what_was_set_aside_before_a_cut_stays_so(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.store.put(kit.procedure("broken", "a", performedDateTime="31.12.2024"))
    site.switch(Faults(patient_required=400, page_faults=(PageFault("error", token="patient=Patient/c", times=None),)))
    assert site.pull(**STEPWISE).error
    assert "Procedure/broken" in site.quarantine()
    site.switch(STRICT)
    assert site.pull(**STEPWISE).error == ""
    assert "Procedure/broken" in site.quarantine()


def test_windows_reach_back_to_the_last_pull(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.switch(Faults(patient_required=403, unsupported_parameters=("_lastUpdated",), strict_parameters=True))
    asked = {"strategy": "patient", "patients": {"from": "group", "id": "g", "window_days": 30}, "reconcile_days": 0}
    assert site.pull(**asked).error == ""
    with site.ledger.begin() as connection:
        long_ago = (datetime.now(UTC) - timedelta(days=100)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        move_cursor(connection, "s", "Procedure", long_ago, site.run)
    meanwhile = (datetime.now(UTC) - timedelta(days=90)).date().isoformat()
    site.store.put(kit.procedure("meanwhile", "a", performedDateTime=meanwhile))
    outcome = site.pull(**asked)
    assert "the server does not say what changed; the last 130 days were read again" in outcome.notes
    assert "meanwhile" in site.ids("Procedure")


def test_a_group_may_name_patients_by_identifiers_and_by_other_groups(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.switch(STRICT)
    within = [{"reference": "Patient/b"}, {"reference": "Group/g"}, {"reference": "Group/inner"}]
    named = [
        *identified("a", "unknown"), {"reference": "Group/inner"}, {"reference": f"{site.url}/fhir/Group/inner"},
        {"display": "x"}, {"reference": "Practitioner/1"},
    ]  # fmt: skip
    site.store.put({**GROUP, "id": "inner", "member": [{"entity": one} for one in within]})
    site.store.put({**GROUP, "member": [{"entity": one} for one in named]})
    outcome = site.pull(strategy="patient", patients={"from": "group", "id": "g"})
    assert outcome.error == ""
    assert site.ids("Procedure") == ["p00", "p01", "p04", "p05", "p08", "p09"]
    assert set(outcome.notes) >= {
        "2 patients are on the roster (from group)",
        "1 of 2 identifiers of members of the Group are unknown to the server",
        "members of the Group that name no patient by id or identifier are left out: 2",
    }
    assert len([one for one in site.requests() if one["path"].endswith("/Group/inner")]) == 1


def test_a_group_within_a_group_that_cannot_be_read_is_an_error(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.store.put({**GROUP, "member": [*GROUP["member"], {"entity": {"reference": "Group/nowhere"}}]})
    assert "HTTP 404" in site.pull(strategy="patient", patients={"from": "group", "id": "g"}).error
    assert site.ids("Procedure") == []


def test_encounters_may_name_patients_by_identifiers(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.switch(STRICT)
    for number in range(12):
        (subject,) = identified("abcd"[number % 4])
        site.store.put(kit.encounter(f"e{number}", subject=subject))
    site.store.put(kit.encounter("nobodys", subject=None))
    outcome = site.pull(strategy="patient", patients={"from": "encounters", "query": "status=finished"})
    assert outcome.error == ""
    assert len(site.ids("Procedure")) == 12
    assert "4 patients are on the roster (from encounters)" in outcome.notes
    assert "Encounters that name no patient by id or identifier are left out: 1" in outcome.notes


def test_all_records_that_carry_a_number_are_read(make_site: Make, kit: Any, tmp_path: Path) -> None:
    (tmp_path / "mrn.csv").write_text("M-a\n")
    number = [{"system": "urn:other", "value": "M-b"}, {"system": "urn:mrn", "value": "M-a"}]
    second = [kit.person("second", identifier=number), kit.procedure("of-second", "second")]
    site = make_site([*hospital(kit), *second])
    site.switch(STRICT)
    patients = {"from": "csv", "path": tmp_path / "mrn.csv", "system": "urn:mrn"}
    outcome = site.pull(strategy="patient", patients=patients)
    assert outcome.error == ""
    assert site.ids("Procedure") == ["of-second", "p00", "p04", "p08"]
    assert not any("unknown" in note for note in outcome.notes)


def test_only_what_is_late_enough(make_site: Make, kit: Any) -> None:
    resources = [
        kit.procedure("early", performedDateTime="2019"), kit.procedure("late"),
        kit.procedure("undated", performedDateTime=None), kit.person("a"), GROUP,
    ]  # fmt: skip
    site = make_site(resources)
    site.switch(STRICT)
    site.pull(strategy="patient", patients={"from": "group", "id": "g"}, since="2024-01-01")
    assert site.ids("Procedure") == ["late", "undated"]


@pytest.mark.parametrize(
    ("patients", "sentence"),
    [
        ({"from": "group", "id": "none"}, "HTTP 404"),
        ({"from": "list", "id": "g"}, "HTTP 404"),
        ({"from": "encounters", "query": "status=planned"}, "no patient is named"),
        ({"from": "csv", "path": "/nowhere/x.csv"}, "the file that names the patients cannot be read"),
    ],
)
def test_a_roster_that_names_nobody_is_an_error(
    make_site: Make, kit: Any, patients: dict[str, Any], sentence: str
) -> None:
    site = make_site(hospital(kit))
    outcome = site.pull(strategy="patient", patients=patients)
    assert sentence in outcome.error
    assert site.ids("Procedure") == []


def test_a_patient_s_deleted_procedures_go_and_those_off_the_roster_stay(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    site.switch(STRICT)
    asked = {"strategy": "patient", "patients": {"from": "group", "id": "g"}}
    site.pull(**asked)
    site.store.delete("Procedure", "p00")
    site.store.put({**GROUP, "member": GROUP["member"][:1]})
    site.forget_reconciling()
    outcome = site.pull(**asked)
    assert outcome.error == ""
    assert outcome.types["Procedure"].removed == 1
    assert site.ids("Procedure") == [f"p{number:02}" for number in range(1, 12)]


def test_auto_takes_the_first_way_that_works(make_site: Make, kit: Any) -> None:
    site = make_site(hospital(kit))
    first = site.pull(strategy="auto")
    assert (first.strategy, first.error) == ("search", "")
    assert first.notes[0] == "read by search: the server searches the Procedures of everyone"
    site = make_site(hospital(kit))
    site.switch(Faults(patient_required=403, unsupported_parameters=("date",)))
    patients = {"from": "group", "id": "g"}
    found = site.pull(strategy="auto", patients=patients, bulk={"level": "group", "group": "g"})
    assert found.strategy == "bulk"


def test_capability_statements_of_any_shape() -> None:
    assert abilities_of({"resourceType": "OperationOutcome"}) is None
    odd = {"resourceType": "CapabilityStatement", "rest": [{"resource": [7, {"type": "Group", "operation": "x"}]}, 3]}
    found = abilities_of(odd)
    assert found is not None
    assert (found.exports, found.parameters) == (frozenset(), {"Group": frozenset()})
    said = {
        "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "software": {"name": "X"},
        "rest": [{
            "operation": [{"name": "export", "definition": "http://x"}],
            "resource": [{"type": "Group", "operation": [{"name": "e", "definition": "http://h/group-export"}]}],
        }],
    }  # fmt: skip
    declared = abilities_of(said)
    assert declared is not None
    assert (declared.version, declared.software, declared.exports) == ("4.0.1", "X", frozenset({"system", "group"}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": "group"}, {"from": "csv"}, {"from": "list", "id": "l", "column": "x"},
        {"from": "group", "id": "g", "query": "x=y"}, {"from": "encounters", "path": "x.csv"},
    ],
)  # fmt: skip
def test_a_roster_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="PatientsConfig"):
        PatientsConfig.model_validate(wrong)
    with pytest.raises(ValueError, match="strategy patient needs patients"):
        FhirSourceConfig.model_validate({"name": "s", "url": "http://h.invalid/fhir", "strategy": "patient"})
