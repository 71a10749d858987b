"""Exports night after night: what changed, what was deleted, and whom an export of changes says nothing about."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.faults import Faults, PageFault

Make = Callable[..., Any]
QUICK = {"poll_min_s": 0, "poll_max_s": 0.01}


def bulk(site: Any, /, bulk_of: dict[str, Any] | None = None, **more: Any) -> Any:
    """One pull by export; with overlap, everything of a test would be new again."""
    outcome = site.pull(strategy="bulk", bulk={**QUICK, **(bulk_of or {})}, **{"overlap_minutes": 0, **more})
    assert not site.ledger_path.with_name(f"{site.ledger_path.name}-bulk-s").exists()
    return outcome


def since_of(site: Any) -> list[str]:
    """``_since`` of every kick-off so far, empty where there was none."""
    kicked = [one for one in site.requests() if one["path"].endswith("$export")]
    return [dict(parse_qsl(one["query"])).get("_since", "") for one in kicked]


def searched(make_site: Make, site: Any) -> list[Any]:
    """The facts that a search of the site's present data gives in a new ledger."""
    other = make_site([])
    other.app.store = site.store
    other.switch(Faults())
    assert other.pull().error == ""
    return other.facts()  # type: ignore[no-any-return]


def without_e0(facts: list[Any]) -> list[Any]:
    """The facts without the Encounter of Procedure p00, which outlasts it until the next full export."""
    return [row for row in facts if row[:2] != ("Encounter", "e0")]


@pytest.fixture
def settled(site: Any) -> Any:
    """A site that has been exported once and decided on."""
    assert bulk(site).error == ""
    site.decided()
    return site


def test_a_night_without_changes(settled: Any) -> None:
    facts, first = settled.facts(), settled.cursor()
    outcome = bulk(settled)
    assert (outcome.error, outcome.since, outcome.notes) == ("", first, [])
    assert settled.facts() == facts
    assert settled.stale() == set()
    assert settled.cursor() > first
    assert {kind: one.read for kind, one in outcome.types.items()} == dict.fromkeys(outcome.types, 0)
    assert outcome.requests <= 5
    asked = [datetime.fromisoformat(text) for text in since_of(settled) if text]
    assert abs(asked[0] - datetime.fromisoformat(first)) < timedelta(seconds=1)


def test_changes_only(settled: Any, kit: Any, make_site: Make) -> None:
    settled.store.put(kit.procedure("p00", status="entered-in-error", encounter={"reference": "Encounter/e0"}, meta={}))
    settled.store.put(kit.procedure("new", "b", meta={}))
    settled.store.put(kit.person("a", gender="male", meta={}))
    settled.store.put(kit.condition("c2", "c", recordedDate="2024-01-01", meta={}))
    settled.store.put(kit.encounter("e1", "b", status="cancelled", meta={}))
    settled.store.put(kit.person("d", gender="male", meta={}))  # of no concern: no mapped Procedure
    outcome = bulk(settled)
    assert outcome.error == ""
    assert {kind: (one.read, one.new, one.changed) for kind, one in outcome.types.items()} == {
        "Procedure": (2, 1, 1), "Patient": (1, 0, 1), "Condition": (1, 0, 1), "Encounter": (1, 0, 1),
    }  # fmt: skip
    assert settled.facts() == searched(make_site, settled)
    assert settled.stale() == {"Patient/a", "Patient/b", "Patient/c"}


def newcomer(site: Any, kit: Any) -> None:
    """Patient d, with Condition and Encounter of long ago, has a mapped Procedure from now on."""
    site.store.put(kit.procedure("fresh", "d", encounter={"reference": "Encounter/e3"}, meta={}))


def test_a_new_patient_whose_record_did_not_change_is_searched_for(settled: Any, kit: Any, make_site: Make) -> None:
    newcomer(settled, kit)
    outcome = bulk(settled)
    assert (outcome.error, outcome.complete) == ("", True)
    assert settled.facts() == searched(make_site, settled)
    assert settled.ids("Patient") == ["a", "b", "c", "d"]
    assert {kind: one.read for kind, one in outcome.types.items()} == {
        "Procedure": 1, "Patient": 1, "Condition": 2, "Encounter": 1,
    }  # fmt: skip
    assert bulk(settled).requests <= 5  # and never again


def test_a_new_patient_where_searches_are_refused_is_exported(settled: Any, kit: Any, make_site: Make) -> None:
    newcomer(settled, kit)
    refused = [PageFault("error", token=f"/fhir/{kind}?", status=403, times=None)
               for kind in ("Patient", "Condition", "Encounter")]  # fmt: skip
    settled.switch(Faults(page_faults=tuple(refused)))
    outcome = bulk(settled)
    assert outcome.error == ""
    assert outcome.notes == [
        "the server refuses the search for Encounter; the records of patients who are new were exported"
    ]
    assert settled.facts() == searched(make_site, settled)
    settled.switch(Faults(page_faults=tuple(refused)))
    assert bulk(settled).notes == []
    assert [bool(text) for text in since_of(settled)[:4]] == [False, True, False, True]


def test_types_that_are_not_exported_are_searched_for(make_site: Make, kit: Any) -> None:
    site = make_site()
    only = {"types": ["Procedure", "Condition"]}
    assert bulk(site, only).error == ""
    assert site.facts() == searched(make_site, site)
    site.switch(Faults())
    site.app.store = site.store
    site.store.put(kit.person("a", gender="male", meta={}))
    assert bulk(site, only).types["Patient"].changed == 1


@pytest.mark.parametrize("faults", [Faults(no_lists=True), Faults(max_list=1), Faults(ignored_parameters=("patient",))])
def test_what_is_searched_for_beside_an_export_comes_whole(make_site: Make, faults: Faults) -> None:
    site = make_site()
    site.switch(faults)
    outcome = bulk(site, {"types": ["Procedure", "Patient"]}, batch_size=20)
    assert outcome.error == ""
    assert site.facts() == searched(make_site, site)
    assert {kind: one.read for kind, one in outcome.types.items()} == {
        "Procedure": 12, "Patient": 3, "Condition": 6, "Encounter": 9,
    }  # fmt: skip


def test_what_the_server_names_as_deleted_goes(settled: Any, make_site: Make) -> None:
    settled.store.delete("Procedure", "p00")
    settled.store.delete("Condition", "c1")
    settled.store.delete("Patient", "d")  # not on record
    settled.switch(Faults(bulk=BulkFaults(per_file=3)))
    outcome = bulk(settled)
    assert outcome.error == ""
    assert {kind: one.removed for kind, one in outcome.types.items() if one.removed} == {"Procedure": 1, "Condition": 1}
    assert settled.stale() == {"Patient/a", "Patient/b"}
    assert without_e0(settled.facts()) == searched(make_site, settled)


def test_what_was_deleted_and_is_there_again_stays(settled: Any, kit: Any) -> None:
    settled.store.delete("Procedure", "p00")
    settled.store.put(kit.procedure("p00", meta={}))
    assert bulk(settled).error == ""
    assert "p00" in settled.ids("Procedure")


def test_a_full_export_finds_what_was_deleted_without_a_word(settled: Any, make_site: Make) -> None:
    settled.switch(Faults(bulk=BulkFaults(hides_deleted=True)))
    settled.store.delete("Procedure", "p00")
    settled.store.delete("Condition", "c1")
    assert bulk(settled).error == ""
    assert "p00" in settled.ids("Procedure")
    outcome = bulk(settled, {"since": False})
    assert (outcome.error, outcome.since) == ("", "")
    assert without_e0(settled.facts()) == searched(make_site, settled)
    assert settled.stale() == {"Patient/a", "Patient/b"}
    assert outcome.types["Procedure"].removed == 1
    assert bulk(settled, {"since": False}).types["Encounter"].removed == 1
    assert settled.facts() == searched(make_site, settled)


def test_a_full_export_is_made_now_and_then(settled: Any) -> None:
    connection = sqlite3.connect(settled.ledger_path)
    connection.execute("update cursors set value = '2020-01-01T00:00:00.000000Z' where resource_type = 'reconciled'")
    connection.commit()
    connection.close()
    assert "to find what was deleted without a word" in bulk(settled).notes[0]
    assert bulk(settled).notes == []
    assert [bool(text) for text in since_of(settled)] == [False, False, True]


def test_other_wishes_need_everything_again(settled: Any) -> None:
    outcome = bulk(settled, {"level": "patient"})
    assert outcome.notes == ["the tables or what is asked for changed; everything was exported"]
    assert bulk(settled, {"level": "patient"}).notes == []


def test_a_pull_by_search_before_is_built_upon(site: Any, kit: Any, make_site: Make) -> None:
    assert site.pull().error == ""
    site.store.delete("Procedure", "p00")
    site.store.put(kit.procedure("p01", "b", status="entered-in-error", meta={}))
    assert bulk(site).error == ""
    assert without_e0(site.facts()) == searched(make_site, site)


def test_merged_records_bring_the_surviving_one(make_site: Make, kit: Any) -> None:
    site = make_site()
    assert bulk(site).error == ""
    link = [{"type": "replaced-by", "other": {"reference": "Patient/d"}}]
    site.store.put(kit.person("a", link=link, meta={}))
    assert bulk(site).error == ""
    assert site.ids("Patient") == ["a", "b", "c", "d"]
    assert {"c3", "c7"} <= set(site.ids("Condition"))


def test_a_server_that_ignores_since(settled: Any) -> None:
    facts = settled.facts()
    settled.switch(Faults(bulk=BulkFaults(ignored_parameters=("_since",))))
    outcome = bulk(settled)
    assert (outcome.error, outcome.types["Procedure"].unchanged) == ("", 12)
    assert settled.facts() == facts
    assert settled.stale() == set()


def test_errors_of_one_night_are_made_good_in_the_next(settled: Any, kit: Any) -> None:
    before = settled.cursor()
    settled.store.put(kit.procedure("late", "b", meta={}))
    settled.switch(Faults(bulk=BulkFaults(issues=("error",))))
    assert "reports 1 errors" in bulk(settled).error
    assert settled.cursor() == before
    assert "late" in settled.ids("Procedure")
    settled.switch(Faults())
    outcome = bulk(settled)
    assert (outcome.error, outcome.since) == ("", before)
    assert outcome.types["Procedure"].read == 1


def test_a_patient_who_joins_a_group_comes_with_everything(make_site: Make, kit: Any) -> None:
    def group(*names: str) -> dict[str, Any]:
        members = [{"entity": {"reference": f"Patient/{name}"}} for name in names]
        return {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": members}

    site = make_site([*kit.small_hospital(), group("a", "b")])
    of = {"level": "group", "group": "g"}
    assert bulk(site, of).error == ""
    site.store.put(group("a", "b", "c"))
    assert bulk(site, of).error == ""
    assert {"p02", "p06", "p10"} <= set(site.ids("Procedure"))
    assert bulk(site, {**of, "since": True}).since != ""


# --- what is on record ----------------------------------------------------------------------------------------------


def test_what_comes_while_a_patient_has_no_mapped_procedure_is_there_when_one_comes_back(
    make_site: Make, kit: Any
) -> None:
    visit = {"encounter": {"reference": "Encounter/e"}}
    site = make_site(
        [kit.procedure("p", "x", **visit), kit.person("x"), kit.condition("c", "x"), kit.encounter("e", "x")]
    )
    assert bulk(site).error == ""
    site.store.put(kit.procedure("p", "x", "other", meta={}, **visit))
    assert bulk(site).error == ""
    site.store.put(kit.person("x", gender="male", meta={}))
    site.store.put(kit.condition("meanwhile", "x", meta={}))
    site.store.put(kit.encounter("e", "x", status="cancelled", meta={}))
    assert bulk(site).error == ""
    site.store.put(kit.procedure("q", "x", meta={}, **visit))
    outcome = bulk(site)
    assert (outcome.error, bool(outcome.since)) == ("", True)
    assert site.ids("Condition") == ["c", "meanwhile"]
    assert site.facts() == searched(make_site, site)


def test_a_condition_that_is_corrected_to_somebody_else_counts_for_nobody_before(settled: Any, kit: Any) -> None:
    settled.store.put(kit.condition("c0", "z", meta={}))
    settled.store.put(kit.condition("c1", subject={"display": "nobody"}, meta={}))
    assert bulk(settled).error == ""
    subjects = {row[1]: row[2] for row in settled.facts() if row[0] == "Condition"}
    assert subjects["c0"] == "Patient/z"
    assert "c1" not in subjects
    assert list(settled.quarantine()) == ["Condition/c1"]
    assert {"Patient/a", "Patient/b"} <= settled.stale()


@pytest.mark.parametrize("refused", [False, True])
def test_a_type_that_is_not_exported_is_searched_for_beside_an_export_of_records(
    make_site: Make, kit: Any, refused: bool
) -> None:
    site, types = make_site(), {"types": ["Procedure", "Patient", "Encounter"]}
    assert bulk(site, types).error == ""
    newcomer(site, kit)
    kinds = ("Encounter", "Patient", *(["Condition"] if refused else []))
    faults = tuple(PageFault("error", token=f"/fhir/{kind}?", status=403, times=None) for kind in kinds)
    site.switch(Faults(page_faults=faults))
    outcome = bulk(site, types)
    if refused:
        assert "gives no Condition resources, by search or by export" in outcome.error
        return
    assert outcome.error == ""
    assert site.facts() == searched(make_site, site)


# --- exports that are not what they seem ----------------------------------------------------------------------------


def lacking(kind: str) -> str:
    """What is said of a full export without a type."""
    return (
        f"the export of everything brought no {kind} for any mapped Procedure; "
        "check what the sign-in may see if there should be one"
    )


@pytest.mark.parametrize("kind", ["Condition", "Encounter"])
@pytest.mark.parametrize("by_patient", [False, True])
def test_a_first_export_without_a_type_that_is_needed_says_so(site: Any, kind: str, by_patient: bool) -> None:
    site.switch(Faults(bulk=BulkFaults(lacking_types=(kind,), by_patient=by_patient)))
    outcome = bulk(site)
    assert (outcome.error, outcome.notes) == ("", [lacking(kind)])


def test_a_type_that_one_full_export_lacks_is_kept_though_it_is_few_beside_the_others(
    make_site: Make, kit: Any
) -> None:
    made = [kit.procedure(f"o{number:03}", "z", "other") for number in range(200)]
    for name in [f"n{number:02}" for number in range(30)]:
        made += [kit.procedure(f"p{name}", name), kit.person(name), kit.condition(f"c{name}", name)]
    site, everything = make_site(made), {"since": False}
    assert bulk(site).error == ""
    facts = site.facts()
    site.switch(Faults(bulk=BulkFaults(lacking_types=("Condition",))))
    outcome = bulk(site, everything)
    assert outcome.error == ""
    assert outcome.notes[0] == lacking("Condition")
    assert outcome.notes[1].startswith("30 of 30 Condition resources on record were not found any more; they are kept")
    assert site.facts() == facts
    site.switch(Faults())
    assert bulk(site, everything).notes == []
    assert site.facts() == facts
    for removed in (0, 30):
        site.switch(Faults(bulk=BulkFaults(lacking_types=("Condition",))))
        assert bulk(site, everything).types["Condition"].removed == removed


def test_an_older_job_is_not_handed_out_again(make_site: Make, kit: Any) -> None:
    site = make_site(own=True)
    site.switch(Faults(bulk=BulkFaults(reuses_jobs=True, refuses_delete=True)))
    assert bulk(site, {"since": False}).error == ""
    site.store.put(kit.procedure("new", "b", meta={}))
    assert bulk(site, {"since": False}).error == ""
    assert "new" in site.ids("Procedure")


@pytest.mark.parametrize("of", [{}, {"since": False}])
def test_an_export_that_is_older_than_what_is_on_record_is_refused(settled: Any, kit: Any, of: dict[str, Any]) -> None:
    facts, reached = settled.facts(), settled.cursor()
    settled.store.put(kit.person("a", gender="male", meta={}))
    settled.store.delete("Procedure", "p00")
    settled.switch(Faults(bulk=BulkFaults(transaction_time="2020-01-01T00:00:00Z")))
    outcome = bulk(settled, of)
    assert "handed out an export that is older than what is on record" in outcome.error
    assert (settled.facts(), settled.cursor()) == (facts, reached)
    assert settled._rows("select * from bulk_jobs") == []
    settled.switch(Faults())
    assert bulk(settled, of).error == ""
    assert "p00" not in settled.ids("Procedure")


def test_a_snapshot_that_is_not_made_anew_every_night_is_read(site: Any) -> None:
    site.switch(Faults(bulk=BulkFaults(transaction_time="2020-01-01T00:00:00Z")))
    assert bulk(site).error == ""
    assert site.cursor() == "2020-01-01T00:00:00.000000Z"
    assert bulk(site).error == ""


def test_a_time_of_the_last_export_that_is_still_to_come_is_not_believed(settled: Any, kit: Any) -> None:
    now = datetime.now(UTC)
    connection = sqlite3.connect(settled.ledger_path)
    ahead = (now + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    connection.execute("update cursors set value = ? where resource_type = 'Procedure'", (ahead,))
    connection.commit()
    connection.close()
    settled.store.put(kit.procedure("late", "b", meta={}))
    outcome = bulk(settled)
    assert (outcome.error, outcome.since) == ("", "")
    assert outcome.notes == ["by its time the last export lies in the future; everything was exported"]
    assert "late" in settled.ids("Procedure")
    assert settled.cursor() < ahead
    assert bulk(settled).notes == []


@pytest.mark.parametrize("hours", [20, 365 * 24])
def test_a_clock_that_is_ahead_for_one_night_hides_nothing(make_site: Make, kit: Any, hours: int) -> None:
    site = make_site(own=True)
    ahead = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    server = LoopbackServer(site.app)
    server._server.config.date_header = False  # which would be wrong as well
    with server:
        site.switch(Faults(bulk=BulkFaults(transaction_time=ahead)))
        at: dict[str, Any] = {"url": f"{server.base_url}/fhir"}
        assert bulk(site, **at).error == ""
        site.switch(Faults())
        site.store.put(kit.procedure("late", "b", meta={}))
        outcome = bulk(site, **at)
    assert (outcome.error, bool(outcome.since)) == ("", True)
    assert "late" in site.ids("Procedure")
