"""Which decision and which Procedures a drawn case stands on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import StoredCase, cases_of, commit_frame, put_cases
from io_fhir_adapter.ledger.facts import put_decisions
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import Decision, PatientFact, ProcedureFact
from io_fhir_adapter.review.cases import CaseNeeds, PreparedCase, lookups_of, needs_of, prepare_case
from io_fhir_adapter.review.forms import load_questionnaire
from io_fhir_adapter.review.profile import load_profile

NOW = datetime(2026, 1, 30, tzinfo=UTC)
DAY = "2025-05-06"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = new_ledger(tmp_path / "ledger.sqlite")
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


def merged_with_the_second(ledger: Ledger, *drawn: StoredCase) -> tuple[list[CaseNeeds], dict[int, str]]:
    """Cases whose sessions the person ``Patient/2`` has now, since ``Patient/1`` was merged into it after the draw."""
    with ledger.begin() as connection:
        run = start_run(connection, NOW)
        put_facts(connection, [StoredFact(fact(name), mapped=True) for name in ("a", "z")], run)
        people = [PatientFact(source="s", id="1", replaced_by="Patient/2"), PatientFact(source="s", id="2")]
        put_facts(connection, [StoredFact(one, mapped=True) for one in people], run)
        sessions = [
            Decision("s", "Patient/2", DAY, "tace", "counted", "counted", procedures=(f"Procedure/{name}",))
            for name in ("a", "z")
        ]
        put_decisions(connection, "Patient/2", sessions)
        draw = commit_frame(connection, "iasios", "2025", ("2025-01-01", "2025-12-31"), b"{}", "d", 1, NOW)
        put_cases(connection, draw, drawn, NOW)
        found = needs_of(connection, draw, NOW)
        return found, {case.number: case.reason or case.role for case in cases_of(connection, draw.id, None)}


def test_a_case_whose_record_was_merged_after_the_draw_stays_and_is_read_under_both_records(ledger: Ledger) -> None:
    drawn = StoredCase(1, "case", "t" * 64, "Patient/1", DAY, "tace", ("Procedure/a",))
    (found,), roles = merged_with_the_second(ledger, drawn)
    assert roles == {1: "case"}
    assert (found.case.token, found.decision.patient) == ("t" * 64, "Patient/2")
    assert found.merged == {"Patient/2"}
    assert {"Patient/1", "Patient/2", "Procedure/a"} <= found.references


def test_who_was_drawn_twice_under_two_records_leaves_once_as_a_duplicate(ledger: Ledger) -> None:
    drawn = [
        StoredCase(1, "case", "t" * 64, "Patient/2", DAY, "tace", ("Procedure/z",)),
        StoredCase(2, "reserve", "u" * 64, "Patient/1", DAY, "tace", ("Procedure/a",)),
        StoredCase(3, "case", "v" * 64, "Patient/1", DAY, "tace", ("Procedure/a",)),
    ]
    found, roles = merged_with_the_second(ledger, *drawn)
    assert [one.case.number for one in found] == [1]
    assert roles == {1: "case", 2: "duplicate", 3: "duplicate"}


def patient(name: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, "gender": "female", "birthDate": "1950-01-01", **more}


@pytest.mark.parametrize(
    ("drawn", "others", "records"),
    [
        ("Patient/7@archive", (), {"Patient/7@archive": patient("7")}),
        ("Patient/1", ("Patient/7@archive",), {"Patient/7@archive": patient("7")}),
        ("Patient/1", ("Patient/2",), {"Patient/2": patient("2")}),
        (
            "Patient/1",
            ("Patient/2",),
            {"Patient/1": {"resourceType": "Patient", "id": "1", "link": [{"type": "replaced-by"}]},
             "Patient/2": patient("2")},
        ),
    ],
)  # fmt: skip
def test_a_person_of_another_source_or_a_merged_record_leaves_as_the_case(
    drawn: str, others: tuple[str, ...], records: dict[str, Any]
) -> None:
    told = next(iter(reversed(records.values())))["id"]
    procedure = {
        "resourceType": "Procedure", "id": "a", "status": "completed", "performedDateTime": DAY,
        "subject": {"reference": f"Patient/{told}"},
    }  # fmt: skip
    case = StoredCase(1, "case", "ab" * 32, drawn, DAY, "tace", ("Procedure/a",))
    wanted = CaseNeeds(case, decision(), frozenset({drawn, *others, "Procedure/a"}), frozenset(others))
    made = prepare_case(
        wanted, {**records, "Procedure/a": procedure}, load_questionnaire(), load_profile(),
        key=b"k" * 32, nonce="cd" * 32, zone=UTC,
    )  # fmt: skip
    assert (made.patient["id"], made.patient["gender"], len(made.procedures), made.refused) == (
        "ab" * 32, "female", 1, (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("drawn", "subject"),
    [
        ("Group/1", {"reference": "Group/1"}),
        ("patient/1", {"reference": "patient/1"}),
        ("persons/4711", {"reference": "https://mpi.example/persons/4711"}),
        ("Patient?identifier=urn:x|12/", {"identifier": {"system": "urn:x", "value": "12/"}}),
    ],
)
def test_whoever_has_no_record_of_a_patient_leaves_without_one(drawn: str, subject: dict[str, Any]) -> None:
    procedure = {
        "resourceType": "Procedure", "id": "a", "status": "completed", "performedDateTime": DAY, "subject": subject,
    }  # fmt: skip
    case = StoredCase(1, "case", "ab" * 32, drawn, DAY, "tace", ("Procedure/a",))
    made = prepare_case(
        CaseNeeds(case, decision(), frozenset({drawn, "Procedure/a"})), {"Procedure/a": procedure},
        load_questionnaire(), load_profile(), key=b"k" * 32, nonce="cd" * 32, zone=UTC,
    )  # fmt: skip
    assert (made.patient["id"], len(made.procedures), made.refused) == ("ab" * 32, 1, ())
    assert "4711" not in repr(made.patient) + repr(made.procedures)


UNKNOWN = {"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]}


def test_what_carries_a_modifier_neither_leaves_nor_answers(ledger: Ledger) -> None:
    form, profile = load_questionnaire(), load_profile()
    case = StoredCase(1, "case", "ab" * 32, "Patient/1", DAY, "tace", ("Procedure/a",))
    wanted = CaseNeeds(case, decision(), frozenset({"Patient/1", "Procedure/a", "Encounter/e"}))
    about = {"subject": {"reference": "Patient/1"}}
    procedure = {"resourceType": "Procedure", "id": "a", "status": "completed", "performedDateTime": DAY, **about}
    stay = {
        "resourceType": "Encounter", "id": "e", "status": "finished", **about,
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "period": {"start": DAY, "end": DAY},
    }  # fmt: skip
    score = {
        "resourceType": "Observation", "id": "o", "status": "final", "effectiveDateTime": DAY, **about,
        "code": {"coding": [{"system": "http://loinc.org", "code": "89247-1"}]}, "valueInteger": 1,
    }  # fmt: skip

    def made(**modified: Any) -> PreparedCase:
        records = {"Patient/1": patient("1"), "Procedure/a": procedure, "Encounter/e": stay, "Observation/o": score}
        records = {name: {**one, **modified.get(one["resourceType"], {})} for name, one in records.items()}
        (asked,) = [one for one in lookups_of(wanted, form) if one.resource_type == "Observation"]
        around = {asked: [records.pop("Observation/o")]}
        return prepare_case(
            wanted, records, form, profile, key=b"k" * 32, nonce="cd" * 32, zone=UTC, around=around,
        )  # fmt: skip

    plain = made()
    assert {"case.sex", "proc.setting"} <= plain.sources.keys()
    assert "Observation/o" in plain.sources.values()
    nested = {"component": [{"valueQuantity": {"value": 1, "extension": [{"url": "x", **UNKNOWN}]}}]}
    observed = made(Observation=nested)
    assert "Observation/o" not in observed.sources.values()
    assert observed.dropped["Observation.modifierExtension"] == 1
    stayed = made(Encounter=UNKNOWN)
    assert (stayed.encounters, len(stayed.refused)) == ((), 1)
    assert "Encounter/e" not in stayed.sources.values()
    for wrong in ({"subject": {"reference": "Patient/9"}}, {"status": "entered-in-error"}):
        others = made(Encounter=wrong)
        assert (others.encounters, len(others.refused)) == ((), 1)
        assert "Encounter/e" not in others.sources.values()
        assert "proc.setting" not in others.sources
    person = made(Patient=UNKNOWN)
    assert person.patient.keys() == {"resourceType", "id", "identifier"}
    assert len(person.refused) == len(person.procedures) == 1
    assert "case.sex" not in person.sources
