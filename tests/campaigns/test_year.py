"""A simulated year: whatever went wrong in it, the ledger is true at its end, and people were told of each thing once.

Shortened in ``make test`` to the nights around what goes wrong; ``make year`` has all 366 (``YEAR=full``).
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.campaigns.year import ZONE, Clock, Facility, Growing, moving, rules_of_few

from io_fhir_adapter.config.notify import About
from io_fhir_adapter.ledger.audit import verify_audit
from io_fhir_adapter.ledger.chain import check_chain
from io_fhir_adapter.ledger.database import known_schemas, open_ledger
from io_fhir_adapter.ledger.outbox import items
from io_fhir_adapter.ledger.runs import read_state
from io_fhir_adapter.ledger.soundness import check_database, schema_of
from io_fhir_adapter.notify.book import BOOK, Book
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.receiver.store import StoredSubmission
from io_fhir_adapter.report.nightly import ReportData
from io_fhir_adapter.report.nightly_pdf import report_files
from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.truth import YearTruth
from io_fhir_adapter.serve.schedule import Cron
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.period import Period

FULL = os.environ.get("YEAR") == "full"
pytestmark = [pytest.mark.xdist_group("year"), pytest.mark.timeout(7200 if FULL else 300)]
FIRST, LAST = date(2025, 1, 1), date(2026, 1, 1)
DOWN = {date(2025, 2, day) for day in (10, 11, 12)}
REFUSED = {date(2025, 4, 7)}
FULL_DISK = {date(2025, 5, 20)}
AHEAD = {date(2025, 6, 15)}
BEHIND = {date(2025, 7, 1)}
KEPT, BROUGHT_BACK = date(2025, 8, 30), date(2025, 9, 4)
REPORTED, DOCUMENTED_LATE = date(2025, 1, 30), {"2024-11": date(2025, 3, 17)}
UPGRADED, EARLIER = date(2025, 10, 7), "0007"
CLOCKS_CHANGE = {date(2025, 3, 30), date(2025, 10, 26)}
WEEK = timedelta(days=7)
MIB = 1 << 20

RUN, LATE, DISK = "The nightly run failed", "No complete run for days", "The disk fills"
BACKUP, PACE = "The ledger was not backed up", "2025 falls short of the threshold"
DECIDED = "The accreditation body decided on the submission of 2024"
ABOUT = tuple(kind for kind in get_args(About) if FULL or kind != "backup")
CLOCKS, CLEAR = ("The clocks differ: source sandbox", "The clocks differ: submission"), "All clear: "
TOLD = [
    ("2025-02-10", RUN), ("2025-02-12", LATE), ("2025-02-13", CLEAR + RUN), ("2025-02-13", CLEAR + LATE),
    ("2025-03-01" if FULL else "2025-03-17", PACE),
    ("2025-04-07", RUN), ("2025-04-08", CLEAR + RUN),
    ("2025-05-20", RUN), ("2025-05-20", DISK), ("2025-05-20", PACE),
    *(("2025-06-15", clock) for clock in CLOCKS), *(("2025-06-16", CLEAR + clock) for clock in CLOCKS),
    *(("2025-07-01", clock) for clock in CLOCKS), *(("2025-07-02", CLEAR + clock) for clock in CLOCKS),
    ("2025-10-07", DECIDED),
    *([("2025-01-01", BACKUP), ("2025-01-02", CLEAR + BACKUP)] if FULL else []),
]  # fmt: skip
"""Beside the verdict on each submission. What was open is told again while the disk is full, since the book cannot be
read then, and the end of that is not told, since it could not be remembered; so is the verdict after the upgrade, since
the earlier version kept none."""


def due() -> list[datetime]:
    """When the schedule starts a night, of every night of the year."""
    rule, moments = Cron("30 2 * * *", "Europe/Berlin"), []
    moment = datetime(2024, 12, 31, 12, tzinfo=UTC)
    while (moment := rule.after(moment)).astimezone(ZONE).date() <= LAST:
        moments.append(moment)
    return moments


def chosen(moments: list[datetime]) -> list[datetime]:
    """In short: the nights on which something goes wrong, those after, and the last."""
    wrong = DOWN | REFUSED | FULL_DISK | AHEAD | BEHIND
    days = {day + timedelta(days=number) for day in wrong for number in (-1, 0, 1)}
    days |= CLOCKS_CHANGE | {FIRST, REPORTED, *DOCUMENTED_LATE.values(), KEPT, BROUGHT_BACK, UPGRADED, LAST}
    return [moment for moment in moments if moment.astimezone(ZONE).date() in days]


def held() -> int:
    """Bytes of memory in use, without what waits to be collected or given back: the tests let much pile up."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's: what is free again is not in use
        trim(0)
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def collecting_as_usual() -> Iterator[None]:
    """Python's collector as in a program: as the tests have it, what waits for it would grow for half the year."""
    seldom = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*seldom)


def no_report(_data: ReportData, *, pdf: bool = False) -> dict[str, bytes]:
    """In place of the report."""
    return {}


@contextmanager
def drawing_aside() -> Iterator[Callable[..., dict[str, bytes]]]:
    """The report by another process, one for the whole year: what draws has memory of its own, and a night ends it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        yield lambda data, *, pdf=False: other.submit(report_files, data, pdf=pdf).result()


@dataclass
class Year:
    """What is left after the year."""

    facility: Facility
    truth: YearTruth
    before: YearTruth
    nights: int
    grown: int
    volume: Volume


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    hospital = build_hospital(11, patients=60, procedures=400)
    truths = hospital.truth_later.years
    clock = Clock(datetime(2024, 12, 31, 12, tzinfo=UTC))
    moments = due() if FULL else chosen(due())
    with ExitStack() as stack:
        stack.enter_context(collecting_as_usual())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        stack.enter_context(moving(clock))
        # in short without: charts take seconds to load, and each case that is drawn seconds to fill
        drawn = stack.enter_context(drawing_aside()) if FULL else no_report
        patch.setattr("io_fhir_adapter.pipeline.report_files", drawn)
        growing = Growing(hospital, clock, DOCUMENTED_LATE)
        facility = Facility(tmp_path_factory.mktemp("year"), growing, clock, ABOUT)
        if not FULL:
            facility.rules = rules_of_few(facility.config)
        with growing.server, facility.body:
            before = 0
            for number, moment in enumerate(moments):
                one_night(facility, moment, last=moment is moments[-1])
                if number == 10:
                    before = held()
            grown = held() - before
            ledger = open_ledger(facility.config.ledger)
            volume = Nightly(facility.config, ledger, facility.rules, as_of=LAST).count(Period.year("2025"))
            ledger.close()
    yield Year(facility, truths[2025], truths[2024], len(moments), grown, volume)
    facility.received.close()


def one_night(facility: Facility, moment: datetime, *, last: bool) -> None:
    """A night with what goes wrong on it, and the weekly copy after it."""
    clock, day = facility.clock, moment.astimezone(ZONE).date()
    clock.true = moment
    clock.off = timedelta(hours=2) if day in AHEAD else -timedelta(days=3) if day in BEHIND else timedelta()
    facility.hospital.arrive()
    if last:
        facility.hospital.arrive_all()
    token = "another" if day in REFUSED else "first"
    down = Faults(every_nth=1, every_nth_status=503, retry_after_s=None)
    facility.faults(down if day in DOWN else Faults(require_bearer=token))
    if day == BROUGHT_BACK:
        facility.restore(max((facility.folder / "copies").glob("*.sqlite")))
    if day == UPGRADED:
        facility.downgraded(EARLIER)
    if day in FULL_DISK:
        with facility.full_disk():
            facility.night()
    else:
        facility.night()
    copies = list((facility.folder / "copies").glob("*"))
    away = KEPT < day < BROUGHT_BACK  # what is brought back is some days old
    if not copies or (
        day not in FULL_DISK and not away and (not FULL or moment.weekday() == 0 or day in {KEPT, BROUGHT_BACK})
    ):
        for old in copies:
            old.unlink()
        facility.copy()


def test_the_schedule_has_every_night_once_also_when_the_clocks_change() -> None:
    days = [moment.astimezone(ZONE).date() for moment in due()]
    assert len(days) == 366
    assert days == [FIRST + timedelta(days=number) for number in range(366)]


def test_the_ledger_is_true_at_the_end(year: Year) -> None:
    volume, truth = year.volume, year.truth
    assert (volume.counted, volume.review) == (truth.counted, truth.review)
    by_category = {name: tally.counted for name, tally in volume.by_category.items() if tally.counted}
    assert by_category == {name: number for name, number in truth.counted_by_category.items() if number}
    by_month = {month: tally.counted for month, tally in volume.by_month.items() if tally.counted}
    assert by_month == {month: number for month, number in truth.counted_by_month.items() if number}


def test_nights_fail_when_they_must_and_at_no_other_time(year: Year) -> None:
    failed = len(DOWN | REFUSED)
    assert year.facility.runs == Counter({
        "complete": year.nights - failed - len(FULL_DISK), "failed": failed, "failed outright": len(FULL_DISK),
    })  # fmt: skip


def test_each_incident_was_told_once_and_so_was_its_end(year: Year) -> None:
    decided = [(sent.received[:10], DECIDED) for sent in year.facility.received.submissions()]
    assert sorted(year.facility.said) == sorted([*TOLD, *decided])


def said_in(sent: StoredSubmission) -> dict[str, list[dict[str, Any]]]:
    """What a submission says, by type: all but who made it, on which day, and what it replaces."""
    said: dict[str, list[dict[str, Any]]] = {}
    for entry in sent.bundle["entry"]:
        resource = dict(entry["resource"])
        if resource["resourceType"] == "MeasureReport":
            del resource["date"]
        said.setdefault(resource["resourceType"], []).append(resource)
    del said["Provenance"]
    return said


def counted_in(sent: StoredSubmission) -> tuple[int, int]:
    """Counted and for review."""
    numbers = dict(sent.populations)
    return numbers["numerator"], numbers["review"]


def test_the_body_has_each_submission_once_and_a_correction_only_where_there_is_something_else_to_say(
    year: Year,
) -> None:
    sent = year.facility.received.submissions()
    days = [one.received[:10] for one in sent]
    assert days[0] == REPORTED.isoformat()
    assert {day.isoformat() for day in DOCUMENTED_LATE.values()} <= set(days)
    assert days[-1] == LAST.isoformat()
    assert {one.times for one in sent} == {1}
    counted_anew = []
    for earlier, later in pairwise(sent):
        # also what is documented later on of a drawn case; who is drawn differs each time the campaign runs
        assert said_in(earlier) != said_in(later), f"nothing new on {later.received[:10]}"
        if counted_in(earlier) != counted_in(later):
            counted_anew.append(later.received[:10])
    assert counted_anew == [*(day.isoformat() for day in DOCUMENTED_LATE.values()), LAST.isoformat()]
    assert counted_in(sent[0])[0] < counted_in(next(one for one in sent if one.received[:10] == counted_anew[0]))[0]
    assert counted_in(sent[-1]) == (year.before.counted, year.before.review)
    ledger = open_ledger(year.facility.config.ledger)
    with ledger.read() as connection:
        queue = {item.identifier: item.state for item in items(connection)}
    ledger.close()
    assert queue == dict.fromkeys((one.identifier for one in sent), "accepted")


def test_the_ledger_is_sound_and_nothing_is_left_open(year: Year) -> None:
    ledger = open_ledger(year.facility.config.ledger)
    with ledger.read() as connection:
        check_database(connection, ledger.name)
        check_chain(connection)
        verify_audit(connection)
        assert schema_of(connection) == known_schemas()[0]
        assert Book.read(read_state(connection, BOOK)).open - {"backup"} == set()
    ledger.close()


def test_memory_and_files_stay_bounded(year: Year) -> None:
    sizes = {path.name: path.stat().st_size / MIB for path in Path(year.facility.folder).glob("ledger.sqlite*")}
    assert sum(size for name, size in sizes.items() if "replaced" not in name) < 12, sizes
    assert year.grown / MIB < 40
