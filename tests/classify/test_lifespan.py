"""What lies before birth or after death is set aside; only what does so for certain."""

from __future__ import annotations

from typing import Any

import pytest

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.lifespan import set_aside
from io_fhir_adapter.ledger.facts import SET_ASIDE_BY_DECIDING
from io_fhir_adapter.model import PatientFact

BEFORE, AFTER = SET_ASIDE_BY_DECIDING


def person(born: str = "", died: str = "", **more: Any) -> PatientFact:
    return PatientFact(more.pop("source", "his"), more.pop("name", "p1"), birth_date=born, deceased=died, **more)


def codes(make: Any, day: str, *people: PatientFact, do: str = "ops:5-501.a3") -> list[str]:
    facts = [make.procedure("1", do, day, "C22.0")]
    good, aside = set_aside("Patient/p1", facts, people, make.ruleset)
    assert len(good) + len(aside) == 1
    return [entry.code for entry in aside]


@pytest.mark.parametrize(
    ("day", "born", "code"),
    [
        ("2025-03-14", "2025-03-16", BEFORE), ("2025-03-15", "2025-03-16", ""), ("2025-03-16", "2025-03-16", ""),
        ("2024", "2025-03-16", BEFORE), ("2025", "2025-03-16", ""), ("2025-02", "2025-03-16", BEFORE),
        ("2025-03", "2025-03-16", ""), ("2024-12-31", "2025", ""), ("2024-12-30", "2025", BEFORE),
        ("2025-03-01", "2025-03", ""), ("2025-02-28", "2025-03", ""), ("2025-02-27", "2025-03", BEFORE),
        ("", "2025-03-16", ""), ("1900-01-01", "", ""),
    ],
)  # fmt: skip
def test_before_birth(make: Any, day: str, born: str, code: str) -> None:
    assert codes(make, day, person(born)) == ([code] if code else [])


@pytest.mark.parametrize(
    ("day", "died", "code"),
    [
        ("2025-03-14", "2025-03-14", ""), ("2025-03-15", "2025-03-14", ""), ("2025-03-16", "2025-03-14", AFTER),
        ("2025-04", "2025-03-14", AFTER), ("2025-03", "2025-03-14", ""), ("2025", "2025-03-14", ""),
        ("2026", "2025-03-14", AFTER), ("2025-03-31", "2025-03", ""), ("2025-04-02", "2025-03", AFTER),
        ("2026-01-02", "2025", AFTER), ("2024-02-29", "2024-02", ""), ("2099-01-01", "unknown", ""),
        ("9999-12-31", "9999", ""),
    ],
)  # fmt: skip
def test_after_death(make: Any, day: str, died: str, code: str) -> None:
    assert codes(make, day, person("1950", died)) == ([code] if code else [])


@pytest.mark.parametrize("died", ["0000", "0001-01-01", "unknown", "1753-01-01"])
def test_a_death_that_stands_for_none_sets_nothing_aside(make: Any, died: str) -> None:
    assert codes(make, "2025-03-14", person(died=died)) == []


def test_the_newest_version_of_a_patient_holds_in_any_order(make: Any) -> None:
    wrong = person("2026-01-01", updated="2025-01-01T10:00:00+02:00")
    right = person("1950-01-01", updated="2025-01-01T09:00:00Z")
    for people in ([wrong, right], [right, wrong]):
        assert codes(make, "2025-03-14", *people) == []


def test_the_procedure_s_own_source_and_the_surviving_record_hold_first(make: Any) -> None:
    assert codes(make, "2025-03-14", person("1950"), person("2030", source="ris")) == []
    assert codes(make, "2025-03-14", person("2030"), person("1950", source="ris")) == [BEFORE]
    assert codes(make, "2025-03-14", person("1950"), person("2030", name="old", replaced_by="Patient/p1")) == []
    assert codes(make, "2025-03-14", person(), person("2030", name="old", replaced_by="Patient/p1")) == [BEFORE]


def test_what_no_row_matches_is_left_alone(make: Any) -> None:
    assert codes(make, "2025-03-14", person("2030"), do="local:X") == []


def test_what_is_set_aside_takes_part_in_no_session(make: Any) -> None:
    early = make.procedure("1", "ops:8-541.6", "1940-01-01", "C22.0")
    child = make.procedure("2", "ops:5-501.a3", stated="C22.0", part_of=("Procedure/1",))
    alone = make.procedure("3", "ops:8-836.ka", "2025-05-01", stated="C22.0")
    found = decide_patient([early, child, alone], [], [], make.ruleset, [person("1950")])
    assert [(d.procedures, d.reason) for d in found] == [
        (("Procedure/2",), "part-of-missing-procedure"),
        (("Procedure/3",), "counted"),
    ]


def test_a_reason_says_no_date(make: Any) -> None:
    facts = [make.procedure("1", "ops:5-501.a3", "1940-01-01")]
    _, (entry,) = set_aside("Patient/p1", facts, [person("1950-02-03")], make.ruleset)
    assert (entry.source, entry.position, entry.resource_type) == ("his", "Procedure/1", "Procedure")
    assert not any(letter.isdigit() for letter in entry.reason)
