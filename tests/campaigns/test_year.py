"""A simulated year: whatever went wrong in it, the ledger is true at its end, and people were told of each thing once.

Shortened in ``make test`` to the nights around what goes wrong; ``make year`` has all 366 (``YEAR=full``).
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from tests.campaigns.year import ZONE, Clock, Facility, moving

from io_fhir_adapter.ledger.audit import verify_audit
from io_fhir_adapter.ledger.chain import check_chain
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.runs import read_state
from io_fhir_adapter.ledger.soundness import check_database
from io_fhir_adapter.notify.book import BOOK, Book
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.truth import YearTruth
from io_fhir_adapter.serve.schedule import Cron
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.period import Period

FULL = os.environ.get("YEAR") == "full"
pytestmark = [pytest.mark.xdist_group("year"), pytest.mark.timeout(3600 if FULL else 300)]
FIRST, LAST = date(2025, 1, 1), date(2026, 1, 1)
DOWN = {date(2025, 2, day) for day in (10, 11, 12)}
REFUSED = {date(2025, 4, 7)}
FULL_DISK = {date(2025, 5, 20)}
AHEAD = {date(2025, 6, 15)}
BEHIND = {date(2025, 7, 1)}
KEPT, BROUGHT_BACK = date(2025, 8, 30), date(2025, 9, 4)
CLOCKS_CHANGE = {date(2025, 3, 30), date(2025, 10, 26)}
WEEK = timedelta(days=7)
MIB = 1 << 20

RUN, LATE, DISK = "The nightly run failed", "No complete run for days", "The disk fills"
BACKUP = "The ledger was not backed up"
ABOUT = ("run", "late", "disk", "clock", "backup") if FULL else ("run", "late", "disk", "clock")
CLOCK, CLEAR = "The clocks differ: source sandbox", "All clear: "
TOLD = [
    ("2025-02-10", RUN), ("2025-02-12", LATE), ("2025-02-13", CLEAR + RUN), ("2025-02-13", CLEAR + LATE),
    ("2025-04-07", RUN), ("2025-04-08", CLEAR + RUN),
    ("2025-05-20", RUN), ("2025-05-20", DISK),
    ("2025-06-15", CLOCK), ("2025-06-16", CLEAR + CLOCK),
    ("2025-07-01", CLOCK), ("2025-07-02", CLEAR + CLOCK),
    *([("2025-01-01", BACKUP), ("2025-01-02", CLEAR + BACKUP)] if FULL else []),
]  # fmt: skip
"""The end of the full disk is not told: that it was full could not be remembered."""


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
    days |= CLOCKS_CHANGE | {FIRST, KEPT, BROUGHT_BACK, LAST}
    return [moment for moment in moments if moment.astimezone(ZONE).date() in days]


def held() -> int:
    """Bytes of memory in use, without what waits to be collected: the tests let much pile up."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Year:
    """What is left after the year."""

    facility: Facility
    truth: YearTruth
    nights: int
    grown: int
    volume: Volume


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    hospital = build_hospital(11, patients=60, procedures=400)
    clock = Clock(datetime(2024, 12, 31, 12, tzinfo=UTC))
    moments = due() if FULL else chosen(due())
    with moving(clock), pytest.MonkeyPatch.context() as patch:
        if not FULL:  # what draws takes seconds to load
            patch.setattr("io_fhir_adapter.pipeline.render_report", lambda _data: "")
        facility = Facility(tmp_path_factory.mktemp("year"), hospital, clock, ABOUT)
        with facility.server:
            before = 0
            for number, moment in enumerate(moments):
                one_night(facility, moment, last=moment is moments[-1])
                if number == 10:
                    before = held()
            grown = held() - before
            ledger = open_ledger(facility.config.ledger)
            volume = Nightly(facility.config, ledger, facility.rules, as_of=LAST).count(Period.year("2025"))
            ledger.close()
    return Year(facility, hospital.truth_later.years[2025], len(moments), grown, volume)


def one_night(facility: Facility, moment: datetime, *, last: bool) -> None:
    """A night with what goes wrong on it, and the weekly copy after it."""
    clock, day = facility.clock, moment.astimezone(ZONE).date()
    clock.true = moment
    clock.off = timedelta(hours=2) if day in AHEAD else -timedelta(days=3) if day in BEHIND else timedelta()
    facility.arrive()
    if last:
        facility.arrive_all()
    token = "another" if day in REFUSED else "first"
    down = Faults(every_nth=1, every_nth_status=503, retry_after_s=None)
    facility.faults(down if day in DOWN else Faults(require_bearer=token))
    if day == BROUGHT_BACK:
        facility.restore(max((facility.folder / "copies").glob("*.sqlite")))
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
    assert sorted(year.facility.said) == sorted(TOLD)


def test_the_ledger_is_sound_and_nothing_is_left_open(year: Year) -> None:
    ledger = open_ledger(year.facility.config.ledger)
    with ledger.read() as connection:
        check_database(connection, ledger.name)
        check_chain(connection)
        verify_audit(connection)
        left = Book.read(read_state(connection, BOOK)).open
    assert left <= (set() if FULL else {"backup"})  # copies are made after the nights that there are
    ledger.close()


def test_memory_and_files_stay_bounded(year: Year) -> None:
    sizes = {path.name: path.stat().st_size / MIB for path in Path(year.facility.folder).glob("ledger.sqlite*")}
    assert sum(size for name, size in sizes.items() if "replaced" not in name) < 12, sizes
    assert year.grown / MIB < 40
