"""The second night and those after it: changes are read, corrections replace, nothing doubles, nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from io_fhir_adapter.classify.ruleset import SiteTable, load_ruleset
from io_fhir_adapter.ledger.runs import move_cursor
from io_fhir_adapter.pull.reconcile import note_reconciled
from io_fhir_adapter.sandbox.faults import Faults, PageFault

Make = Callable[..., Any]


def numbers(outcome: Any) -> dict[str, tuple[int, int, int, int]]:
    """(read, new, changed, unchanged) by type, of those that were read at all."""
    return {
        kind: (found.read, found.new, found.changed, found.unchanged)
        for kind, found in outcome.types.items()
        if found.read
    }


def test_a_second_pull_reads_only_what_changed(site: Any, kit: Any) -> None:
    first = site.pull()
    before = site.facts()
    site.decided()
    again = site.pull()
    # everything is as old as the cursor here, so the overlap reads it once more, page by page, and writes nothing
    assert numbers(again) == {
        "Procedure": (12, 0, 0, 12), "Encounter": (9, 0, 0, 9), "Condition": (6, 0, 0, 6), "Patient": (3, 0, 0, 3),
    }  # fmt: skip
    assert site.facts() == before
    assert site.stale() == set()

    site.store.put(kit.procedure("p00", "a", meta={}))
    third = site.pull()
    assert numbers(third)["Procedure"][2] == 1
    site.decided()
    fourth = site.pull()
    assert (first.since, third.since) == ("", "2025-06-01T08:00:00.000000Z")
    assert fourth.since > third.since
    assert numbers(fourth) == {"Procedure": (1, 0, 0, 1)}
    assert site.stale() == set()


def test_corrections_replace_and_their_patients_are_decided_on_again(site: Any, kit: Any) -> None:
    site.pull()
    site.decided()
    site.store.put(kit.procedure("p00", "a", meta={}, status="entered-in-error"))
    site.store.put(kit.condition("c1", "b", meta={}, clinicalStatus={"coding": [{"code": "resolved"}]}))
    site.store.put(kit.procedure("p03", "d", "other", meta={}, status="not-done"))
    outcome = site.pull()
    assert {kind: found.changed for kind, found in outcome.types.items() if found.changed} == {
        "Procedure": 2, "Condition": 1,
    }  # fmt: skip
    assert {row[1]: row[3] for row in site.facts() if row[1] in {"p00", "p03"}} == {
        "p00": "entered-in-error", "p03": "not-done",
    }  # fmt: skip
    assert site.stale() == outcome.touched == {"Patient/a", "Patient/b"}  # d has nothing that a decision rests on
    assert len(site.facts()) == 12 + 9 + 6 + 3


def test_what_is_new_of_a_known_patient_and_what_is_none_of_our_business(site: Any, kit: Any) -> None:
    site.pull()
    site.store.put(kit.condition("new-a", "a", meta={}))
    site.store.put(kit.condition("new-d", "d", meta={}))
    site.store.put(kit.encounter("new-a", "a", meta={}))
    site.store.put(kit.person("d", meta={}, gender="male"))
    site.store.put(kit.person("a", meta={}, gender="male"))
    site.pull()
    assert "new-a" in site.ids("Condition")
    assert "new-d" not in site.ids("Condition")
    assert "new-a" not in site.ids("Encounter")  # no mapped Procedure names it
    assert site.ids("Patient") == ["a", "b", "c"]


def test_what_came_while_a_patient_had_no_mapped_procedure_is_there_when_one_comes_back(
    make_site: Make, kit: Any
) -> None:
    def on(day: int) -> dict[str, Any]:
        return {"meta": {"lastUpdated": f"2025-06-{day:02}T08:00:00Z"}}

    site = make_site([kit.procedure("p", "x"), kit.person("x"), kit.condition("c", "x")])
    site.pull()
    site.store.put(kit.procedure("p", "x", "other", **on(2)))
    site.pull()
    site.store.put(kit.condition("meanwhile", "x", **on(3)))
    site.store.put(kit.procedure("another", "y", "other", **on(4)))
    assert site.pull().error == ""
    site.store.put(kit.procedure("q", "x", **on(6)))
    outcome = site.pull()
    assert outcome.since > "2025-06-04"
    assert site.ids("Condition") == ["c", "meanwhile"]


def test_what_is_asked_for_anew_is_read_from_the_beginning(make_site: Make, kit: Any) -> None:
    old = kit.procedure("old", performedDateTime="2015-01-01")
    site = make_site([old, kit.procedure("p"), kit.person("a")])
    site.pull(since="2020-01-01")
    assert site.ids("Procedure") == ["p"]
    assert site.pull(since="2020-01-01").since
    outcome = site.pull(since="2010-01-01")
    assert outcome.since == ""
    assert site.ids("Procedure") == ["old", "p"]
    assert any("what is asked for changed; everything was read again" in note for note in outcome.notes)
    assert site.pull(since="2010-01-01").since


def test_whoever_was_not_on_the_roster_is_read_when_everyone_may_be(make_site: Make, kit: Any) -> None:
    site = make_site()
    site.store.put(kit.procedure("other", "z"))
    roster = {"patients": {"from": "encounters"}}  # of z there is none
    site.pull(strategy="patient", **roster)
    assert "other" not in site.ids("Procedure")
    outcome = site.pull(strategy="search", **roster)
    assert (outcome.since, outcome.error) == ("", "")
    assert "other" in site.ids("Procedure")
    later = site.pull(strategy="patient", **roster)  # and one night by the roster in between moves nothing past z
    site.store.put(kit.procedure("other", "z", meta={}, status="not-done"))
    site.pull(strategy="patient", **roster)
    assert later.since == ""
    site.pull(strategy="search", **roster)
    assert [row[3] for row in site.facts() if row[1] == "other"] == ["not-done"]


@pytest.mark.parametrize("way", [{}, {"strategy": "patient", "patients": {"from": "encounters"}}])
def test_a_clock_that_was_ahead_for_one_night_hides_nothing(make_site: Make, kit: Any, way: dict[str, Any]) -> None:
    site = make_site()
    site.pull(**way)
    with site.ledger.begin() as connection:
        ahead = (datetime.now(UTC) + timedelta(days=300)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        move_cursor(connection, "s", "Procedure", ahead, site.run)
        note_reconciled(connection, "s", site.run, datetime.now(UTC) + timedelta(days=300))
    site.store.put(kit.procedure("p00", "a", meta={}, status="not-done", encounter={"reference": "Encounter/e0"}))
    outcome = site.pull(**way)
    assert any("lies in the future; everything was read again" in note for note in outcome.notes)
    assert [row[3] for row in site.facts() if row[1] == "p00"] == ["not-done"]
    assert site.cursor() < ahead
    assert site.pull(**way).since


def test_another_time_zone_has_everything_read_again(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure("p", performedDateTime="2024-12-31T23:30:00Z")])
    site.pull()
    assert [row[4] for row in site.facts() if row[1] == "p"] == ["2024-12-31"]
    site.time_zone = "Europe/Berlin"
    outcome = site.pull()
    assert (outcome.since, outcome.error) == ("", "")
    assert [row[4] for row in site.facts() if row[1] == "p"] == ["2025-01-01"]


def test_an_export_after_a_roster_brings_everyone(make_site: Make, kit: Any) -> None:
    export = {"strategy": "bulk", "bulk": {"poll_min_s": 0, "poll_max_s": 0.01}}
    site = make_site()
    site.store.put(kit.procedure("other", "z"))
    site.pull(**export)
    assert site.pull(**export).since
    site.store.put(kit.procedure("other", "z", meta={}, status="not-done"))
    site.pull(strategy="patient", patients={"from": "encounters"})  # of z there is none
    outcome = site.pull(**export)
    assert (outcome.since, outcome.error) == ("", "")
    assert [row[3] for row in site.facts() if row[1] == "other"] == ["not-done"]


def test_a_patient_with_a_first_mapped_procedure_brings_older_conditions(site: Any, kit: Any) -> None:
    site.pull()
    site.store.put(kit.procedure("p03", "d", meta={}, encounter={"reference": "Encounter/e3"}))
    site.pull()
    assert "c3" in site.ids("Condition")
    assert "c7" in site.ids("Condition")
    assert "e3" in site.ids("Encounter")
    assert "d" in site.ids("Patient")


def test_a_procedure_moved_to_another_patient_concerns_both(site: Any, kit: Any) -> None:
    site.pull()
    site.decided()
    site.store.put(kit.procedure("p00", "d", meta={}))
    site.pull()
    assert {"Patient/a", "Patient/d"} <= site.stale()


def test_a_first_pull_cut_off_between_procedures_and_conditions_loses_no_condition(site: Any, kit: Any) -> None:
    site.switch(Faults(page_faults=(PageFault("error", types=("Condition",), times=None),)))
    assert site.pull(retries=0).error
    assert site.ids("Procedure")
    assert site.ids("Condition") == []
    site.store.put(kit.encounter("e0", "a", meta={}, status="cancelled"))  # changed after the broken run read it
    site.switch(Faults())
    assert site.pull().error == ""
    assert site.ids("Condition") == ["c0", "c1", "c2", "c4", "c5", "c6"]
    assert next(row[3] for row in site.facts() if row[:2] == ("Encounter", "e0")) == "cancelled"


def test_a_later_pull_cut_off_keeps_its_cursor_and_reads_it_all_again(site: Any, kit: Any) -> None:
    site.pull()
    since = site.cursor()
    site.decided()
    site.store.put(kit.procedure("p03", "d", meta={}))
    site.store.put(kit.condition("c0", "a", meta={}, clinicalStatus={"coding": [{"code": "resolved"}]}))
    site.switch(Faults(page_faults=(PageFault("error", token="patient=", times=None),)))
    assert site.pull(retries=0).error
    assert site.cursor() == since
    # what it did read is on record, and not forgotten by the next run although it finds it unchanged
    assert site.stale() == {"Patient/d"}
    site.switch(Faults())
    outcome = site.pull()
    assert (outcome.types["Procedure"].new, outcome.types["Procedure"].changed) == (0, 0)
    assert outcome.touched == {"Patient/a", "Patient/d"}
    assert {"c3", "c7"} <= set(site.ids("Condition"))


def test_the_cursor_does_not_follow_a_record_from_the_future(make_site: Make, kit: Any) -> None:
    future = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    now = datetime.now(UTC)
    site = make_site([kit.procedure("p"), kit.procedure("q", meta={"lastUpdated": future})])
    # the sandbox's clock runs ahead with its newest resource, the HTTP date of its server does not
    assert site.pull().error == ""
    assert site.cursor() <= (now + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert site.cursor() > "2025-06-01"


def test_the_overlap_reaches_back(site: Any) -> None:
    site.pull()
    site.pull(overlap_minutes=60)
    asked = [parse_qs(request["query"]) for request in site.requests() if "_lastUpdated" in request["query"]]
    assert {query["_lastUpdated"][0] for query in asked} == {"ge2025-06-01T07:00:00Z"}
    assert len(asked) == 4


def test_offsets_of_instants_are_understood(make_site: Make, kit: Any) -> None:
    early = kit.procedure("early", meta={"lastUpdated": "2025-06-01T10:30:00.5+02:00"})
    late = kit.procedure("late", meta={"lastUpdated": "2025-06-01T05:00:00-04:00"})
    site = make_site([late, early])
    site.pull()
    assert site.cursor() == "2025-06-01T09:00:00.000000Z"


def test_a_server_that_does_not_say_when_is_read_whole_each_night(make_site: Make, kit: Any) -> None:
    site = make_site([], [("Procedure", json.dumps({**kit.procedure("p"), "meta": {}}))])
    site.pull()
    assert site.cursor() == ""
    assert site.pull().since == ""


def test_since_bounds_the_first_pull_and_not_the_corrections(make_site: Make, kit: Any) -> None:
    old = kit.procedure("old", performedDateTime="2020-01-01")
    site = make_site([old, kit.procedure("new", performedDateTime="2025-01-01")])
    site.pull(since="2024-01-01")
    assert site.ids("Procedure") == ["new"]
    site.store.put(kit.procedure("new", meta={}, performedDateTime="2019-01-01"))
    site.pull(since="2024-01-01")
    assert next(row[4] for row in site.facts() if row[1] == "new") == "2019-01-01"


def test_merged_records_bring_the_conditions_of_the_surviving_one(make_site: Make, kit: Any) -> None:
    link = [{"other": {"reference": "Patient/kept"}, "type": "replaced-by"}]
    resources = [
        kit.procedure("p", "old"), kit.person("old", link=link), kit.person("kept"),
        kit.condition("of-old", "old"), kit.condition("of-kept", "kept"),
    ]  # fmt: skip
    site = make_site(resources)
    assert site.pull().error == ""
    assert site.ids("Condition") == ["of-kept", "of-old"]
    assert site.ids("Patient") == ["kept", "old"]
    assert site.stale() == {"Patient/kept", "Patient/old"}


def test_a_merge_on_a_later_night_and_its_undoing(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure("p", "old"), kit.person("old"), kit.person("kept"), kit.condition("c", "kept")])
    site.pull()
    assert site.ids("Condition") == []
    site.decided()
    link = [{"other": {"reference": "Patient/kept"}, "type": "replaced-by"}]
    site.store.put(kit.person("old", meta={}, link=link))
    site.pull()
    assert site.ids("Condition") == ["c"]
    assert site.stale() == {"Patient/kept", "Patient/old"}
    site.decided()
    site.store.put(kit.person("old", meta={}))
    site.pull()
    assert site.stale() == {"Patient/kept", "Patient/old"}


def test_subjects_named_by_an_identifier_are_kept_and_not_searched_for(make_site: Make, kit: Any) -> None:
    subject = {"identifier": {"system": "urn:mrn", "value": "1"}}
    visit = {"identifier": {"system": "urn:visit", "value": "2"}}
    site = make_site([kit.procedure("p", subject=subject, encounter=visit)])
    assert site.pull().error == ""
    assert [row[2] for row in site.facts()] == ["Patient?identifier=urn:mrn|1"]
    assert [request["path"] for request in site.requests()] == ["/fhir/Procedure"]


def test_new_tables_are_applied_before_asking_whose_conditions_matter(site: Any, kit: Any, tmp_path: Any) -> None:
    site.pull()
    assert "d" not in site.ids("Patient")
    header = "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note"
    table = tmp_path / "site.csv"
    table.write_text(f"{header}\nother,microwave,liver,percutaneous,none,main,implied,,,own key,by hand,\n")
    rules = load_ruleset(site_tables=[SiteTable("http://hospital.example/keys", table)])
    outcome = site.pull(rules)
    assert "d" in site.ids("Patient")
    assert {"c3", "c7"} <= set(site.ids("Condition"))
    assert outcome.touched >= {"Patient/c", "Patient/d"}
