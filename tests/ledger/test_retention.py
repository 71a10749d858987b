"""Removing what need not be kept: nothing of patients is left of it, all of its numbers are, whatever cuts it off."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.ledgers import new_ledger

from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.config import Config
from io_fhir_adapter.engine.horizon import horizon_of, latest_horizon
from io_fhir_adapter.ledger.audit import entries, verify_audit
from io_fhir_adapter.ledger.chain import check_chain, links
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import StoredCase, cases_of, commit_frame, find_draw, put_cases, put_nonce
from io_fhir_adapter.ledger.facts import decisions_of, facts_of, put_decisions
from io_fhir_adapter.ledger.intake import StoredFact, mark_stale, put_facts
from io_fhir_adapter.ledger.outbox import Receipt, enqueue, items, latest_receipt, put_receipt
from io_fhir_adapter.ledger.retention import Removed, horizon, purge
from io_fhir_adapter.ledger.reviews import reviews_of, save_draft, sign
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.ledger.schema import signatures
from io_fhir_adapter.model import ConditionFact, Decision, DecisionKind, EncounterFact, PatientFact, ProcedureFact
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.period import Period
from io_fhir_adapter.volume.tally import count_ledger

NOW = datetime(2026, 1, 30, tzinfo=UTC)
FIRST = "2020-01-01"


def treated(name: str, *days: str, decision: DecisionKind = "counted") -> list[StoredFact | Decision]:
    """Somebody with a TACE on each of some days, each in an Encounter, and one liver tumour."""
    who = f"Patient/{name}"
    made: list[StoredFact | Decision] = [
        StoredFact(PatientFact("s", name)),
        StoredFact(ConditionFact("s", f"c-{name}", who)),
    ]
    for number, day in enumerate(days):
        key = f"{name}-{number}"
        made += [
            StoredFact(ProcedureFact("s", key, who, "completed", day, encounter=f"Encounter/{key}"), True, True),
            StoredFact(EncounterFact("s", key, who, start=day, end=day)),
            Decision("s", who, day, "tace", decision, "threshold", procedures=(f"Procedure/{key}",)),
        ]
    return made


def fill(ledger: Ledger, *people: list[StoredFact | Decision]) -> None:
    """Puts people into a ledger, decided on."""
    with ledger.begin() as connection:
        run = start_run(connection, NOW)
        facts = [one for person in people for one in person if isinstance(one, StoredFact)]
        for kind in (PatientFact, ConditionFact, EncounterFact, ProcedureFact):
            put_facts(connection, [one for one in facts if isinstance(one.fact, kind)], run)
        for person in people:
            made = [one for one in person if isinstance(one, Decision)]
            if made:
                put_decisions(connection, made[0].patient, made)


def unmapped(number: int, day: str, status: str = "completed") -> list[StoredFact | Decision]:
    return [StoredFact(ProcedureFact("s", f"u{number}", f"Patient/u{number}", status, day), False, number % 2 == 0)]


def counted(ledger: Ledger, year: str) -> Volume:
    """The volume of a year; its days are not kept."""
    with ledger.read() as connection:
        volume = count_ledger(connection, Period.year(year), load_programme("iasios"), today="2026-01-30")
    return replace(volume, cumulative=())


def hospital(ledger: Ledger) -> None:
    fill(
        ledger,
        treated("old", "2018-03-04", "2019-12-31"),
        treated("both", "2019-05-06", "2024-05-06", decision="review"),
        treated("new", "2025-01-02"),
        treated("vague", "2020"),
        treated("month", "2019-07"),
        *(unmapped(number, f"2019-{number % 12 + 1:02}-01", "stopped" if number % 5 else "completed")
          for number in range(40)),
        unmapped(99, "2021-01-01"),
        unmapped(98, ""),
    )  # fmt: skip


def test_what_is_old_goes_and_earlier_years_count_as_before(ledger: Ledger) -> None:
    hospital(ledger)
    years = ("2018", "2019", "2020", "2024", "2025")
    before = {year: counted(ledger, year) for year in years}
    assert before["2019"].counted == 2
    expected = Removed(procedures=44, sessions=4, people=2, others=8)
    assert purge(ledger, FIRST, NOW, dry_run=True) == expected
    assert counted(ledger, "2019") == before["2019"]
    with ledger.read() as connection:
        assert (horizon(connection), list(entries(connection))) == ("", [])
    assert purge(ledger, FIRST, NOW) == expected
    assert {year: counted(ledger, year) for year in years} == before
    with ledger.read() as connection:
        for gone in ("old", "month", "u3"):
            assert facts_of(connection, f"Patient/{gone}") == type(facts_of(connection, ""))([], [], [], [])
            assert decisions_of(connection, f"Patient/{gone}") == []
        both = facts_of(connection, "Patient/both")
        assert [fact.day for fact in both.procedures] == ["2024-05-06"]
        assert (len(both.conditions), len(both.encounters), len(both.people)) == (1, 1, 1)
        assert [one.date for one in decisions_of(connection, "Patient/both")] == ["2024-05-06"]
        assert len(decisions_of(connection, "Patient/vague")) == 1
        told = [(one.action, one.detail) for one in entries(connection)]
        verify_audit(connection)
    assert told == [
        ("E", "purge before 2020-01-01"),
        ("D", "purged before 2020-01-01: 44 procedures, 4 sessions, 2 people, 8 others"),
    ]
    assert purge(ledger, "2019-01-01", NOW) == Removed()
    with ledger.read() as connection:
        assert horizon(connection) == FIRST


def test_a_session_over_the_horizon_keeps_what_it_was_made_of(ledger: Ledger) -> None:
    night = treated("night", "2019-12-31", "2020-01-01")
    joined = [one for one in night if isinstance(one, StoredFact)]
    decision = next(one for one in night if isinstance(one, Decision))
    names = ("Procedure/night-0", "Procedure/night-1")
    fill(ledger, [*joined, Decision("s", decision.patient, "2020-01-01", "tace", "counted", "ok", procedures=names)])
    assert purge(ledger, FIRST, NOW) == Removed()


def test_whatever_stands_in_a_status_is_tallied_as_other(ledger: Ledger) -> None:
    fill(ledger, *(unmapped(number, "2019-05-01", status) for number, status in enumerate(("", " ", "a b c", "done"))))
    before = counted(ledger, "2019")
    assert before.seen.by_status == {"other": 4}
    assert purge(ledger, FIRST, NOW).procedures == 4
    assert counted(ledger, "2019") == before


def test_people_who_are_to_be_decided_on_are_left_for_the_next_time(ledger: Ledger) -> None:
    fill(ledger, treated("a", "2018-03-04"), treated("b", "2018-03-04"))
    with ledger.begin() as connection:
        mark_stale(connection, ["Patient/a"])
    assert purge(ledger, FIRST, NOW) == Removed(procedures=1, sessions=1, people=1, others=3, waiting=1)
    assert counted(ledger, "2018").counted == 2


def test_cut_off_anywhere_it_goes_on_and_counts_nothing_twice(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("io_fhir_adapter.ledger.retention._PEOPLE", 3)
    people = [treated(f"p{number}", "2019-02-03", "2019-04-05") for number in range(10)]
    fill(ledger, *people, unmapped(1, "2019"))
    before = counted(ledger, "2019")
    calls = 0

    def cut_off(_what: str, _done: int, _total: int | None) -> None:
        nonlocal calls
        calls += 1
        if calls in {1, 3, 6}:
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            purge(ledger, FIRST, NOW, progress=cut_off)
        assert counted(ledger, "2019") == before
        with ledger.read() as connection:
            assert horizon(connection) == FIRST
    purge(ledger, FIRST, NOW)
    assert counted(ledger, "2019") == before
    assert purge(ledger, FIRST, NOW) == Removed()


def test_of_an_old_draw_the_proof_stays_and_nobody_who_was_drawn(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        draws = {}
        for year in ("2018", "2024"):
            window = (f"{year}-01-01", f"{year}-12-31")
            draws[year] = commit_frame(
                connection, "iasios", year, window, b"{}", f"sha256:{year}", 9, NOW, b'{"t":"P"}'
            )
            put_nonce(connection, draws[year], "5a" * 32, "local", NOW)
            put_cases(
                connection, draws[year], [StoredCase(1, "case", "t", "Patient/1", f"{year}-05-05", "tace", ())], NOW
            )
            revision = save_draft(connection, draws[year].id, 1, b"{}", "anna", NOW, 0).revision
            sign(connection, draws[year].id, 1, "anna", NOW, revision)
            enqueue(connection, f"sha256:{year}", year, b"{}", NOW)
            put_receipt(connection, Receipt(f"sha256:{year}", "2026", 200, "accepted", "ok", b"{}"))
        chain = list(links(connection))
    assert purge(ledger, FIRST, NOW) == Removed(draws=1, cases=1)
    with ledger.read() as connection:
        assert list(links(connection)) == chain
        check_chain(connection)
        old, new = find_draw(connection, "iasios", "2018"), find_draw(connection, "iasios", "2024")
        assert old == replace(draws["2018"], nonce="5a" * 32, nonce_origin="local", frame=b"{}")
        assert new is not None
        assert (new.frame, len(cases_of(connection, new.id))) == (b'{"t":"P"}', 1)
        assert (cases_of(connection, draws["2018"].id, None), reviews_of(connection, draws["2018"].id)) == ([], {})
        assert set(connection.execute(select(signatures.c.account)).scalars()) == {"anna"}
        assert len(items(connection)) == 2
        assert latest_receipt(connection, "sha256:2018") is not None
    assert purge(ledger, FIRST, NOW) == Removed()


def test_what_was_removed_is_not_left_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = new_ledger(path)
    fill(ledger, *(treated(f"erikamustermann{number:04}", "2018-03-04") for number in range(120)))
    ledger.shorten_log()
    assert b"erikamustermann" in path.read_bytes()
    purge(ledger, FIRST, NOW)
    ledger.close()
    assert all(b"erikamustermann" not in file.read_bytes() for file in tmp_path.iterdir())
    with sqlite3.connect(path) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_the_programme_says_how_long_and_what_is_still_needed_is_never_too_old() -> None:
    programme = load_programme("iasios")
    config = Config.model_validate(
        {"facility": {"code": "F"}, "sources": [{"name": "s", "kind": "files", "paths": ["x"]}]}
    )
    assert horizon_of(config, programme, date(2026, 6, 1)) == "2020-01-01"
    short = programme.model_copy(update={"retention": programme.retention.model_copy(update={"keep_years": 2})})
    assert latest_horizon(programme, date(2026, 6, 1)) == "2024-01-01"
    assert latest_horizon(programme, date(2026, 1, 5)) == "2023-01-01"  # 2025 is not reported yet
    assert horizon_of(config, short, date(2026, 1, 5)) == "2023-01-01"
    longer = programme.sample.model_copy(update={"window_months": 30})
    assert latest_horizon(programme.model_copy(update={"sample": longer}), date(2026, 6, 1)) == "2022-01-01"
    both = config.model_validate({**config.model_dump(by_alias=True), "standing": [{"programme": "degir"}]})
    assert horizon_of(both, short, date(2026, 6, 1)) == "2020-01-01"
