"""Servers that want a patient in every search: whose Procedures are read, and which way is chosen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from io_fhir_adapter.config import FhirSourceConfig, PatientsConfig
from io_fhir_adapter.pull.strategy import abilities_of
from io_fhir_adapter.sandbox.faults import Faults, PageFault

Make = Callable[..., Any]
STRICT = Faults(patient_required=400)
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
