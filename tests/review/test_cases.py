"""Which decision and which Procedures a drawn case stands on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.draws import StoredCase, commit_frame, put_cases
from io_fhir_adapter.ledger.facts import put_decisions
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import Decision, ProcedureFact
from io_fhir_adapter.review.cases import CaseNeeds, lookups_of, needs_of
from io_fhir_adapter.review.forms import load_questionnaire

NOW = datetime(2026, 1, 30, tzinfo=UTC)
DAY = "2025-05-06"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
    yield opened
    opened.close()


def fact(name: str, status: str = "completed") -> ProcedureFact:
    return ProcedureFact(source="s", id=name, patient="Patient/1", status=status, day=DAY)


def decision(category: str = "tace", kind: Any = "counted", day: str = DAY, *names: str) -> Decision:
    procedures = tuple(f"Procedure/{name}" for name in names or ("a", "b"))
    return Decision("s", "Patient/1", day, category, kind, kind, procedures=procedures)


def needs(ledger: Ledger, decisions: list[Decision], *facts: ProcedureFact) -> list[CaseNeeds]:
    with ledger.begin() as connection:
        run = start_run(connection, NOW)
        put_facts(connection, [StoredFact(one, mapped=True) for one in facts], run)
        put_decisions(connection, "Patient/1", decisions)
        draw = commit_frame(connection, "iasios", "2025", ("2025-01-01", "2025-12-31"), b"{}", "d", 1, NOW)
        case = StoredCase(1, "case", "t" * 64, "Patient/1", DAY, "tace", ("Procedure/a", "Procedure/b"))
        put_cases(connection, draw, [case], NOW)
        return needs_of(connection, draw, NOW)


def read(found: list[CaseNeeds]) -> set[str]:
    (one,) = found
    return {name for name in one.references if name.startswith("Procedure/")}


def test_completed_procedures_are_read_and_erroneous_ones_are_not(ledger: Ledger) -> None:
    found = needs(ledger, [decision()], fact("a"), fact("b", "entered-in-error"))
    assert read(found) == {"Procedure/a"}


def test_what_a_programme_takes_for_done_is_read_where_nothing_was_completed(ledger: Ledger) -> None:
    found = needs(ledger, [decision()], fact("a", "in-progress"), fact("b", "not-done"))
    assert read(found) == {"Procedure/a"}


def test_beside_a_completed_one_nothing_unfinished_is_read(ledger: Ledger) -> None:
    assert read(needs(ledger, [decision()], fact("a"), fact("b", "in-progress"))) == {"Procedure/a"}


def test_the_decision_is_the_one_on_the_cases_own_category(ledger: Ledger) -> None:
    (found,) = needs(ledger, [decision("ablation-mwa"), decision("tace")], fact("a"))
    assert found.decision.category == "tace"


def test_where_each_category_counts_another_ones_decision_is_not_the_cases(ledger: Ledger) -> None:
    assert needs(ledger, [decision("ablation-mwa"), decision("tace", "not-counted")], fact("a")) == []


def test_a_corrected_category_keeps_its_case(ledger: Ledger) -> None:
    (found,) = needs(ledger, [decision("deb-tace")], fact("a"))
    assert found.decision.category == "deb-tace"


def test_earlier_sessions_that_count_are_known(ledger: Ledger) -> None:
    before = [decision("tare", "counted", "2025-01-02", "x"), decision("tace", "review", "2025-02-02", "y")]
    (found,) = needs(ledger, [*before, decision()], fact("a"))
    assert found.earlier == (("2025-01-02", "tare"),)


def test_a_case_is_searched_for_under_all_its_records(ledger: Ledger) -> None:
    (found,) = needs(ledger, [decision()], fact("a"))
    lookups = lookups_of(found, load_questionnaire())
    assert {lookup.patients for lookup in lookups} == {("Patient/1",)}
    assert all(not lookup.last or lookup.last >= DAY for lookup in lookups)
