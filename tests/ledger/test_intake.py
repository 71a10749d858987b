"""Facts on their way in: replaced, never doubled, in whatever order and portions they come."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.facts import (
    FACT_TYPES,
    Fact,
    all_patients,
    decode_fact,
    every_procedure,
    facts_of,
    mapped_encounters,
    mapped_patients,
    put_decisions,
    quarantine_reasons,
    quarantined,
    referenced,
)
from io_fhir_adapter.ledger.intake import (
    Stored,
    StoredFact,
    drop_facts,
    drop_quarantined,
    forget_quarantined,
    put_facts,
    put_quarantined,
    stale_patients,
)
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import (
    Code,
    ConditionFact,
    Decision,
    EncounterFact,
    Mention,
    PatientFact,
    ProcedureFact,
    Quarantined,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def procedure(name: str = "p", patient: str = "Patient/a", **more: Any) -> ProcedureFact:
    """A Procedure's fact."""
    return ProcedureFact(**{"source": "s", "id": name, "patient": patient, "status": "completed", "day": "2025"} | more)


def put(ledger: Ledger, *facts: Fact, mapped: bool = True, newest_wins: bool = False) -> Stored:
    """Writes facts in a run of their own."""
    with ledger.begin() as connection:
        run = start_run(connection, NOW)
        items = [StoredFact(fact, mapped, mapped) for fact in facts]
        return put_facts(connection, items, run, newest_wins=newest_wins)


def stale(ledger: Ledger) -> set[str]:
    """Patients to decide on, who are decided on with that."""
    with ledger.begin() as connection:
        found = stale_patients(connection)
        for patient in found:
            put_decisions(connection, patient, [])
        assert stale_patients(connection) == set()
    return found


def everything(ledger: Ledger) -> list[ProcedureFact]:
    """All Procedures."""
    with ledger.read() as connection:
        return list(every_procedure(connection))


@pytest.mark.parametrize("kind", FACT_TYPES.values())
def test_a_fact_stored_before_its_last_fields_were_kept_is_read(kind: type[Any]) -> None:
    assert kind.__struct_config__.array_like
    before = ["x"] * (len(kind.__struct_fields__) - len(kind.__struct_defaults__))
    found = decode_fact(kind.__name__.removesuffix("Fact"), msgspec.msgpack.encode(before))
    assert found == kind(*before)


def test_new_changed_and_unchanged(ledger: Ledger) -> None:
    assert put(ledger, procedure("p"), procedure("q")) == Stored(new=2)
    assert put(ledger, procedure("p"), procedure("q", status="stopped"), procedure("r")) == Stored(1, 1, 1)
    assert [(fact.id, fact.status) for fact in everything(ledger)] == [
        ("p", "completed"), ("q", "stopped"), ("r", "completed"),
    ]  # fmt: skip


def test_where_a_procedure_belongs_is_a_change(ledger: Ledger) -> None:
    put(ledger, procedure(mentions=(Mention("location", "Location/1"),)))
    assert put(ledger, procedure(mentions=(Mention("location", "Location/1"),))) == Stored(unchanged=1)
    assert put(ledger, procedure(mentions=(Mention("location", "Location/2"),))) == Stored(changed=1)


def test_a_later_timestamp_alone_is_no_change(ledger: Ledger) -> None:
    put(ledger, procedure(updated="2025-01-01T00:00:00Z"))
    assert put(ledger, procedure(updated="2025-01-02T00:00:00.000Z")) == Stored(unchanged=1)


def test_of_several_with_one_id_the_last_is_taken(ledger: Ledger) -> None:
    assert put(ledger, procedure(status="stopped"), procedure(status="not-done")) == Stored(new=1)
    assert [fact.status for fact in everything(ledger)] == ["not-done"]


def test_sources_do_not_mix(ledger: Ledger) -> None:
    assert put(ledger, procedure(source="s"), procedure(source="t")) == Stored(new=2)
    assert put(ledger, procedure(source="t", status="stopped")) == Stored(changed=1)
    assert [(fact.source, fact.status) for fact in everything(ledger)] == [("s", "completed"), ("t", "stopped")]
    with ledger.read() as connection:
        assert referenced(connection, "t", "Procedure") == {"p"}
        assert mapped_patients(connection, "t") == ["Patient/a"]


@pytest.mark.parametrize("before", ["2025-01-01T00:00:00Z", "2025-01-01T01:00:00+02:00"])
def test_files_keep_the_newest_version(ledger: Ledger, before: str) -> None:
    new, old = procedure(status="stopped", updated="2025-01-02T00:00:00Z"), procedure(updated=before)
    assert put(ledger, new, old, newest_wins=True) == Stored(new=1)
    assert put(ledger, old, newest_wins=True) == Stored(unchanged=1)
    assert [fact.status for fact in everything(ledger)] == ["stopped"]
    assert put(ledger, procedure(status="not-done"), newest_wins=True) == Stored(changed=1)  # says no time


def test_a_later_time_of_the_same_version_counts_against_older_ones(ledger: Ledger) -> None:
    put(ledger, procedure(updated="2025-01-01T00:00:00Z"), newest_wins=True)
    stale(ledger)
    assert put(ledger, procedure(updated="2025-01-03T00:00:00Z"), newest_wins=True) == Stored(unchanged=1)
    assert stale(ledger) == set()
    older = procedure(status="stopped", updated="2025-01-02T00:00:00Z")
    assert put(ledger, older, newest_wins=True) == Stored(unchanged=1)
    assert [fact.status for fact in everything(ledger)] == ["completed"]


def test_whose_decisions_become_stale(ledger: Ledger) -> None:
    put(ledger, procedure("p"), procedure("q", "Patient/b"))
    put(ledger, procedure("u", "Patient/u"), mapped=False)
    assert stale(ledger) == {"Patient/a", "Patient/b"}
    put(ledger, procedure("p"))
    assert stale(ledger) == set()
    put(ledger, procedure("p", "Patient/c"))
    assert stale(ledger) == {"Patient/a", "Patient/c"}
    put(ledger, procedure("u", "Patient/u", status="stopped"), mapped=False)
    assert stale(ledger) == set()
    put(ledger, procedure("u", "Patient/u", status="stopped"))  # the tables have a row now
    assert stale(ledger) == {"Patient/u"}
    put(ledger, procedure("u", "Patient/u", status="stopped"), mapped=False)
    assert stale(ledger) == {"Patient/u"}
    put(ledger, ConditionFact("s", "c", "Patient/a"))
    put(ledger, EncounterFact("s", "e", "Patient/b"))
    assert stale(ledger) == {"Patient/a", "Patient/b"}


def test_merging_and_parting_concern_both_records(ledger: Ledger) -> None:
    put(ledger, PatientFact("s", "old"))
    stale(ledger)
    put(ledger, PatientFact("s", "old", replaced_by="Patient/kept"))
    assert stale(ledger) == {"Patient/old", "Patient/kept"}
    put(ledger, PatientFact("s", "old", replaced_by="Patient/other"))
    assert stale(ledger) == {"Patient/old", "Patient/kept", "Patient/other"}
    put(ledger, PatientFact("s", "old"))
    assert stale(ledger) == {"Patient/old", "Patient/other"}


def test_dropped_facts_leave_their_patients_stale(ledger: Ledger) -> None:
    put(ledger, procedure("p"), procedure("q", "Patient/b"))
    put(ledger, procedure("u", "Patient/u"), mapped=False)
    put(ledger, PatientFact("s", "old", replaced_by="Patient/kept"))
    stale(ledger)
    with ledger.begin() as connection:
        drop_facts(connection, "s", "Procedure", ["p", "u", "unknown"])
        drop_facts(connection, "s", "Patient", ["old"])
        drop_facts(connection, "other", "Procedure", ["q"])
        drop_facts(connection, "s", "Procedure", [])
    assert [fact.id for fact in everything(ledger)] == ["q"]
    assert stale(ledger) == {"Patient/a", "Patient/old", "Patient/kept"}


def test_everyone_to_decide_on(ledger: Ledger) -> None:
    put(ledger, procedure("p", "Patient/old"), procedure("q", "Patient/b"))
    put(ledger, procedure("u", "Patient/u"), mapped=False)
    put(ledger, PatientFact("s", "old", replaced_by="Patient/kept"))
    stale(ledger)
    decision = Decision("s", "Patient/gone", "2025-01-01", "tace", "counted", "counted")
    with ledger.begin() as connection:
        put_decisions(connection, "Patient/gone", [decision])
        assert all_patients(connection) == ["Patient/b", "Patient/gone", "Patient/kept"]


def test_what_mapped_procedures_name(ledger: Ledger) -> None:
    put(ledger, procedure("p", encounter="Encounter/1"), procedure("q"), procedure("r", encounter="Encounter/1"))
    put(ledger, procedure("u", encounter="Encounter/2"), mapped=False)
    with ledger.read() as connection:
        assert mapped_encounters(connection, "s") == {"Encounter/1"}
        assert mapped_encounters(connection, "t") == set()
        assert [fact.id for fact in facts_of(connection, "Patient/a", mapped_only=True).procedures] == ["p", "q", "r"]
        assert len(facts_of(connection, "Patient/a").procedures) == 4


def test_quarantine_comes_and_goes(ledger: Ledger) -> None:
    items = [Quarantined("s", f"Procedure/{number}", "Procedure", "broken", "IOA-RES-010") for number in range(3)]
    with ledger.begin() as connection:
        first = start_run(connection, NOW)
        put_quarantined(connection, [*items, items[0]], first)
        drop_quarantined(connection, "s", "Procedure", ["Procedure/1", "Procedure/9"])
        drop_quarantined(connection, "s", "Condition", ["Procedure/0"])
        assert quarantined(connection) == [items[0], items[2]]
        assert quarantine_reasons(connection) == {("Procedure", "broken"): 2}
        second = start_run(connection, NOW)
        put_quarantined(connection, [msgspec.structs.replace(items[2], reason="still broken")], second)
        forget_quarantined(connection, "t", second)
        assert len(quarantined(connection)) == 2
        forget_quarantined(connection, "s", second)
        assert [item.reason for item in quarantined(connection)] == ["still broken"]


# --- in any portions, any order, any number of times ---------------------------------------------------------------

_CODES = st.lists(st.builds(Code, st.text(max_size=4), st.text(max_size=4)), max_size=2).map(tuple)
_FACT = st.builds(
    ProcedureFact, source=st.sampled_from("st"), id=st.sampled_from("pqrü'"),
    patient=st.sampled_from(["Patient/a", "Patient/b"]), status=st.sampled_from(["completed", "stopped"]),
    day=st.sampled_from(["", "2025", "2025-03-01"]), codes=_CODES,
)  # fmt: skip


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[StoredFact], list[list[StoredFact]]]:
    """Versions of facts, each with its own time, and a way to hand them over: shuffled, repeated, in portions."""
    facts = draw(st.lists(_FACT, max_size=12))
    items = [
        StoredFact(msgspec.structs.replace(fact, updated=f"2025-01-01T00:{number:02}:00Z"), mapped, mapped)
        for number, (fact, mapped) in enumerate(
            zip(facts, draw(st.lists(st.booleans(), min_size=len(facts), max_size=len(facts))), strict=True)
        )
    ]
    repeated = items + (draw(st.lists(st.sampled_from(items), max_size=8)) if items else [])
    shuffled = draw(st.permutations(repeated))
    portions: list[list[StoredFact]] = []
    while shuffled:
        size = draw(st.integers(1, len(shuffled)))
        portions.append(list(shuffled[:size]))
        shuffled = shuffled[size:]
    return items, portions


def _content(portions: Sequence[Sequence[StoredFact]], *, newest_wins: bool) -> tuple[list[Any], set[str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        path.write_bytes(_empty())
        ledger = open_ledger(LedgerConfig(path=path))
        for portion in portions:
            with ledger.begin() as connection:
                put_facts(connection, portion, 1, newest_wins=newest_wins)
        with ledger.read() as connection:
            marked = stale_patients(connection)
        ledger.close()
        connection_ = sqlite3.connect(path)
        rows = connection_.execute("select * from facts order by source, resource_type, id").fetchall()
        connection_.close()
        return rows, marked


_EMPTY: list[bytes] = []


def _empty() -> bytes:
    """An empty ledger with one run."""
    if not _EMPTY:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.sqlite"
            ledger = open_ledger(LedgerConfig(path=path))
            with ledger.begin() as connection:
                start_run(connection, NOW)
            ledger.close()
            _EMPTY.append(path.read_bytes())
    return _EMPTY[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_histories())
def test_files_in_any_order_give_the_same_ledger(history: tuple[list[StoredFact], list[list[StoredFact]]]) -> None:
    items, portions = history
    assert _content(portions, newest_wins=True)[0] == _content([items], newest_wins=True)[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_histories())
def test_pages_in_any_portions_give_the_same_ledger(history: tuple[list[StoredFact], list[list[StoredFact]]]) -> None:
    _, portions = history
    in_order = [item for portion in portions for item in portion]
    rows, marked = _content(portions, newest_wins=False)
    whole, marked_whole = _content([in_order], newest_wins=False)
    # a version that differs in nothing but its time is not written, so the time may be an earlier one
    assert [row[:-2] for row in rows] == [row[:-2] for row in whole]
    assert marked >= marked_whole
    twice, _ = _content([*portions, in_order], newest_wins=False)
    assert [row[:-2] for row in twice] == [row[:-2] for row in whole]
