"""What people are told after a night: each thing once, once more when it is over, and nothing of a patient."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from tests.notify.conftest import Facility, ruleset

from io_fhir_adapter import doctor
from io_fhir_adapter.config.notify import About
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.backup import LAST_BACKUP
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.lease import BUSY
from io_fhir_adapter.ledger.outbox import enqueue, settle
from io_fhir_adapter.ledger.runs import read_state, start_run, write_state
from io_fhir_adapter.ledger.verdicts import BodyVerdict, put_verdict
from io_fhir_adapter.model import Code, ProcedureFact
from io_fhir_adapter.notify import look as looking
from io_fhir_adapter.notify import tell as telling
from io_fhir_adapter.notify.book import BOOK, Book
from io_fhir_adapter.notify.incidents import TITLES
from io_fhir_adapter.notify.new_codes import NewCodes
from io_fhir_adapter.preflight import Check

DOWN = (
    "source his: the pull is not complete and nothing was submitted; https://fhir.example: the server answers with "
    "503 [IOA-NET-003] [IOA-PUL-001]"
)
REFUSED = "source his: the pull is not complete; https://fhir.example: the credentials are refused [IOA-NET-005]"
ID = "sha256:" + "a" * 64
FAILED = "[F-1] The nightly run failed"


def test_a_failed_run_is_told_once_and_its_end_once(facility: Facility) -> None:
    facility.counted(150)
    facility.night()
    assert facility.titles() == []
    told = []
    for error in (DOWN, DOWN, "", ""):
        facility.night(error)
        told.append(facility.titles())
    assert told == [[FAILED], [], [f"[F-1] All clear: {FAILED[6:]}"], []]
    assert "IOA-NET-003, IOA-PUL-001" in facility.said[0][2]
    assert "could not be reached" in facility.said[0][2]
    assert "What began on 2026-03-04 was over on 2026-03-06." in facility.said[1][2]
    facility.night(DOWN)
    assert facility.titles() == [FAILED]


def test_another_cause_is_told_while_the_incident_is_open_and_the_first_one_not_again(facility: Facility) -> None:
    facility.counted(150)
    told = []
    for error in (DOWN, REFUSED, DOWN, REFUSED):
        facility.night(error)
        told.append(facility.titles())
    assert told[0] == [FAILED]
    assert told[1] == [f"{FAILED} (for another reason)"]
    assert [title for titles in told[2:] for title in titles if "failed" in title] == []


def test_a_run_that_ended_outright_is_told_also_where_the_ledger_knows_nothing_of_it(facility: Facility) -> None:
    facility.counted(150)
    facility.night()
    assert facility.titles(failure="IOA-LED-002") == [FAILED]
    facility.night()
    assert facility.titles(failure="ValueError") == [f"{FAILED} (for another reason)"]
    assert "unforeseen" in facility.said[-1][2]
    assert facility.titles(failure=BUSY) == []


def test_a_run_whose_hours_are_over_or_whose_submission_was_rejected_is_not_told_as_failed(facility: Facility) -> None:
    facility.counted(150)
    facility.night()
    facility.night("source his: the hours of pulling are over [IOA-PUL-040] [IOA-PUL-001]")
    assert facility.titles() == []
    with facility.ledger.begin() as connection:
        enqueue(connection, ID, "2025", b"{}", facility.now)
        settle(connection, ID, "rejected")
    facility.night("the submission is rejected [IOA-SUB-006]")
    assert facility.titles() == ["[F-1] The submission of 2025 did not arrive"]
    with facility.ledger.begin() as connection:
        settle(connection, ID, "accepted")
    facility.night()
    assert facility.titles() == ["[F-1] All clear: The submission of 2025 did not arrive"]


def test_a_run_that_proves_nothing_or_was_cut_off_is_told(facility: Facility) -> None:
    facility.counted(150)
    facility.night(sources=[{"source": "his", "complete": False, "error": ""}])
    assert facility.titles() == [FAILED]
    assert "everything of his" in facility.said[-1][2]
    with facility.ledger.begin() as connection:
        start_run(connection, facility.now)
    assert facility.titles() == [f"{FAILED} (for another reason)"]
    assert "cut off" in facility.said[-1][2]


def test_days_without_a_complete_run_are_told(facility: Facility) -> None:
    facility.counted(150)
    facility.night()
    told = []
    for _ in range(3):
        facility.night(DOWN)
        told += facility.titles()
    assert told == [FAILED, "[F-1] No complete run for days"]
    facility.night()
    assert sorted(facility.titles()) == ["[F-1] All clear: No complete run for days", f"[F-1] All clear: {FAILED[6:]}"]


def test_a_pace_that_falls_short_is_told_with_a_margin_and_not_taken_over_into_the_next_year(
    facility: Facility,
) -> None:
    short = "[F-1] 2026 falls short of the threshold"
    facility.counted(1)
    facility.now = datetime(2026, 2, 1, 2, 30, tzinfo=UTC)
    facility.night()
    assert facility.titles() == []  # a month says little
    facility.now = datetime(2026, 7, 1, 2, 30, tzinfo=UTC)
    facility.night()
    assert facility.titles() == [short]
    assert "1 sessions counted in the first 183 of 365 days" in facility.said[-1][2]
    facility.counted(76)  # 151 by the end of the year: above, but hardly
    assert facility.titles() == []
    facility.counted(80)
    assert facility.titles() == [f"[F-1] All clear: {short[6:]}"]
    facility.counted(10)
    assert facility.titles() == [short]
    for ending in (datetime(2026, 12, 31, 2, 30, tzinfo=UTC), datetime(2027, 1, 2, 2, 30, tzinfo=UTC)):
        facility.now = ending
        facility.night()
        assert facility.titles() == []


def test_many_procedures_under_codes_never_seen_are_told_until_they_have_rows(facility: Facility) -> None:
    facility.counted(150)
    facility.night()
    facility.procedures("OLD", 300, days_ago=100)
    facility.procedures("OLD", 300)
    assert facility.titles() == []
    facility.procedures("NEW", 5)
    assert facility.titles() == []  # few
    facility.procedures("NEWER", 30)
    assert facility.titles() == ["[F-1] Many Procedures under new codes without a mapping"]
    assert "35 of the 335" in facility.said[-1][2]
    assert "NEW" not in facility.said[-1][2]
    facility.night()
    assert facility.titles() == []
    facility.procedures("NEWER", 30, days_ago=2, mapped=True)
    assert facility.titles() == ["[F-1] All clear: Many Procedures under new codes without a mapping"]


def test_what_is_remembered_of_codes_is_bounded(facility: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("io_fhir_adapter.notify.new_codes._MOST", 4)
    facility.night()
    for number in range(10):
        facility.procedures(f"C{number}", 1)
    facility.tell()
    with facility.ledger.read() as connection:
        assert len(json.loads(read_state(connection, "notify codes"))) == 4
        known = NewCodes.read(connection, date(2028, 1, 1))
    assert known.seen == {}


def test_each_word_of_the_body_is_told_once_and_not_in_its_own_words(facility: Facility) -> None:
    facility.counted(150)
    facility.night()
    with facility.ledger.begin() as connection:
        enqueue(connection, ID, "2025", b"{}", facility.now)
        settle(connection, ID, "accepted")
    told = []
    for state in ("received", "received", "accepted"):
        with facility.ledger.begin() as connection:
            put_verdict(
                connection,
                BodyVerdict(ID, state, "canary", timestamp(facility.now), timestamp(facility.now), state.encode()),
            )
        told.append(facility.titles())
        facility.night()
    title = "[F-1] The accreditation body decided on the submission of 2025"
    assert told == [[title], [], [title]]
    assert "the body accepted it" in facility.said[-1][2]
    facility.now += timedelta(days=70)
    facility.night()
    facility.tell()
    with facility.ledger.read() as connection:
        assert Book.read(read_state(connection, BOOK)).entries == {}


def test_an_old_backup_is_told(facility: Facility) -> None:
    facility.counted(150)
    with facility.ledger.begin() as connection:
        write_state(connection, LAST_BACKUP, timestamp(facility.now - timedelta(days=9)))
    facility.night()
    assert facility.titles() == ["[F-1] The ledger was not backed up"]


def test_a_full_disk_is_told_although_nothing_can_be_remembered(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.counted(150)
    facility.night()
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _path: SimpleNamespace(total=1 << 40, used=(1 << 40) - (1 << 20), free=1 << 20)
    )

    def full(_ledger: Ledger) -> None:
        raise LedgerError("the database is full", number=2)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "begin", full)
        assert sorted(facility.titles(failure="IOA-LED-002")) == ["[F-1] The disk fills", FAILED]
        patch.setattr(Ledger, "read", full)
        assert sorted(facility.titles(failure="IOA-LED-002")) == ["[F-1] The disk fills", FAILED]


def test_certificates_and_clocks_of_servers_are_told_and_one_that_is_not_reached_is_not_well(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.counted(150)
    answers = [
        [Check("source his", "ok", "reached"),
         Check("source his server certificate", "warn", "ends on 2026-03-20", "a"),
         Check("source his clock", "warn", "this machine's clock is 90 s behind the server's", "b")],
        [Check("source his", "warn", "not looked at", "c")],
        [Check("source his", "ok", "reached"), Check("source his server certificate", "ok", "ends on 2027-03-20"),
         Check("source his clock", "ok", "agrees")],
    ]  # fmt: skip

    async def server(*_: object) -> list[Check]:
        return answers.pop(0)

    monkeypatch.setattr(looking, "servers_of", lambda _config: [("source his", object())])
    monkeypatch.setattr(looking, "server_checks", server)
    told = []
    for _ in range(3):
        facility.night()
        told.append(sorted(facility.titles()))
    first = ["[F-1] A certificate ends: server certificate of source his", "[F-1] The clocks differ: source his"]
    assert told == [first, [], sorted(f"[F-1] All clear: {title[6:]}" for title in first)]


def test_every_server_of_a_configuration_is_looked_at(facility: Facility) -> None:
    server = {"name": "a", "kind": "fhir", "url": "https://a.example/fhir"}
    facility.configure({"targets": [{"name": "it", "url": {"env": "A"}}]}, sources=[server],
                       submission={"url": "https://b.example/fhir"})  # fmt: skip
    assert [name for name, _ in doctor.servers_of(facility.config)] == ["source a", "submission"]


def test_a_target_hears_what_it_asked_for_and_one_that_was_deaf_hears_it_later(facility: Facility) -> None:
    facility.counted(150)
    url = {"env": "NOT_READ"}
    facility.configure({"targets": [{"name": "it", "url": url}, {"name": "lead", "url": url, "about": ["run"]}]})
    with facility.ledger.begin() as connection:
        write_state(connection, LAST_BACKUP, "")
    facility.deaf = {"lead"}
    facility.night(DOWN)
    told = facility.tell()
    assert [message.target for message in told.arrived] == ["it", "it"]
    assert [(message.target, code) for message, code in told.failed] == [("lead", "IOA-NET-060")]
    facility.deaf = set()
    facility.night(DOWN)
    assert [(message.target, message.title) for message in facility.tell().arrived] == [("lead", FAILED)]
    facility.deaf = {"it", "lead"}
    facility.night()
    assert facility.titles() == []
    facility.deaf = set()
    facility.night()
    facility.tell()
    clear = [who for who, title, _ in facility.said if "All clear: The nightly" in title]
    assert sorted(clear) == ["it", "lead"]


def test_of_two_who_tell_at_the_same_time_one_does_and_one_that_died_at_it_is_taken_over(facility: Facility) -> None:
    facility.counted(150)
    facility.night(DOWN)
    with facility.ledger.begin() as connection:
        write_state(connection, BOOK, Book(busy=timestamp(facility.now - timedelta(minutes=1))).write())
    assert facility.titles() == []
    facility.now += timedelta(minutes=10)
    assert facility.titles() == [FAILED]
    assert facility.titles() == []


def test_nothing_that_a_record_a_server_or_the_body_wrote_is_told(facility: Facility, tmp_path: Path) -> None:
    """Canaries stand wherever something of others stands in the ledger."""
    facility.now = datetime(2026, 7, 1, 2, 30, tzinfo=UTC)
    canary = "Mustermann-4711"
    facility.night(f"source his: {canary} Procedure/{canary} [IOA-NET-003] {canary}",
                   sources=[{"source": "his", "complete": False, "error": canary, "notes": [canary]}])  # fmt: skip
    with facility.ledger.begin() as connection:
        enqueue(connection, ID, "2025", canary.encode(), facility.now)
        settle(connection, ID, "parked", canary)
        put_verdict(connection, BodyVerdict(ID, "rejected", canary, canary, timestamp(facility.now), canary.encode()))
    facility.procedures("OLD", 20, days_ago=100)
    facility.tell()
    made = [
        ProcedureFact("his", f"{canary}{one}", f"Patient/{canary}", "completed", "2026-06-30", text=canary,
                      codes=(Code(f"urn:{canary}", canary, canary),)) for one in range(40)
    ]  # fmt: skip
    with facility.ledger.begin() as connection:
        put_facts(connection, [StoredFact(one) for one in made], 1)
    facility.night()
    facility.tell()
    kinds = {title.split("] ")[1][:12] for _, title, _ in facility.said}
    assert len(kinds) >= 6, kinds  # run, late or pace, submission, verdict, unmapped, and an all-clear
    assert canary not in json.dumps(facility.said)
    with facility.ledger.read() as connection:
        assert canary not in read_state(connection, BOOK) + read_state(connection, "notify codes")


def test_every_kind_has_a_title() -> None:
    assert set(TITLES) == set(get_args(About))


def test_who_has_no_section_is_told_nothing_and_nothing_is_looked_at(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility.night(DOWN)
    config = facility.config.model_copy(update={"notify": None})
    monkeypatch.setattr(telling, "find", None)
    assert telling.tell(config, facility.ledger, ruleset(), facility.now, facility.now.date()) == telling.Told()
