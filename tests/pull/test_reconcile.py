"""What a server deleted without a word, lists that servers do not take, and the proof that a reading was whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.pull.seen import Seen, marks_of
from io_fhir_adapter.sandbox.faults import Faults, PageFault

Make = Callable[..., Any]


def delete(site: Any, *references: str) -> None:
    """As an administrator does it: without leaving a trace in any search."""
    for reference in references:
        site.store.delete(*reference.split("/"))


def test_deletions_are_found_by_the_next_whole_reading(site: Any) -> None:
    site.pull()
    site.decided()
    delete(site, "Procedure/p00", "Condition/c1", "Encounter/e2")
    night = site.pull()
    assert night.since
    assert "p00" in site.ids("Procedure")  # a search for changes does not show what is gone
    site.forget_reconciling()
    outcome = site.pull()
    assert outcome.error == ""
    assert outcome.since == ""
    assert "everything was read again, to find what was deleted" in outcome.notes
    assert {kind: found.removed for kind, found in outcome.types.items()} == {
        "Procedure": 1, "Condition": 1, "Encounter": 1, "Patient": 0,
    }  # fmt: skip
    assert site.stale() == {"Patient/a", "Patient/b", "Patient/c"}
    assert site.pull().since


def test_it_is_due_after_so_many_days_or_never(site: Any) -> None:
    site.pull()
    assert site.pull(reconcile_days=7).since
    site.forget_reconciling()
    assert site.pull(reconcile_days=0).since
    assert site.pull(reconcile_days=30).since == ""
    assert site.pull(reconcile_days=30).since


@pytest.mark.parametrize(
    "faults",
    [
        Faults(page_faults=(PageFault("error", page=2, times=None),)),
        Faults(max_results=3),
        Faults(page_faults=(PageFault("error", types=("Condition",), times=None),)),
    ],
)
def test_a_reading_that_is_not_whole_removes_nothing(site: Any, faults: Faults) -> None:
    site.pull()
    before = site.facts()
    site.forget_reconciling()
    site.switch(faults)
    assert site.pull(retries=0).error
    assert site.facts() == before


def test_what_was_dated_before_the_first_day_is_not_taken_for_gone(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure("old", performedDateTime="2020-05-05"), kit.procedure("new"), kit.person("a")])
    site.pull()
    site.forget_reconciling()
    site.pull(since="2024-01-01")
    assert site.ids("Procedure") == ["new", "old"]
    delete(site, "Procedure/new", "Procedure/old")
    site.forget_reconciling()
    site.pull(since="2024-01-01")
    assert site.ids("Procedure") == ["old"]


def test_much_that_is_missing_at_once_has_to_be_missed_twice(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure(f"p{number:02}", "a", "other") for number in range(60)])
    site.pull()
    delete(site, *(f"Procedure/p{number:02}" for number in range(30)))
    site.forget_reconciling()
    first = site.pull()
    assert len(site.ids("Procedure")) == 60
    assert any("30 of 60 resources on record were not found any more" in note for note in first.notes)
    second = site.pull()  # due at once
    assert second.since == ""
    assert second.types["Procedure"].removed == 30
    assert len(site.ids("Procedure")) == 30
    assert site.pull().since


def test_a_sign_in_that_saw_less_for_one_night_costs_nothing(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure(f"p{number:02}", "a", "other") for number in range(60)])
    site.pull()
    whole, site.app.store = site.app.store, make_site([]).store
    site.forget_reconciling()
    assert site.pull().error == ""
    site.app.store = whole
    assert site.pull().since == ""
    assert len(site.ids("Procedure")) == 60
    assert site.pull().since


def few_beside_many(kit: Any) -> list[dict[str, Any]]:
    """Thirty patients with a mapped Procedure and a Condition each, beside two hundred other Procedures."""
    made = [kit.procedure(f"o{number:03}", "z", "other") for number in range(200)]
    for name in [f"n{number:02}" for number in range(30)]:
        made += [kit.procedure(f"p{name}", name), kit.person(name), kit.condition(f"c{name}", name)]
    return made


def night(site: Any, store: Any) -> Any:
    """A complete reading of what is in a store."""
    site.app.store = store
    site.forget_reconciling()
    outcome = site.pull()
    assert (outcome.error, outcome.since) == ("", "")
    return outcome


def test_a_type_that_is_missing_is_kept_though_it_is_few_beside_the_others(make_site: Make, kit: Any) -> None:
    made = few_beside_many(kit)
    less = make_site([one for one in made if one["resourceType"] != "Condition"]).store
    site = make_site(made)
    site.pull()
    facts = site.facts()
    outcome = night(site, less)
    assert any("30 of 30 Condition resources on record were not found any more" in note for note in outcome.notes)
    assert site.facts() == facts
    assert not any("were not found any more" in note for note in night(site, site.store).notes)
    assert site.facts() == facts
    assert [night(site, less).types["Condition"].removed for _ in range(2)] == [0, 30]
    assert site.ids("Condition") == []


def test_another_type_that_is_missing_in_the_next_reading_has_to_be_missed_twice_too(make_site: Make, kit: Any) -> None:
    made = few_beside_many(kit)
    less = {kind: make_site([one for one in made if one["resourceType"] != kind]).store
            for kind in ("Condition", "Patient")}  # fmt: skip
    site = make_site(made)
    site.pull()
    facts = site.facts()
    for kind in ("Condition", "Patient", "Condition"):
        outcome = night(site, less[kind])
        assert any(f"30 of 30 {kind} resources on record" in note for note in outcome.notes)
        assert site.facts() == facts


def test_little_of_each_type_is_much_together(make_site: Make, kit: Any) -> None:
    names = [f"n{number:02}" for number in range(15)]
    made = [one for name in names for one in (kit.procedure(f"p{name}", name), kit.person(name))]
    nothing = make_site([]).store
    site = make_site(made)
    site.pull()
    assert any("30 of 30 resources on record were not found any more" in note for note in night(site, nothing).notes)
    assert len(site.ids("Procedure")) == 15


def test_a_patient_who_was_merged_away_and_deleted(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure("p", "old"), kit.person("old"), kit.person("kept"), kit.condition("c", "old")])
    site.pull()
    site.decided()
    for resource in (kit.procedure("p", "kept", meta={}), kit.condition("c", "kept", meta={})):
        site.store.put(resource)
    delete(site, "Patient/old")
    site.forget_reconciling()
    assert site.pull().error == ""
    assert site.ids("Patient") == ["kept"]
    assert {row[2] for row in site.facts()} == {"Patient/kept"}
    assert site.stale() == {"Patient/kept", "Patient/old"}


@pytest.mark.parametrize(
    ("faults", "note"),
    [
        (Faults(), ""),
        (Faults(posted_searches="refused"), "the server does not take searches by POST"),
        (Faults(posted_searches="ignored"), "the server does not take searches by POST"),
        (Faults(posted_searches="refused", max_url=400), "the server does not take searches by POST"),
        (Faults(max_url=400), ""),
        (Faults(no_lists=True), "the server does not take lists of _id"),
        (Faults(ignored_parameters=("_id",)), "the server ignores _id of Encounter; all of them were read"),
        (Faults(ignored_parameters=("patient",)), "the server ignores patient of Condition; all of them were read"),
        (Faults(max_page_size=7), ""),
        (Faults(unsupported_parameters=("_total",), total="never"), "refuses strict handling"),
        (Faults(unsupported_parameters=("_total",), strict_parameters=True, total="never"), "refuses _total"),
    ],
)
def test_lists_of_patients_and_ids(make_site: Make, kit: Any, faults: Faults, note: str) -> None:
    names = [f"patient-with-a-long-name-{number:03}" for number in range(120)]
    resources = [kit.procedure(f"p{name}", name, encounter={"reference": f"Encounter/e{name}"}) for name in names]
    resources += [kit.person(name) for name in ["stranger", *names]]
    resources += [kit.condition(f"c{name}", name) for name in ["stranger", *names]]
    resources += [kit.encounter(f"e{name}", name) for name in ["stranger", *names]]
    site = make_site(resources)
    site.switch(faults)
    outcome = site.pull(batch_size=100, page_size=50)
    assert outcome.error == ""
    counts = {kind: (found.read, found.new) for kind, found in outcome.types.items()}
    assert counts == dict.fromkeys(("Procedure", "Encounter", "Condition", "Patient"), (120, 120))
    assert any(note in said for said in [*outcome.notes, ""])
    assert bool(outcome.notes) is bool(note)
    if faults == Faults():
        assert {one["method"] for one in site.requests() if not one["path"].endswith("Procedure")} >= {"POST"}


def people_of(kit: Any, number: int) -> list[dict[str, Any]]:
    """Patients with a mapped Procedure and an Encounter each; every third has a Condition."""
    names = [f"n{one:04}" for one in range(number)]
    made = [kit.procedure(f"p{name}", name, encounter={"reference": f"Encounter/e{name}"}) for name in names]
    made += [kit.person(name) for name in names]
    made += [kit.encounter(f"e{name}", name) for name in names]
    return made + [kit.condition(f"c{name}", name) for name in names[::3]]


def lengths_of_lists(site: Any, resource_type: str, parameter: str) -> list[int]:
    """How many values the searches of a type named, as far as they were not posted."""
    made = [one for one in site.requests() if one["path"].endswith(f"/{resource_type}")]
    queries = [dict(parse_qsl(one["query"])) for one in made]
    return [query[parameter].count(",") + 1 for query in queries if parameter in query]


@pytest.mark.parametrize(
    ("faults", "more", "longest", "note"),
    [
        (Faults(), {}, 400, ""),
        (Faults(), {"page_size": 250}, 250, ""),
        (Faults(), {"batch_size": 150}, 150, ""),
        (Faults(max_list=100), {}, 200, "the server reads only the beginning of long lists of _id"),
        (Faults(max_list=100, max_list_status=400), {}, 200, "the server does not answer long lists of _id"),
        (Faults(max_list=100, max_list_status=500), {}, 200, "the server does not answer long lists of _id"),
        (Faults(max_list=170, max_list_status=413), {}, 200, "the server does not answer long lists of _id"),
        (Faults(total="never"), {}, 100, ""),
        (Faults(max_page_size=70), {}, 100, ""),
    ],
)
def test_lists_grow_where_the_server_answers_them_whole(
    make_site: Make, kit: Any, faults: Faults, more: dict[str, Any], longest: int, note: str
) -> None:
    site = make_site(people_of(kit, 900))
    site.switch(replace(faults, posted_searches="refused"))
    outcome = site.pull(**{"batch_size": None, "page_size": 500, "concurrency": 1, "retries": 0, **more})
    assert outcome.error == ""
    found = {kind: (types.read, types.new) for kind, types in outcome.types.items()}
    assert found == {
        "Procedure": (900, 900), "Encounter": (900, 900), "Condition": (300, 300), "Patient": (900, 900)
    }  # fmt: skip
    assert max(lengths_of_lists(site, "Encounter", "_id")) == longest
    assert any(note in said for said in [*outcome.notes, ""])


@pytest.mark.parametrize("most", [12, 99, 133])  # of all numbers: test_batches
@pytest.mark.parametrize("more", [{}, {"batch_size": 40}, {"concurrency": 1}])
def test_nothing_is_lost_of_a_list_whose_end_is_not_read(
    make_site: Make, kit: Any, most: int, more: dict[str, Any]
) -> None:
    site = make_site(people_of(kit, 240))
    site.switch(Faults(max_list=most))
    outcome = site.pull(**{"batch_size": None, "page_size": 500, "concurrency": 3, **more})
    assert outcome.error == ""
    found = {kind: (types.read, types.new) for kind, types in outcome.types.items()}
    assert found == {
        "Procedure": (240, 240), "Encounter": (240, 240), "Condition": (80, 80), "Patient": (240, 240)
    }  # fmt: skip


@pytest.mark.parametrize("most", [20, 100])
@pytest.mark.parametrize("batch_size", [None, 50, 3])
def test_lists_of_a_server_that_gives_no_totals_and_hands_over_so_many(
    make_site: Make, kit: Any, most: int, batch_size: int | None
) -> None:
    names = [f"n{one:04}" for one in range(150)]
    made = [kit.person(name) for name in names]
    for number, name in enumerate(names):
        day = {"performedDateTime": f"20{10 + number % 14}-0{1 + number % 9}-{1 + number % 28:02}"}
        made.append(kit.procedure(f"p{name}", name, **day))
        made += [kit.condition(f"c{name}-{one}", name) for one in range(number % 3)]
    site = make_site(made)
    site.switch(Faults(max_results=most, total="never"))
    outcome = site.pull(batch_size=batch_size, page_size=20, concurrency=3)
    assert outcome.error == ""
    found = {kind: (types.read, types.new) for kind, types in outcome.types.items()}
    assert found == {"Procedure": (150, 150), "Encounter": (0, 0), "Condition": (150, 150), "Patient": (150, 150)}


@pytest.mark.parametrize("most", [0, 7, 60])
def test_a_patient_strategy_goes_on_after_lists_that_were_read_to_their_end(
    make_site: Make, kit: Any, tmp_path: Path, most: int
) -> None:
    names = [f"n{one:04}" for one in range(300)]
    made = [kit.procedure(f"p{name}", name) for name in names[150::4]]  # half of them at first have none
    site = make_site(made + [kit.person(name) for name in names])
    roster = tmp_path / "roster.csv"
    roster.write_text("".join(f"{name}\n" for name in names))
    site.switch(Faults(max_list=most))
    asked = {"strategy": "patient", "patients": {"from": "csv", "path": roster}, "batch_size": 40, "page_size": 500}
    outcome = site.pull(**asked)
    assert outcome.error == ""
    assert len(site.ids("Procedure")) == len(made)
    assert any("only the beginning" in said for said in outcome.notes) is (most == 7)


@pytest.mark.parametrize("more", [{"batch_size": 1}, {"batch_size": 2}, {"batch_size": None}, {"concurrency": 1}])
@pytest.mark.parametrize(
    "also", [Faults(), Faults(no_lists=True), Faults(max_list=1), Faults(posted_searches="refused")]
)
def test_patients_who_are_found_by_their_ids_alone(
    make_site: Make, kit: Any, also: Faults, more: dict[str, Any]
) -> None:
    site = make_site(people_of(kit, 60))
    site.switch(replace(also, bare_ids=True))
    outcome = site.pull(**{"batch_size": 20, "page_size": 500, "concurrency": 3, **more})
    assert outcome.error == ""
    assert len(site.ids("Condition")) == 20
    assert "the server finds patients by their ids alone; they are named so" in outcome.notes


def test_nobody_is_asked_for_twice_where_there_is_nothing_to_find(make_site: Make, kit: Any) -> None:
    names = [f"n{number}" for number in range(9)]
    site = make_site([kit.procedure(f"p{name}", name) for name in names] + [kit.person(name) for name in names])
    outcome = site.pull(batch_size=1)
    assert outcome.error == ""
    asked = [one for one in site.requests() if one["path"].endswith("/Condition")]
    assert len(asked) == 9 + 3  # three are tried by their ids alone, then it is believed


def test_a_server_that_does_not_search_by_time_is_read_whole_without_a_change(site: Any) -> None:
    site.pull()
    site.decided()
    before = site.facts()
    for faults in (
        Faults(unsupported_parameters=("_lastUpdated",), strict_parameters=True),
        Faults(unsupported_parameters=("_lastUpdated",)),
    ):
        site.switch(faults)
        outcome = site.pull(overlap_minutes=0)
        assert outcome.error == ""
        assert sum(found.new + found.changed for found in outcome.types.values()) == 0
        assert site.facts() == before
        assert site.stale() == set()
    assert any("_lastUpdated" in note for note in outcome.notes)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(max_size=8)), st.lists(st.text(max_size=8)))
def test_what_was_seen(first: list[str], second: list[str]) -> None:
    seen, other = Seen(), Seen()
    seen.add(marks_of(first))
    other.add(marks_of([*reversed(first), *first]))
    assert seen.count() == len(set(first))
    assert seen.digest() == other.digest()
    assert set(seen.lacks(second)) == set(second) - set(first)
    seen.merge(other)
    assert seen.count() == len(set(first))
