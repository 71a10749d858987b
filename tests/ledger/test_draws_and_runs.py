"""Draws, cases, runs, cursors and decisions: written once, found again as they were."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.chain import check_chain, links
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.draws import (
    StoredCase,
    StoredDraw,
    cases_of,
    commit_frame,
    find_draw,
    leave_case,
    put_cases,
    put_nonce,
    put_response,
    supersede,
    superseded,
)
from io_fhir_adapter.ledger.facts import decisions_between, decisions_with, put_decisions
from io_fhir_adapter.ledger.runs import cursor, finish_run, last_run, move_cursor, start_run
from io_fhir_adapter.model import Decision, Finding, Indication, TrailStep

NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)


def commit(ledger: Ledger, digest: str = "sha256:1") -> StoredDraw:
    """Commits to a frame."""
    with ledger.begin() as connection:
        window = ("2025-01-01", "2025-12-31")
        return commit_frame(connection, "iasios", "2025", window, b"{}", digest, 100, NOW)


def cases(number: int) -> list[StoredCase]:
    """So many cases, the last two of them reserves."""
    return [
        StoredCase(
            n, "reserve" if n > number - 2 else "case", f"t{n}", f"Patient/{n}", "2025-01-01", "tace", (f"P/{n}",)
        )
        for n in range(1, number + 1)
    ]


def test_a_frame_is_committed_to_once_and_drawn_with_one_nonce(ledger: Ledger) -> None:
    draw = commit(ledger)
    assert (draw.digest, draw.nonce, draw.committed) == ("sha256:1", "", timestamp(NOW))
    with ledger.begin() as connection:
        assert find_draw(connection, "iasios", "2025") == draw
        assert find_draw(connection, "iasios", "2024") is None
        put_nonce(connection, draw, "aa", "local", NOW)
        put_nonce(connection, draw, "bb", "local", NOW)
        found = find_draw(connection, "iasios", "2025")
    assert found is not None
    assert found.nonce == "aa"
    with pytest.raises(ValueError, match="committed to already"):
        commit(ledger, "sha256:3")


def test_a_superseded_draw_stays_on_record(ledger: Ledger) -> None:
    first = commit(ledger)
    with ledger.begin() as connection:
        put_nonce(connection, first, "aa", "local", NOW)
        supersede(connection, first, "rules-corrected", NOW)
        assert find_draw(connection, "iasios", "2025") is None
    second = commit(ledger, "sha256:2")
    with ledger.begin() as connection:
        assert find_draw(connection, "iasios", "2025") == second
        assert [(old.digest, old.superseded) for old in superseded(connection, "iasios", "2025")] == [
            ("sha256:1", "rules-corrected")
        ]


def test_cases_reserves_and_replacements(ledger: Ledger) -> None:
    draw = commit(ledger)
    with ledger.begin() as connection:
        put_cases(connection, draw, cases(5), NOW)
        assert cases_of(connection, draw.id) == cases(5)[:3]
        assert cases_of(connection, draw.id, "reserve") == cases(5)[3:]
        assert leave_case(connection, draw, cases(5)[1], "not-io", NOW) == 4
        assert [case.number for case in cases_of(connection, draw.id)] == [1, 3, 4]
        assert leave_case(connection, draw, cases(5)[0], "patient-objects", NOW) == 5
        assert leave_case(connection, draw, cases(5)[2], "not-io", NOW) is None
        assert [case.number for case in cases_of(connection, draw.id)] == [4, 5]
        everybody = [(case.number, case.role, case.reason) for case in cases_of(connection, draw.id, None)]
        put_response(connection, draw.id, 4, b"{}", {"1.1": "Procedure/1"}, {"2": "not recorded"})
    left = [(1, "left", "patient-objects"), (2, "left", "not-io"), (3, "left", "not-io")]
    assert everybody == [*left, (4, "case", ""), (5, "case", "")]


def test_the_chain_tells_what_happened_to_a_draw_in_order(ledger: Ledger) -> None:
    draw = commit(ledger)
    with ledger.begin() as connection:
        put_nonce(connection, draw, "aa", "local", NOW)
        put_cases(connection, draw, cases(4), NOW)
        leave_case(connection, draw, cases(4)[0], "duplicate", NOW)
        supersede(connection, draw, "body-asked", NOW)
        found = list(links(connection))
        assert check_chain(connection) == 5
    assert [link.kind for link in found] == ["frame-committed", "nonce", "drawn", "case-left", "draw-superseded"]
    assert found[3].body == {"frame": "sha256:1", "token": "t1", "reason": "duplicate", "follows": "t3"}
    assert "Patient/" not in str([link.body for link in found])


@pytest.mark.parametrize(
    "statement",
    [
        "update chain set body = '{}' where number = 1",
        "delete from chain",
        # PostgreSQL knows no such statement, and refuses it for that
        "insert or replace into chain select number, 'now', kind, body, digest from chain where number = 1",
    ],
)
def test_the_database_refuses_to_change_the_chain(ledger: Ledger, statement: str) -> None:
    commit(ledger)
    with pytest.raises(LedgerError), ledger.begin() as connection:
        connection.exec_driver_sql(statement)
    with ledger.begin() as connection:
        assert check_chain(connection) == 1


def test_a_chain_that_was_changed_all_the_same_is_noticed(ledger: Ledger) -> None:
    draw = commit(ledger)
    with ledger.begin() as connection:
        put_nonce(connection, draw, "aa", "local", NOW)
        trigger = "chain_no_update" if connection.dialect.name == "sqlite" else "chain_only_added_to on chain"
        connection.exec_driver_sql(f"drop trigger {trigger}")
        connection.exec_driver_sql("update chain set at = '2020' where number = 1")
    with pytest.raises(LedgerError, match="link 1"), ledger.begin() as connection:
        check_chain(connection)


def test_runs_end_as_they_ended(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        assert last_run(connection) is None
        first = start_run(connection, NOW)
        finish_run(connection, first, NOW, "complete", {"counted": 3})
        second = start_run(connection, NOW)
        found = last_run(connection)
    assert found is not None
    assert (found.id, found.state, found.finished, found.summary) == (second, "running", None, {})
    assert second > first


def test_a_run_that_never_ended_was_cut_off(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        start_run(connection, NOW)
        found = last_run(connection)
        assert found is not None
        start_run(connection, NOW)
        states = [tuple(row) for row in connection.exec_driver_sql("select state, error from runs order by id")]
    assert states == [("failed", "the run was cut off before it ended"), ("running", "")]


def test_cursors_move_by_source_and_type(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        run = start_run(connection, NOW)
        for value in ("1", "2"):
            move_cursor(connection, "s", "Procedure", value, run)
        move_cursor(connection, "t", "Procedure", "3", run)
        found = [cursor(connection, *key) for key in (("s", "Procedure"), ("t", "Procedure"), ("s", "Patient"))]
    assert found == ["2", "3", ""]


def test_decisions_are_replaced_as_a_whole(ledger: Ledger) -> None:
    finding = Finding("embolisation", "liver", "percutaneous", "none", "main", "expected", "ops", "8-836.ka", "r:1")
    first = Decision(
        "s", "Patient/a", "2025-03-01", "tace", "counted", "counted", ("tace",), (finding,),
        Indication("condition", "icd10", "C22.0"), ("Procedure/1",), (TrailStep("find", "r", "text ü"),),
    )  # fmt: skip
    second = Decision("s", "Patient/a", "2025", "none", "not-counted", "look-alike", procedures=("Procedure/2",))
    undated = Decision("s", "Patient/b", "", "none", "not-counted", "undated")
    with ledger.begin() as connection:
        assert put_decisions(connection, "Patient/a", [first, second])
        assert not put_decisions(connection, "Patient/a", [first, second])
        assert put_decisions(connection, "Patient/b", [undated])
        assert list(decisions_between(connection, "2025-01-01", "2025-12-31")) == [first, second, undated]
        assert list(decisions_between(connection, "2024-01-01", "2024-12-31")) == [undated]
        assert decisions_with(connection, "Patient/a", "Procedure/2") == [second]
        assert put_decisions(connection, "Patient/a", [second])
        assert list(decisions_between(connection, "2025-01-01", "2025-12-31")) == [second, undated]
        assert put_decisions(connection, "Patient/a", [])
