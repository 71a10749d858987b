"""Asking only for codes that the tables may know: less is read, nothing that counts is lost, and it is always said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.classify.ruleset import SiteTable, load_ruleset
from io_fhir_adapter.sandbox.faults import Faults

LOCAL = "http://hospital.example/keys"
HEAD = "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note"
ASKED = "only Procedures with codes that the tables may know were asked for (code_filter): "
LATER = "when everything was last read, only codes that the tables may know were asked for (code_filter): "
MAPPED = ["p00", "p01", "p02", "p04", "p05", "p06", "p08", "p09", "p10"]
EVERYONE = [f"p{number:02}" for number in range(12)]


def said(outcome: Any, start: str) -> bool:
    return any(note.startswith(start) for note in outcome.notes)


@pytest.fixture(scope="module")
def with_local_codes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Rules with a table of a site's own: sixty codes, in a system that most Procedures have a code of."""
    file: Path = tmp_path_factory.mktemp("tables") / "local.csv"
    row = "IO{},radiofrequency,liver,percutaneous,none,main,expected,,,heated,,"
    file.write_text("\n".join([HEAD, *(row.format(f"{number:02}") for number in range(40)), row.format("[4-5][0-9]")]))
    return load_ruleset(site_tables=[SiteTable(LOCAL, file)])


def test_what_has_a_row_is_read_and_the_rest_is_not(site: Any) -> None:
    outcome = site.pull(code_filter="on")
    assert outcome.error == ""
    assert outcome.complete
    assert site.ids("Procedure") == MAPPED
    assert outcome.types["Procedure"].read == 9
    assert site.ids("Patient") == ["a", "b", "c"]
    assert said(outcome, f"{ASKED}all of ops (its codes are written in several ways)")
    assert site.cursor() == "2025-06-01T08:00:00.000000Z"


def test_without_it_everything_is_read(site: Any) -> None:
    for word in ("off", "auto"):  # a small hospital is read whole
        outcome = site.pull(code_filter=word)
        assert (outcome.error, outcome.notes) == ("", [])
        assert site.ids("Procedure") == EVERYONE


def test_many_are_asked_for_where_there_are_very_many(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("io_fhir_adapter.pull.code_filter._HUGE", 11)
    assert said(site.pull(code_filter="auto"), ASKED)
    assert site.ids("Procedure") == MAPPED


def test_in_slices_and_from_a_day_on(make_site: Callable[..., Any], kit: Any) -> None:
    dated = [
        kit.procedure(f"p{number}", "a", "5-501.a3" if number % 2 else "other", performedDateTime=day)
        for number, day in enumerate(
            ["2023-01-01", "2023-01-02", "2024-05-01", "2024-05-02", "2025-01-01", "2025-02-02"]
        )
    ]
    undated = kit.procedure("p6", "a")
    del undated["performedDateTime"]
    site = make_site([*dated, undated, kit.person("a")])
    assert site.pull(code_filter="on", slice_size=1, page_size=1).error == ""
    assert site.ids("Procedure") == ["p1", "p3", "p5", "p6"]
    other = make_site([*dated, undated, kit.person("a")])
    outcome = other.pull(code_filter="on", since="2024-01-01")
    assert outcome.error == ""
    assert other.ids("Procedure") == ["p3", "p5", "p6"]


def test_the_next_nights_read_what_changed_whatever_its_codes(site: Any, kit: Any) -> None:
    site.pull(code_filter="on")
    site.store.put(kit.procedure("p00", code="other", meta={}))  # corrected: it had a row
    site.store.put(kit.procedure("new", code="other", meta={}))
    outcome = site.pull(code_filter="on")
    assert outcome.error == ""
    assert said(outcome, LATER)
    assert not said(outcome, ASKED)
    mapped = {row[1]: row[5] for row in site.facts() if row[0] == "Procedure"}
    assert [name for name in MAPPED if mapped[name]] == MAPPED[1:]
    assert mapped["new"] == 0


def test_what_was_not_asked_for_is_not_taken_for_deleted(site: Any, kit: Any) -> None:
    """Read whole before; then by code, with one deleted that is asked for and some that are not."""
    other_spelling = {"coding": [{"system": "HTTP://FHIR.DE/CodeSystem/BfArM/OPS/", "code": "5-501.A3"}]}
    site.store.put(kit.procedure("odd", "a") | {"code": other_spelling})
    site.pull()
    assert site.ids("Procedure") == ["odd", *EVERYONE]
    site.store.delete("Procedure", "p00")
    site.store.delete("Procedure", "p03")  # of no table: not looked for
    site.forget_reconciling()
    outcome = site.pull(code_filter="on")
    assert outcome.error == ""
    assert outcome.types["Procedure"].removed == 1
    assert site.ids("Procedure") == ["odd", *(name for name in EVERYONE if name != "p00")]


def test_a_complete_reading_by_code_brings_what_changed_with_other_codes(site: Any, kit: Any) -> None:
    site.pull()
    assert "p03" in site.ids("Procedure")
    site.pull(code_filter="on")
    site.store.put(kit.procedure("p03", "d", "other", meta={"lastUpdated": "2025-06-02T08:00:00Z"}, status="not-done"))
    site.store.put(kit.procedure("p00", "a", meta={"lastUpdated": "2025-06-05T08:00:00Z"}, status="not-done"))
    site.forget_reconciling()
    outcome = site.pull(code_filter="on")
    assert (outcome.error, outcome.since) == ("", "")
    assert [row[3] for row in site.facts() if row[1] in {"p00", "p03"}] == ["not-done", "not-done"]
    assert site.cursor() >= "2025-06-05"


def test_a_server_that_ignores_what_changed_is_not_read_whole_beside_codes(site: Any, kit: Any) -> None:
    site.pull(code_filter="on")
    site.store.put(kit.procedure("p00", "a", meta={"lastUpdated": "2025-06-05T08:00:00Z"}))
    assert site.pull(code_filter="on").since
    site.switch(Faults(ignored_parameters=("_lastUpdated",), ignored_in_self=True))
    outcome = site.pull(code_filter="on", overlap_minutes=0)
    assert (outcome.error, outcome.since) == ("", "")
    assert said(outcome, "the server ignores _lastUpdated; what changed with other codes is not seen")
    assert outcome.types["Procedure"].read == len(MAPPED)


def test_switched_off_or_with_other_tables_everything_is_read_again(site: Any, with_local_codes: Any) -> None:
    again = "everything was read again: other codes are asked for than last time"
    site.pull(code_filter="on")
    assert said(site.pull(with_local_codes, code_filter="on"), again)
    assert not said(site.pull(with_local_codes, code_filter="on"), again)
    outcome = site.pull(with_local_codes)
    assert said(outcome, again)
    assert site.ids("Procedure") == EVERYONE
    assert site.pull(with_local_codes).notes == []


def local(make_site: Callable[..., Any], kit: Any, codes: list[str]) -> Any:
    """A hospital whose Procedures have codes of its own, and one of OPS."""
    made = [kit.procedure(f"l{number:02}", code=code) for number, code in enumerate(codes)]
    return make_site([*made, kit.procedure("ops"), kit.person("a")])


LISTED = ["IO01", "IO45", "X1", "X2", "X3", "IO59", "X4", "IO01"]


@pytest.mark.parametrize(
    ("faults", "note"),
    [
        (Faults(), ""),
        (Faults(posted_searches="refused"), "the server does not take searches by POST"),
        (Faults(posted_searches="ignored"), "the server does not take searches by POST"),
        (Faults(strict_parameters=True), ""),
    ],
    ids=["post", "no POST", "the form is not read", "strict"],
)
def test_codes_that_can_be_listed_are_asked_for_one_by_one(
    make_site: Callable[..., Any], kit: Any, with_local_codes: Any, faults: Faults, note: str
) -> None:
    site = local(make_site, kit, LISTED)
    site.switch(faults)
    outcome = site.pull(with_local_codes, code_filter="on", slice_size=3, batch_size=80)
    assert outcome.error == ""
    assert site.ids("Procedure") == ["l00", "l01", "l05", "l07", "ops"]
    assert "site:local by its 60 codes" in " ".join(outcome.notes)
    assert said(outcome, note) or not note
    assert any(one["path"].endswith("/_search") for one in site.requests()) or note


def test_a_system_with_little_is_asked_for_whole(
    make_site: Callable[..., Any], kit: Any, with_local_codes: Any
) -> None:
    site = local(make_site, kit, LISTED)
    outcome = site.pull(with_local_codes, code_filter="on")
    assert "all of site:local" in " ".join(outcome.notes)
    assert len(site.ids("Procedure")) == len(LISTED) + 1


def test_a_server_that_takes_a_list_for_one_code(
    make_site: Callable[..., Any], kit: Any, with_local_codes: Any
) -> None:
    site = local(make_site, kit, LISTED)
    site.switch(Faults(no_lists=True))
    outcome = site.pull(with_local_codes, code_filter="on", slice_size=3)
    assert outcome.error == ""
    assert said(outcome, "the server does not take lists of codes")
    assert len(site.ids("Procedure")) == len(LISTED) + 1


@pytest.mark.parametrize("most", [2, 10, 59])
def test_a_server_that_reads_only_the_beginning_of_a_list_of_codes(
    make_site: Callable[..., Any], kit: Any, with_local_codes: Any, most: int
) -> None:
    site = local(make_site, kit, LISTED)
    site.switch(Faults(max_list=most))
    outcome = site.pull(with_local_codes, code_filter="on", slice_size=3, batch_size=80)
    assert outcome.error == ""
    assert said(outcome, "the server does not take lists of codes")
    assert len(site.ids("Procedure")) == len(LISTED) + 1
    site.switch(Faults(max_list=60))
    site.forget_reconciling()
    outcome = site.pull(with_local_codes, code_filter="on", slice_size=3, batch_size=80)
    assert "site:local by its 60 codes" in " ".join(outcome.notes)


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_server_that_refuses_long_lists_of_codes(
    make_site: Callable[..., Any], kit: Any, with_local_codes: Any, status: int
) -> None:
    site = local(make_site, kit, LISTED)
    site.switch(Faults(max_list=30, max_list_status=status))
    outcome = site.pull(with_local_codes, code_filter="on", slice_size=3, batch_size=80, retries=0)
    assert outcome.error == ""
    assert said(outcome, "the server does not take lists of codes")
    assert len(site.ids("Procedure")) == len(LISTED) + 1


@pytest.mark.parametrize(
    ("faults", "note"),
    [
        (Faults(ignored_parameters=("code",)), "the server does not search Procedures by code"),
        (Faults(ignored_parameters=("code",), ignored_in_self=True), "the server does not search Procedures by code"),
        (Faults(unsupported_parameters=("code",)), "the server does not search Procedures by code"),
        (
            Faults(unsupported_parameters=("code",), strict_parameters=True),
            "the server refuses to search Procedures by code",
        ),
    ],
)
def test_a_server_that_does_not_search_by_code_is_read_whole(site: Any, faults: Faults, note: str) -> None:
    site.switch(faults)
    outcome = site.pull(code_filter="on")
    assert outcome.error == ""
    assert said(outcome, f"{note}; Procedures of all codes were read")
    assert not said(outcome, ASKED)
    assert site.ids("Procedure") == EVERYONE
    site.switch(Faults())
    assert not said(site.pull(code_filter="on"), LATER)


def test_a_server_without_a_known_code_system_is_read_whole(make_site: Callable[..., Any], kit: Any) -> None:
    site = make_site([kit.procedure("p", code="other")])
    outcome = site.pull(code_filter="on")
    assert said(outcome, "the server finds no Procedure of any code system in the tables")
    assert site.ids("Procedure") == ["p"]


def test_a_fault_on_the_way_moves_no_cursor(site: Any) -> None:
    site.switch(Faults(max_results=2, total="always"))
    outcome = site.pull(code_filter="on", slice_size=0)
    assert "handed over 2" in outcome.error
    assert (outcome.complete, site.cursor()) == (False, "")
