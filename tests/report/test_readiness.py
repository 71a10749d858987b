"""How far a facility is from its seal: what is met, what is not, and what only people know."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from io_fhir_adapter.classify.programme import Programme, load_programme
from io_fhir_adapter.model import Decision
from io_fhir_adapter.report.gather_readiness import group_counts
from io_fhir_adapter.report.readiness import Readiness, Requirement, readiness_of
from io_fhir_adapter.report.readiness_facts import CaseWork, Facts, Standing, Year
from io_fhir_adapter.report.standards import Tally
from io_fhir_adapter.volume.count import Period, Seen, Volume, VolumeCounter

IASIOS, DEGIR = load_programme("iasios"), load_programme("degir")
DAY = date(2025, 7, 1)
ALL_MET = Tally(27, 27)
CASES = CaseWork("2025", 142, 30, 30, 30)


def year(label: str, counted: int, review: int = 0, *, threshold: int = 150, gone: int = 365, **more: Any) -> Year:
    return Year(label, counted, review, threshold, 365, gone, more.pop("so_far", counted), **more)


def facts(**changes: Any) -> Facts:
    known: dict[str, Any] = {
        "as_of": DAY,
        "running": year("2025", 60, 10, gone=73),
        "last": year("2024", 120, 20),
        "core": Tally(27),
        "extended": Tally(23),
        "read_at": "2025-07-01T02:30:00Z",
    }
    return Facts(**(known | changes))


def one(found: Readiness, name: str) -> Requirement:
    return next(requirement for requirement in found.requirements if requirement.id == name)


def volume_of(days: list[str], label: str = "2025") -> Volume:
    counter = VolumeCounter(Period.year(label), 150, {"tace": "yes"})
    for day in days:
        counter.add(Decision("s", "Patient/1", day, "tace", "counted", "counted"))
    return counter.result(Seen(9, 9, {"completed": 9}, 9, 9, 0, 0))


def test_the_year_is_projected_from_the_days_that_are_past() -> None:
    found = Year.of(volume_of(["2025-01-05", "2025-03-01", "2025-11-30"]), date(2025, 3, 14))
    assert (found.counted, found.gone, found.so_far, found.projected) == (3, 73, 2, 10)
    assert Year.of(volume_of([]), date(2024, 12, 31)).projected is None
    assert Year.of(volume_of(["2025-12-31"]), date(2026, 3, 1)).ended


@pytest.mark.parametrize(
    ("running", "last", "state", "value"),
    [
        (year("2025", 60, 10, gone=73), year("2024", 120, 20), "not-yet", 120),
        (year("2025", 60, 10, gone=73), year("2024", 150), "met", 150),
        (year("2025", 151, gone=200), year("2024", 12), "met", 151),
        (year("2025", 60, gone=73), year("2024", 140, 10), "person", 140),
    ],
)
def test_the_volume_is_claimed_on_what_counts_without_judgement(
    running: Year, last: Year, state: str, value: int
) -> None:
    found = one(readiness_of(IASIOS, facts(running=running, last=last)), "volume")
    assert (found.state, found.value, found.wanted) == (state, value, 150)
    assert f"2025: {running.counted} of 150 counted, {running.possible} possible" in found.evidence
    assert f"2024: {last.counted} of 150 counted" in found.evidence
    assert "projection from the days past" in found.evidence
    assert found.source.startswith("https://www.iasios.org/")


def test_a_ledger_without_procedures_knows_nothing_of_the_volume() -> None:
    found = one(readiness_of(IASIOS, facts(empty=True)), "volume")
    assert (found.state, found.evidence) == ("unknown", "The ledger holds no Procedure yet")


@pytest.mark.parametrize(
    ("core", "answered_at", "state", "words"),
    [
        (Tally(27), "", "not-yet", "Not answered"),
        (Tally(27, 20), "2025-06-01T00:00:00Z", "not-yet", "1 June 2025: 20 met, 7 not answered"),
        (Tally(27, 26, 1), "2025-06-01T00:00:00Z", "not-yet", "26 met, 1 partly met"),
        (Tally(27, 26, 0, 0, 1), "2025-06-01T00:00:00Z", "person", "1 not applicable"),
        (ALL_MET, "2025-06-01T00:00:00Z", "met", "27 met"),
    ],
)
def test_core_requirements_are_the_facilitys_own_answers(core: Tally, answered_at: str, state: str, words: str) -> None:
    found = one(readiness_of(IASIOS, facts(core=core, answered_at=answered_at)), "core")
    assert (found.state, found.value, found.wanted) == (state, core.answered, 27)
    assert words in found.evidence


@pytest.mark.parametrize(
    ("work", "state", "words"),
    [
        (None, "not-yet", "Nothing was drawn yet"),
        (CaseWork("2025", 142, 0, 0, 0), "not-yet", "142 patients committed to, nobody drawn yet"),
        (CaseWork("2025", 142, 30, 30, 0), "person", "30 of 30 drawn from 142 patients, 30 pre-filled, 0 signed"),
        (CaseWork("2025", 142, 30, 30, 12), "not-yet", "12 signed"),
        (CASES, "met", "30 signed"),
        (CaseWork("2025", 21, 21, 21, 21), "person", "ask the body"),
        (replace(CASES, approved="approved on 1 June 2025"), "met", "Submission: approved on 1 June 2025"),
    ],
)
def test_the_case_review_counts_what_is_signed(work: CaseWork | None, state: str, words: str) -> None:
    found = one(readiness_of(IASIOS, facts(cases=work)), "case-review")
    assert (found.state, found.value, found.wanted) == (state, work.signed if work else 0, 30)
    assert words in found.evidence


def test_what_only_people_know_is_unknown_until_somebody_says_it() -> None:
    silent, told = (
        readiness_of(IASIOS, facts(standing=standing))
        for standing in (Standing(), Standing(date(2025, 1, 15), date(2025, 2, 3)))
    )
    assert [one(silent, name).state for name in ("approval", "enrolment")] == ["unknown", "unknown"]
    assert "standing.approved" in one(silent, "approval").evidence
    assert silent.status.now == "unknown"
    assert one(told, "approval").evidence == "Given on 15 January 2025, says the configuration"
    assert told.status.now == "Enrolled Centre"


DONE: dict[str, Any] = {
    "last": year("2024", 160), "core": ALL_MET, "answered_at": "2025-06-01T00:00:00Z", "cases": CASES,
}  # fmt: skip


def test_ready_for_accreditation_is_said_in_the_programmes_words() -> None:
    enrolled = Standing(enrolled=date(2025, 2, 3))
    found = readiness_of(IASIOS, facts(standing=enrolled, **DONE)).status
    assert (found.now, found.next, found.state) == ("Enrolled Centre", "Accredited Centre", "met")
    assert "ready for Accredited Centre" in found.words
    assert readiness_of(IASIOS, facts(**DONE)).status.state == "person"  # nobody said that it is enrolled
    missing = readiness_of(IASIOS, facts(standing=enrolled, **(DONE | {"cases": None}))).status
    assert missing.state == "not-yet"
    assert missing.words.endswith("Not yet ready for Accredited Centre: internal case review (not yet)")


@pytest.mark.parametrize(
    ("since", "extended", "state", "words"),
    [
        (date(2021, 7, 2), Tally(23, 23), "not-yet", "not before 2 July 2025"),
        (date(2021, 7, 1), Tally(23, 23), "met", "ready for Centre of Excellence"),
        (date(2021, 7, 1), Tally(23, 20, 1, 0, 2), "not-yet", "extended requirements (1 not said to be met)"),
        (date(2021, 7, 1), Tally(23), "not-yet", "23 not said to be met"),
    ],
)
def test_excellence_waits_for_four_years_and_the_extended_requirements(
    since: date, extended: Tally, state: str, words: str
) -> None:
    standing = Standing(enrolled=date(2020, 1, 1), accredited=since)
    found = readiness_of(IASIOS, facts(standing=standing, extended=extended, **DONE)).status
    assert (found.now, found.next, found.state) == ("Accredited Centre", "Centre of Excellence", state)
    assert words in found.words


def test_a_leap_day_comes_round_in_a_common_year() -> None:
    assert IASIOS.cycle is not None
    yearly = IASIOS.model_copy(update={"cycle": IASIOS.cycle.model_copy(update={"years": 1})})
    known = facts(as_of=date(2025, 2, 27), standing=Standing(accredited=date(2024, 2, 29)), **DONE)
    assert "not before 28 February 2025" in readiness_of(yearly, known).status.words


def test_modules_have_numbers_of_their_own_with_their_age() -> None:
    done = {"venous-stent": 5, "biliary": 60, "tace": 30, "none": 900, "planning": 8}
    groups = group_counts(DEGIR, done, {"ia-chemo": 4})
    assert [(group.id, group.done, group.open) for group in groups] == [
        ("A", 5, 0), ("B", 0, 0), ("C", 60, 0), ("D", 30, 4),
    ]  # fmt: skip
    running = year("2025", 30, 4, threshold=20, gone=73, groups=groups)
    found = readiness_of(DEGIR, facts(running=running, last=year("2024", 0, threshold=20), core=None))
    states = {one.id: one.state for one in found.requirements}
    assert states == {
        "volume": "met",
        "group-a-training-site": "not-yet",
        "group-b-training-site": "not-yet",
        "group-c-training-site": "met",
        "group-all-centre": "unknown",  # it counts what this project does not see
        "group-d-centre": "unknown",  # the number was not found
        "group-all-individual-certification-level-2": "unknown",
    }
    assert "archived page" in one(found, "group-a-training-site").note
    assert (found.status.now, found.status.words) == ("", "The programme's data name no statuses")


def test_json_holds_every_number() -> None:
    found = readiness_of(IASIOS, facts(**DONE)).to_json()
    assert found["programme"] == "iasios"
    assert found["years"][0] | {"groups": []} == {
        "year": "2025", "counted": 60, "review": 10, "possible": 70, "threshold": 150, "days": 365, "days-past": 73,
        "counted-so-far": 60, "projected": 300, "groups": [],
    }  # fmt: skip
    assert found["years"][1]["projected"] is None
    assert {requirement["state"] for requirement in found["requirements"]} == {"met", "unknown"}


def test_every_requirement_names_its_source() -> None:
    for programme in (IASIOS, DEGIR):
        _all_sourced(programme)


def _all_sourced(programme: Programme) -> None:
    for requirement in readiness_of(programme, facts()).requirements:
        assert requirement.source, requirement.id
