"""Large searches in slices: every Procedure once, whatever the server caps, ignores, refuses or cannot date."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from io_fhir_adapter.fhir.structs import Procedure
from io_fhir_adapter.pull.slices import Slice, changed_slices, dated_slices
from io_fhir_adapter.sandbox.faults import Faults, PageFault

Make = Callable[..., Any]
DAYS = 120


def archive(kit: Any) -> list[dict[str, Any]]:
    """A hundred and twenty dated Procedures over ten years, four odd ones, and three without a date."""
    made = []
    for number in range(DAYS):
        day = date(2014, 1, 15) + timedelta(days=30 * number)
        made.append(kit.procedure(f"d{number:03}", "a", "other", performedDateTime=day.isoformat()))
    odd: dict[str, dict[str, Any]] = {
        "year": {"performedDateTime": "2019"},
        "period": {"performedDateTime": None, "performedPeriod": {"start": "2018-12-30", "end": "2019-01-03"}},
        "future": {"performedDateTime": "2990-01-01"},
        "ancient": {"performedDateTime": "1903-01-01"},
    }
    made += [kit.procedure(f"odd-{name}", "a", "other", **more) for name, more in odd.items()]
    made += [kit.procedure(f"undated-{number}", "a", "other", performedDateTime=None) for number in range(3)]
    return made


WHOLE = DAYS + 3 + 3  # the one from the future is set aside

SURVIVED = {
    "none": Faults(),
    "capped at twelve": Faults(max_results=12),
    "totals capped too": Faults(total_at_most=20),
    "totals on request": Faults(total="on-request"),
    "expired in every slice": Faults(page_faults=(PageFault("gone", page=2, times=3),)),
    "ignores date": Faults(ignored_parameters=("date",), ignored_in_self=True),
    "ignores date and says so": Faults(ignored_parameters=("date",)),
    "does not know date": Faults(unsupported_parameters=("date",)),
    "refuses date": Faults(unsupported_parameters=("date",), strict_parameters=True),
    "does not know missing": Faults(no_missing=True),
    "no totals": Faults(total="never"),
    "throttled": Faults(every_nth=7, retry_after_s=None),
    "one at a time": Faults(max_concurrent=2),
    "relative links": Faults(next_links="relative"),
    "empty pages": Faults(empty_page=2),
}
NOTED = {
    "ignores date": "does not search Procedure by date; it was read in one go",
    "does not know date": "does not search Procedure by date; it was read in one go",
    "refuses date": "refuses to search Procedure by date; it was read in one go",
    "does not know missing": "3 of 127 Procedure resources are in no slice; all were read in one go",
    "expired in every slice": "the server forgot a search half-way; it was started again",
}


@pytest.mark.parametrize("name", SURVIVED)
def test_all_are_read_once(make_site: Make, kit: Any, name: str) -> None:
    site = make_site(archive(kit))
    site.switch(SURVIVED[name])
    outcome = site.pull(slice_size=10, page_size=4, retries=8)
    assert outcome.error == ""
    procedures = outcome.types["Procedure"]
    assert (procedures.read, procedures.new, procedures.quarantined) == (WHOLE + 1, WHOLE, 1)
    assert len(site.ids("Procedure")) == WHOLE
    assert site.quarantine() == {"Procedure/odd-future": "the date lies in the future"}
    assert any(NOTED.get(name, "") in note for note in [*outcome.notes, ""])
    assert procedures.slices == 0 if "date" in name or name == "no totals" else procedures.slices > 10
    assert outcome.complete


def test_the_same_resources_have_the_same_digest_however_they_are_read(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit))
    cut = site.pull(slice_size=10, page_size=4).types["Procedure"]
    again = make_site(archive(kit)).pull().types["Procedure"]
    assert (cut.ids, cut.total, again.slices) == (again.ids, again.total, 0)


def test_a_cap_within_one_day_is_an_error(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure(f"p{number:02}") for number in range(30)])
    site.switch(Faults(max_results=12))
    outcome = site.pull(slice_size=10, page_size=4)
    assert "says 30 Procedure resources and handed over 12" in outcome.error
    assert site.cursor() == ""


@pytest.mark.parametrize(
    ("faults", "page_size"),
    [
        (Faults(max_results=10, total="never"), 5),  # the last page is full, and leads nowhere
        (Faults(max_results=5, total="never"), 5),  # one page, as if there were no others
        (Faults(max_results=100, total="never"), 7),  # no page is full, but the number is a round one
        (Faults(max_results=100, max_page_size=30, total="never"), 500),
        (Faults(max_results=100, total="never", duplicate_entries=3), 40),
        (Faults(max_results=25, total="never"), 500),
        (Faults(max_results=10, total="never"), 500),
    ],
)
@pytest.mark.parametrize("slice_size", [10, 5_000])
def test_what_a_server_without_totals_leaves_out_is_noticed(
    make_site: Make, kit: Any, faults: Faults, page_size: int, slice_size: int
) -> None:
    resources = archive(kit) + [
        kit.procedure(f"recent-{n:03}", performedDateTime=f"2024-05-{n:02}") for n in range(1, 31)
    ]
    site = make_site(resources)
    site.switch(faults)
    outcome = site.pull(page_size=page_size, slice_size=slice_size)
    assert outcome.error == ""
    assert len(site.ids("Procedure")) == WHOLE + 30
    assert any("at most; it was read in slices" in note for note in outcome.notes)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(max_results=12, total="page"),  # the total is what the page holds
        Faults(max_results=12, total_off_by=-120),
        Faults(max_results=60, total_grows=-20),  # the total falls with every page, and the last one agrees
    ],
)
@pytest.mark.parametrize("slice_size", [10, 5_000])
def test_a_total_that_is_none_is_not_believed(make_site: Make, kit: Any, faults: Faults, slice_size: int) -> None:
    site = make_site(archive(kit))
    site.switch(faults)
    outcome = site.pull(page_size=12, slice_size=slice_size)
    assert outcome.error == ""
    assert len(site.ids("Procedure")) == WHOLE


def test_a_total_of_just_one_page_is_made_sure_of(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit)[:100])
    outcome = site.pull(page_size=100)
    assert (outcome.error, outcome.notes, outcome.types["Procedure"].slices) == ("", [], 0)


def test_what_ends_at_a_full_page_and_cannot_be_cut_is_not_believed(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit))
    site.switch(Faults(max_results=12, total="never", ignored_parameters=("date",)))
    assert "ended a search at a full page" in site.pull(page_size=12).error
    assert site.cursor() == ""
    undated = [kit.procedure(f"u{number:02}", performedDateTime=None) for number in range(20)]
    site = make_site([*undated, kit.procedure("p")])
    site.switch(Faults(max_results=12, total="never"))
    assert "ended a search at a full page" in site.pull(page_size=12, since="2020-01-01").error
    assert site.cursor() == ""


def test_what_is_deleted_while_slices_are_read_fails_nothing(
    make_site: Make, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(archive(kit))
    select, left = site.store.select, ["d050", "d119"]

    def deleting(query: Any, **more: Any) -> Any:
        found = select(query, **more)
        if left:
            site.store.delete("Procedure", left.pop())
        return found

    monkeypatch.setattr(site.store, "select", deleting)
    outcome = site.pull(slice_size=10, page_size=4)
    assert outcome.error == ""
    assert len(site.ids("Procedure")) >= WHOLE - 2
    assert outcome.types["Procedure"].slices > 10


def test_a_count_is_not_asked_for_again_where_it_was_refused(make_site: Make, kit: Any) -> None:
    people = [f"x{number}" for number in range(6)]
    conditions = [kit.condition(f"{name}-{number}", name) for name in people for number in range(10)]
    site = make_site([*(kit.procedure(f"p-{name}", name) for name in people), *conditions])
    site.switch(Faults(total="never", refused_parameters=("_summary",)))
    outcome = site.pull(page_size=500, batch_size=1, concurrency=1)
    assert (outcome.error, len(site.ids("Condition"))) == ("", 60)
    asked = [one for one in site.requests() if "_summary" in one["query"]]
    assert 0 < len(asked) <= 3


def test_an_ignored_date_and_totals_of_pages_end_soon(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit))
    site.switch(Faults(max_results=12, total="page", ignored_parameters=("date",)))
    outcome = site.pull(page_size=12)
    assert "ended a search at a full page" in outcome.error
    assert outcome.requests < 60


def test_a_number_that_may_be_all_is_read_again_and_is_all(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit)[:100])
    site.switch(Faults(total="never"))
    outcome = site.pull(page_size=30)
    assert (outcome.error, outcome.types["Procedure"].read) == ("", 100)
    assert outcome.types["Procedure"].slices > 0


@pytest.mark.parametrize("page_size", [30, 100, 500])
def test_a_server_that_counts_where_it_is_asked_is_believed(make_site: Make, kit: Any, page_size: int) -> None:
    site = make_site(archive(kit)[:100])
    site.switch(Faults(total="counts"))
    outcome = site.pull(page_size=page_size)
    procedures = outcome.types["Procedure"]
    assert (outcome.error, outcome.notes) == ("", [])
    assert (procedures.read, procedures.total, procedures.slices) == (100, 100, 0)


def test_what_lacks_of_a_count_is_read_in_slices(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit))
    site.switch(Faults(total="counts", max_results=100))
    outcome = site.pull(page_size=7)
    assert outcome.error == ""
    assert len(site.ids("Procedure")) == WHOLE
    site.forget_reconciling()
    site.switch(Faults(total="counts", max_results=23))  # of slices that are cut, too, and give no total
    assert "says 127 Procedure resources and handed over" in site.pull(page_size=7).error


def test_a_count_that_no_reading_reaches_is_an_error(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit))
    site.switch(Faults(total="counts", total_off_by=2))
    outcome = site.pull(page_size=7)
    assert f"says {WHOLE + 3} Procedure resources and handed over {WHOLE + 1}" in outcome.error
    assert site.cursor() == ""


def test_what_cannot_be_seen_is_told(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure(f"p{number:03}") for number in range(130)])
    site.switch(Faults(max_results=100, total="never"))
    outcome = site.pull(slice_size=10, page_size=30)
    assert outcome.error == ""
    assert any("all Procedure resources of one day, moment or patient cannot be seen" in note for note in outcome.notes)


def test_a_full_page_that_leads_nowhere_is_not_believed(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure(f"p{number:02}") for number in range(30)])
    site.switch(Faults(max_results=12, total="never"))
    outcome = site.pull(page_size=12)
    assert "ended a search at a full page: it may have more" in outcome.error
    assert site.cursor() == ""
    site.switch(Faults(total="never"))
    assert site.pull(page_size=30).error  # these are all, but who could tell
    assert site.pull(page_size=31).error == ""
    assert len(site.ids("Procedure")) == 30


def test_undated_ones_are_read_although_the_pull_begins_on_a_day(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit))
    outcome = site.pull(since="2018-06-01", slice_size=10, page_size=4)
    assert outcome.error == ""
    found = site.ids("Procedure")
    assert {"undated-0", "undated-1", "undated-2", "odd-year", "odd-period"} <= set(found)
    assert "odd-ancient" not in found
    assert outcome.notes == []
    other = make_site(archive(kit))
    other.switch(Faults(no_missing=True))
    assert other.pull(since="2018-06-01").notes == [
        "the server cannot be asked for Procedures without a date; with since they are not read"
    ]


def test_many_changes_are_read_in_slices_too(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit))
    site.pull()
    start = datetime(2025, 6, 2, tzinfo=UTC)
    for number in range(60):
        moment = (start + timedelta(hours=number)).isoformat()
        site.store.put(kit.procedure(f"d{number:03}", "a", "other", meta={"lastUpdated": moment}, status="not-done"))
    outcome = site.pull(slice_size=10, page_size=4, overlap_minutes=0)
    assert outcome.error == ""
    assert outcome.since
    assert outcome.types["Procedure"].changed == 60
    assert outcome.types["Procedure"].slices > 5


def test_a_server_that_sends_everything_instead_of_changes_is_not_asked_for_every_second(
    make_site: Make, kit: Any
) -> None:
    site = make_site([kit.procedure(f"p{number:02}") for number in range(30)])
    site.pull()
    for number in range(30):
        site.store.put(kit.procedure(f"p{number:02}", meta={"lastUpdated": "2025-06-02T08:00:00Z"}, status="not-done"))
    site.switch(Faults(ignored_parameters=("_lastUpdated",), ignored_in_self=True))
    outcome = site.pull(slice_size=10, page_size=4)
    assert outcome.error == ""
    assert outcome.since
    assert outcome.types["Procedure"].changed == 30
    assert any("does not search Procedure by _lastUpdated; it was read in one go" in note for note in outcome.notes)
    assert outcome.requests < 60


def test_slices_are_read_side_by_side(make_site: Make, kit: Any) -> None:
    site = make_site(archive(kit), own=True)
    site.switch(Faults(latency_s=0.12))
    assert site.pull(slice_size=10, page_size=10, concurrency=5).error == ""
    assert site.app._stats.most_in_flight == 5


@settings(derandomize=True, deadline=None)
@given(st.dates(date(1990, 1, 1), date(2030, 1, 1)), st.dates(date(1800, 1, 1), date(2400, 1, 1)), st.integers(2, 40))
@example(date(2016, 5, 1), date(2014, 6, 1), 2)
@example(date(2012, 5, 1), date(2010, 6, 1), 2)
def test_every_day_lies_in_exactly_one_slice(today: date, day: date, parts: int) -> None:
    number = day.toordinal()
    slices = dated_slices(None, today)
    smaller = [one for part in slices for one in (part.split(parts) or [part])]
    for made in (slices, smaller):
        holding = [one for one in made if (one.low or 0) <= number and (one.high is None or number < one.high)]
        assert len(holding) == 1


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 64))
def test_every_second_lies_in_exactly_one_slice(begin: int, length: int, parts: int) -> None:
    low, high = datetime.fromtimestamp(begin, UTC), datetime.fromtimestamp(begin + length, UTC)
    bounds = [(one.low, one.high) for one in changed_slices(low, high, parts)]
    assert bounds[0][0] == begin
    assert bounds[-1][1] is None
    assert all(first[1] == second[0] for first, second in pairwise(bounds))


def test_slices_write_whole_dates_and_end_somewhere() -> None:
    day = Slice("date", date(2024, 2, 29).toordinal(), date(2024, 3, 1).toordinal())
    assert day.pairs() == (("date", "ge2024-02-29"), ("date", "lt2024-03-01"))
    assert day.split(5) == []
    assert Slice("date", undated=True).pairs() == (("date:missing", "true"),)
    assert Slice("date", undated=True).split(2) == []
    part, steps = Slice("date", None, date(2000, 1, 1).toordinal()), 0
    while pieces := part.split(2):
        part, steps = pieces[0], steps + 1
    assert steps < 20


@pytest.mark.parametrize(
    ("written", "admitted"),
    [(None, True), ("31.12.2025", True), ("2025-13-45", True), ("2025-03-01", False), ("2025", False)],
)
def test_a_date_that_is_none_lies_with_the_undated(written: str | None, admitted: bool) -> None:
    procedure = Procedure("Procedure", id="1", performedDateTime=written)
    assert Slice("date", undated=True).admits(procedure) is admitted
