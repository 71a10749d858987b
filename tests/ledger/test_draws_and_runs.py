"""Draws, cases, runs, cursors and decisions: written once, found again as they were."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.draws import (
    StoredCase,
    StoredDraw,
    cases_of,
    commit_frame,
    find_draw,
    put_cases,
    put_nonce,
    put_response,
    replace_case,
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


def test_a_frame_can_be_committed_again_until_it_is_drawn_from(ledger: Ledger) -> None:
    commit(ledger)
    draw = commit(ledger, "sha256:2")
    with ledger.begin() as connection:
        assert find_draw(connection, "iasios", "2025") == draw
        assert (draw.digest, draw.nonce, draw.committed) == ("sha256:2", "", timestamp(NOW))
        assert find_draw(connection, "iasios", "2024") is None
        put_nonce(connection, draw.id, "aa", "local")
        put_nonce(connection, draw.id, "bb", "local")
        found = find_draw(connection, "iasios", "2025")
    assert found is not None
    assert found.nonce == "aa"
    with pytest.raises(ValueError, match="drawn already"):
        commit(ledger, "sha256:3")


def test_cases_reserves_and_replacements(ledger: Ledger) -> None:
    draw = commit(ledger)
    with ledger.begin() as connection:
        for _ in range(2):  # a run that died in between writes them once more
            put_cases(connection, draw.id, cases(5))
        assert cases_of(connection, draw.id) == cases(5)[:3]
        assert cases_of(connection, draw.id, "reserve") == cases(5)[3:]
        assert replace_case(connection, draw.id, 2) == 4
        assert [case.number for case in cases_of(connection, draw.id)] == [1, 3, 4]
        assert replace_case(connection, draw.id, 1) == 5
        assert replace_case(connection, draw.id, 3) is None
        assert [case.number for case in cases_of(connection, draw.id)] == [4, 5]
        put_response(connection, draw.id, 4, b"{}", {"1.1": "Procedure/1"}, {"2": "not recorded"})


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
