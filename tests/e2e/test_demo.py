"""The nightly job between the synthetic hospital and the receiver: its numbers are the hospital's own truth."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.measurereport import MeasureReport
from tests.e2e.conftest import Canaries, write_config

from io_fhir_adapter.canonical_urls import PATIENT_TOKEN
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.trust.submission import submission_digest

if TYPE_CHECKING:
    from tests.e2e.conftest import Ran, Say, World

    from io_fhir_adapter.sandbox.truth import YearTruth

pytestmark = pytest.mark.xdist_group("demo")
FILES = {"report.html", "measure-report.json", "submission.json", "receipt.json"}


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """What a MeasureReport's volume group says: counts in all, by category and by month."""
    group = next(group for group in report["group"] if group["code"]["coding"][0]["code"] == "volume")

    def population(node: Mapping[str, Any], code: str) -> int:
        return next(int(p["count"]) for p in node["population"] if p["code"]["coding"][0]["code"] == code)

    def strata(name: str, code: str) -> dict[str, int]:
        found = next(s for s in group["stratifier"] if s["code"][0]["coding"][0]["code"] == name)
        counts = {
            (stratum["value"].get("coding") or [{}])[0].get("code", stratum["value"].get("text")): population(
                stratum, code
            )
            for stratum in found["stratum"]
        }
        return {name: count for name, count in counts.items() if count}

    return {
        "counted": population(group, "numerator"),
        "review": population(group, "review"),
        "categories": strata("category", "numerator"),
        "months": strata("month", "numerator"),
        "review categories": strata("category", "review"),
    }


def truth_of(year: YearTruth) -> dict[str, Any]:
    return {
        "counted": year.counted,
        "review": year.review,
        "categories": dict(year.counted_by_category),
        "months": dict(year.counted_by_month),
        "review categories": dict(year.review_by_category),
    }


def resources(ran: Ran, kind: str) -> list[dict[str, Any]]:
    entries = ran.json("submission.json")["entry"]
    return [entry["resource"] for entry in entries if entry["resource"]["resourceType"] == kind]


def rows(world: World, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(world.folder / "ledger.sqlite") as connection:
        return connection.execute(query).fetchall()


def test_the_first_night_ends_well_and_leaves_every_file(world: World) -> None:
    assert (world.first.code, world.first.err.count("Traceback")) == (0, 0), world.first.err
    assert set(world.first.files) == FILES
    assert world.first.sent == 1


def test_the_numbers_are_the_hospitals_own_truth(world: World) -> None:
    assert numbers(world.first.json("measure-report.json")) == truth_of(world.hospital.truth.years[2025])


def test_every_session_is_decided_as_the_truth_says(world: World) -> None:
    truth = world.hospital.truth_later
    planned = {
        (session.patient, session.date, session.category, session.decision, session.reason)
        for year in truth.years.values()
        for session in year.sessions
        if session.decision != "not-counted"
    }
    found = {
        tuple(row)
        for row in rows(world, "SELECT patient, date, category, decision, reason FROM decisions")
        if row[3] != "not-counted" and row[1][:4] in {"2024", "2025"}
    }
    assert found == planned


def test_thirty_distinct_patients_leave_as_tokens(world: World) -> None:
    patients = resources(world.first, "Patient")
    tokens = {
        identifier["value"]
        for patient in patients
        for identifier in patient["identifier"]
        if identifier["system"] == PATIENT_TOKEN
    }
    assert len(patients) == len(tokens) == len(resources(world.first, "QuestionnaireResponse")) == 30
    drawn = {row[0] for row in rows(world, "SELECT patient FROM cases WHERE number <= 30")}
    assert len(drawn) == 30
    assert drawn <= set(world.hospital.truth.years[2025].eligible_patients)


def test_what_leaves_is_valid_and_says_what_the_report_says(world: World) -> None:
    bundle = world.first.json("submission.json")
    Bundle.model_validate(bundle)
    MeasureReport.model_validate(world.first.json("measure-report.json"))
    assert bundle["identifier"]["value"] == submission_digest(bundle)
    (report,) = resources(world.first, "MeasureReport")
    assert numbers(report) == numbers(world.first.json("measure-report.json"))
    assert json.loads(world.received.submissions[0]) == bundle


def test_the_sample_is_drawn_with_the_accreditation_systems_nonce(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(world.folder / "out" / "submission.json")]) == 0
    shown = capfd.readouterr().out
    assert re.search(r"^ok +draw .*nonce: task$", shown, re.MULTILINE), shown
    links = [row[0] for row in rows(world, "SELECT kind FROM chain ORDER BY number")]
    assert links[:4] == ["frame-committed", "frame-announced", "nonce", "drawn"]
    announced = json.loads(next(body for body in world.received.bodies if body not in world.received.submissions))
    assert (announced["resourceType"], "member" in announced) == ("Group", False)


def test_every_entry_has_its_receipt(world: World) -> None:
    receipt, bundle = world.first.json("receipt.json"), world.first.json("submission.json")
    assert receipt["type"] == "transaction-response"
    assert len(receipt["entry"]) == len(bundle["entry"])
    assert {entry["response"]["status"][:3] for entry in receipt["entry"]} <= {"200", "201"}
    states = rows(world, "SELECT state FROM outbox")
    assert set(states) == {("accepted",)}


def test_what_is_broken_is_set_aside_and_said(world: World) -> None:
    truth = world.hospital.truth
    broken = truth.procedures_broken
    assert re.search(rf"Procedure\s+{truth.procedures_total:,}\s.*\s{broken}\s+yes", world.first.out)
    assert rows(world, "SELECT count(*) FROM quarantine WHERE resource_type = 'Procedure'") == [(broken,)]


def test_a_second_night_reads_little_changes_nothing_and_submits_nothing(world: World) -> None:
    assert world.second.code == 0, world.second.err
    assert world.second.sent == 0
    assert world.second.requests < world.first.requests / 5
    same = {"measure-report.json", "submission.json", "receipt.json"}
    assert {name: world.second.files[name] for name in same} == {name: world.first.files[name] for name in same}
    assert "nothing new to submit" in world.second.out


def test_corrections_change_the_numbers_to_the_later_truth(world: World) -> None:
    assert world.later.code == 0, world.later.err
    before, after = world.hospital.truth.years[2025], world.hospital.truth_later.years[2025]
    assert truth_of(before) != truth_of(after)
    assert numbers(world.later.json("measure-report.json")) == truth_of(after)


def test_new_numbers_are_a_new_submission_with_its_own_receipt(world: World) -> None:
    first, later = world.first.json("submission.json"), world.later.json("submission.json")
    assert world.later.sent == 1
    assert first["identifier"]["value"] != later["identifier"]["value"]
    assert first["identifier"]["system"] == later["identifier"]["system"]
    assert len(resources(world.later, "Patient")) == 30


def test_the_same_people_stay_drawn_but_for_those_who_do_not_count_any_more(world: World) -> None:
    year = world.hospital.truth_later.years[2025]
    counted = {(session.patient, session.date) for session in year.sessions if session.decision == "counted"}
    roles = rows(world, "SELECT number, role, patient, date FROM cases ORDER BY number")
    cases = [row for row in roles if row[1] == "case"]
    left = [row for row in roles if row[1] == "left"]
    assert len(cases) == 30
    assert all((row[2], row[3]) in counted for row in cases)
    assert all((row[2], row[3]) not in counted for row in left)
    reserves = [row[0] for row in cases if row[0] > 30]
    assert reserves == list(range(31, 31 + len(left)))
    assert rows(world, "SELECT count(*) FROM draws") == [(1,)]


def test_nothing_more_happens_on_the_night_after(world: World) -> None:
    assert world.after.code == 0, world.after.err
    assert world.after.sent == 0
    assert world.after.files["submission.json"] == world.later.files["submission.json"]


def test_the_story_in_the_terminal_says_it_all(world: World) -> None:
    year = world.hospital.truth.years[2025]
    for words in (
        "Sessions of 2025",
        f"{year.counted} of 150",
        f"+{year.review} for review",
        "30 of ",
        "accepted",
        "report.html",
    ):
        assert words in world.first.out
    assert "\x1b[" not in world.first.out + world.first.err
    assert max(map(len, world.first.err.splitlines()), default=0) < 120


def test_the_demo_command_can_be_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In its full size: nowhere else do these tests read a whole hospital of 25,000 Procedures."""
    whole, folder = build_hospital(), tmp_path / "new" / "folder"
    canaries = Canaries(whole.canaries)
    assert len(canaries.tokens) > 20_000
    assert whole.truth.procedures_total >= 25_000
    monkeypatch.setattr("io_fhir_adapter.demo.build_hospital", lambda: whole)
    for news in ("Submission   sha256:", "nothing new to submit"):
        assert run(["demo", "--out", str(folder)]) == 0
        shown = capfd.readouterr()
        assert news in shown.out
        assert f"Volume 2025  {whole.truth.years[2025].counted} of 150" in shown.out
        assert "equal to the numbers above" in shown.out
        assert "1 submission(s) stored" in shown.out
        assert canaries.found(shown.out + shown.err) == set()
    assert {path.name for path in folder.iterdir()} >= FILES
    for name in FILES:
        assert canaries.found((folder / name).read_bytes()) == set(), name


def test_a_receiver_that_is_down_is_waited_for_before_anybody_is_drawn(tmp_path: Path, say: Say, undrawn: None) -> None:
    small = build_hospital(7, patients=60, procedures=300)
    store = SandboxStore.from_resources([one for found in small.resources.values() for one in found], (), ())
    received = ReceiverStore("sqlite://")
    with LoopbackServer(sandbox_app(store)) as sandbox, LoopbackServer(receiver_app(received)) as receiver:
        config = write_config(tmp_path, f"{sandbox.base_url}/fhir", "http://127.0.0.1:9/fhir", cases=4)
        code, out, err = say("run", "--config", str(config), "--as-of", "2026-01-30")
        assert (code, "Case review  waits for the nonce of the draw" in out) == (0, True), out + err
        assert "Submission" not in out
        code, out, err = say("review", "--config", str(config), "--as-of", "2026-01-30")
        assert (code, "[IOA-REV-013]" in err) == (1, True), out + err
        code, out, err = say("draw", "--config", str(config), "--as-of", "2026-01-30")
        assert (code, "nonce  awaited" in out) == (0, True), out + err
        write_config(tmp_path, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir", cases=4)
        code, out, err = say("submit", "--config", str(config), "--as-of", "2026-01-30")
        assert (code, "accepted" in out) == (0, True), out + err
        assert len(received.submissions()) == 1
    received.close()


def test_a_receiver_that_is_down_leaves_the_submission_queued(tmp_path: Path, say: Say, undrawn: None) -> None:
    small = build_hospital(7, patients=60, procedures=300)
    store = SandboxStore.from_resources([one for found in small.resources.values() for one in found], (), ())
    with LoopbackServer(sandbox_app(store)) as sandbox:
        config = write_config(tmp_path, f"{sandbox.base_url}/fhir", "http://127.0.0.1:9/fhir", nonce="local", cases=4)
        code, out, err = say("run", "--config", str(config), "--as-of", "2026-01-30")
        assert (code, "Not sent     stays queued" in out) == (0, True), out + err
        code, out, err = say("submit", "--config", str(config), "--as-of", "2026-01-30")
        assert code == 1
        assert "stays queued" in err.splitlines()[-1]
        received = ReceiverStore("sqlite://")
        with LoopbackServer(receiver_app(received)) as receiver:
            write_config(tmp_path, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir", cases=4)
            code, out, err = say("submit", "--config", str(config), "--as-of", "2026-01-30")
            assert (code, "accepted" in out) == (0, True), out + err
            assert len(received.submissions()) == 1
        received.close()
