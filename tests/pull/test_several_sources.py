"""Several servers of one facility: who is the same person, what is the same session, and what happens to each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.classify.redecide import redecide
from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.facts import decisions_between
from io_fhir_adapter.ledger.identities import identities_of, person_links
from io_fhir_adapter.ledger.runs import cursor, start_run
from io_fhir_adapter.model import Decision
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.sources import fetch_resources, pull_sources
from io_fhir_adapter.sandbox.faults import Faults

Make = Callable[..., Any]
MRN, OTHER = "urn:mrn", "urn:other"


class Hospital:
    """Two servers, one ledger."""

    def __init__(self, clinic: Any, archive: Any, folder: Path, systems: tuple[str, ...], rules: Any) -> None:
        self.servers = {"clinic": clinic, "archive": archive}
        self.config = Config.model_validate(
            {
                "facility": {"code": "F", "patient_identifier_systems": systems},
                "sources": [
                    {"name": name, "kind": "fhir", "url": f"{server.url}/fhir", "retries": 0, "max_retry_wait_s": 0}
                    for name, server in self.servers.items()
                ],
                "ledger": {"path": folder / "both.sqlite"},
            }
        )
        self.rules = rules
        self.ledger: Ledger = open_ledger(self.config.ledger)

    def night(self) -> tuple[list[SourceOutcome], list[Decision]]:
        """One night: pull both, decide."""
        with self.ledger.begin() as connection:
            run = start_run(connection, datetime.now(UTC))
        nobody = lambda *_: None  # noqa: E731
        outcomes = asyncio.run(pull_sources(self.config, self.ledger, self.rules, run, nobody))
        redecide(self.ledger, self.rules, outcomes[0].touched, run, nobody)
        with self.ledger.read() as connection:
            return outcomes, list(decisions_between(connection, "2025-01-01", "2025-12-31"))

    def links(self) -> dict[str, str]:
        """Records and the one that stands for their person."""
        with self.ledger.read() as connection:
            return dict(person_links(connection))


@pytest.fixture
def make_hospital(make_site: Make, kit: Any, tmp_path: Path) -> Any:
    made: list[Hospital] = []

    def make(clinic: list[Any], archive: list[Any], *systems: str) -> Hospital:
        hospital = Hospital(make_site(clinic, own=True), make_site(archive, own=True), tmp_path, systems, kit.ruleset)
        made.append(hospital)
        return hospital

    yield make
    for hospital in made:
        hospital.ledger.close()


def numbered(kit: Any, name: str, number: str, **more: Any) -> dict[str, Any]:
    """A patient with a hospital number, and another identifier that says nothing."""
    identifiers = [{"system": MRN, "value": number}, {"system": OTHER, "value": "same"}]
    made: dict[str, Any] = kit.person(name, identifier=identifiers, **more)
    return made


def done(kit: Any, name: str, patient: str, day: str, system: str) -> dict[str, Any]:
    """A microwave ablation as one system recorded it."""
    meta = {"lastUpdated": kit.then, "source": f"urn:{system}"}
    made: dict[str, Any] = kit.procedure(name, patient, "5-501.a3", performedDateTime=day, meta=meta)
    return made


def test_one_person_in_two_servers_is_counted_once(make_hospital: Any, kit: Any) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1"), kit.condition("c", "1")],
        [done(kit, "p", "77", "2025-03-02", "ris"), numbered(kit, "77", " M1 ")],
        MRN,
    )
    outcomes, decisions = hospital.night()
    assert [outcome.error for outcome in outcomes] == ["", ""]
    assert hospital.links() == {"Patient/77@archive": "Patient/1"}
    assert [(one.patient, one.decision, one.source) for one in decisions] == [("Patient/1", "counted", "clinic")]


def test_the_same_id_in_two_servers_is_two_people(make_hospital: Any, kit: Any) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1"), kit.condition("c", "1")],
        [done(kit, "p", "1", "2025-03-01", "ris"), numbered(kit, "1", "M2"), kit.condition("c", "1")],
        MRN,
    )
    _, decisions = hospital.night()
    assert hospital.links() == {}
    assert [(one.patient, one.decision) for one in decisions] == [
        ("Patient/1", "counted"), ("Patient/1@archive", "counted"),
    ]  # fmt: skip
    wanted = {"archive": ["Patient/1@archive", "Procedure/p", "Patient/1"], "clinic": ["Patient/1@archive"]}
    found = asyncio.run(fetch_resources(hospital.config, wanted))
    assert {name: resource["identifier"][0]["value"] for name, resource in found.items() if "Patient" in name[1]} == {
        ("archive", "Patient/1@archive"): "M2"
    }
    assert ("archive", "Procedure/p") in found


def test_a_number_that_is_corrected_parts_them_again(make_hospital: Any, kit: Any) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1"), kit.condition("c", "1")],
        [done(kit, "q", "7", "2025-03-01", "ris"), numbered(kit, "7", "M1"), kit.condition("c", "7")],
        MRN,
    )
    assert len(hospital.night()[1]) == 1
    hospital.servers["archive"].store.put(numbered(kit, "7", "M9", meta={}))
    _, decisions = hospital.night()
    assert [(one.patient, one.procedures) for one in decisions] == [
        ("Patient/1", ("Procedure/p",)), ("Patient/7@archive", ("Procedure/q",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("clinic", "archive"),
    [({"birthDate": "1950-01-01"}, {"birthDate": "1980-01-01"}), ({"birthDate": "1950"}, {"birthDate": "1951-01-01"})],
)
def test_records_that_contradict_each_other_stay_apart(
    make_hospital: Any, kit: Any, clinic: dict[str, Any], archive: dict[str, Any]
) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1", **clinic)],
        [done(kit, "q", "7", "2025-03-01", "ris"), numbered(kit, "7", "M1", **archive)],
        MRN,
    )
    hospital.night()
    assert hospital.links() == {}


def test_records_of_a_source_that_is_not_configured_any_more_are_told(make_hospital: Any, kit: Any) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1")],
        [done(kit, "q", "7", "2025-04-01", "ris"), numbered(kit, "7", "M7")],
    )
    assert not any("not configured" in note for outcome in hospital.night()[0] for note in outcome.notes)
    hospital.config = hospital.config.model_copy(update={"sources": hospital.config.sources[:1]})
    notes = [note for outcome in hospital.night()[0] for note in outcome.notes]
    assert "the ledger holds records of a source that is not configured (archive); they go on counting" in notes


def counted(decisions: list[Decision]) -> list[str]:
    """The Procedures that decisions rest on, each as often as it is in one."""
    return sorted(name for one in decisions for name in one.procedures)


@pytest.mark.parametrize("corrected", ["clinic", "archive", "third"])
def test_who_comes_apart_or_together_is_decided_on_once(make_hospital: Any, kit: Any, corrected: str) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1", birthDate="1950-05-05")],
        [
            done(kit, "q", "7", "2025-04-01", "ris"), numbered(kit, "7", "M1", birthDate="1950"),
            done(kit, "r", "8", "2025-05-01", "ris"), numbered(kit, "8", "M2"),
        ],
        MRN,
    )  # fmt: skip
    everything = ["Procedure/p", "Procedure/q", "Procedure/r"]
    assert counted(hospital.night()[1]) == everything
    later = {
        "clinic": ("clinic", numbered(kit, "1", "M1", birthDate="1960-05-05", meta={})),
        "archive": ("archive", numbered(kit, "7", "M1", birthDate="1970", meta={})),
        "third": ("archive", numbered(kit, "8", "M1", birthDate="1950-06", meta={})),
    }
    server, record = later[corrected]
    hospital.servers[server].store.put(record)
    assert counted(hospital.night()[1]) == everything
    assert counted(hospital.night()[1]) == everything


@pytest.mark.parametrize(
    ("births", "persons"),
    [
        (("1950", "1951", "1951"), [{"a"}, {"b@archive", "c@archive"}]),  # the second goes with the third
        (("", "1950", "1960"), [{"a", "b@archive"}, {"c@archive"}]),  # the first would go with either
        (("1950", "", "1950-02-01"), [{"a", "b@archive", "c@archive"}]),
        (("1950-01", "1950", "1950-02"), [{"a", "b@archive"}, {"c@archive"}]),
    ],
)
def test_of_several_records_with_one_number_those_are_one_that_agree(
    make_hospital: Any, kit: Any, births: tuple[str, ...], persons: list[set[str]]
) -> None:
    known = [{"birthDate": birth} if birth else {} for birth in births]
    records = [numbered(kit, name, "M1", **more) for name, more in zip("abc", known, strict=True)]
    sessions = [done(kit, f"p{name}", name, "2025-03-01", "his") for name in "abc"]
    hospital = make_hospital([sessions[0], records[0]], [*sessions[1:], *records[1:]], MRN)
    _, decisions = hospital.night()
    links = hospital.links()
    found: dict[str, set[str]] = {}
    for name in ("a", "b@archive", "c@archive"):
        found.setdefault(links.get(f"Patient/{name}", f"Patient/{name}"), set()).add(name)
    assert sorted(found.values(), key=sorted) == persons
    assert len({one.patient for one in decisions}) == len(persons)


def test_a_placeholder_is_no_identifier(make_hospital: Any, kit: Any) -> None:
    clinic = [done(kit, f"p{name}", name, "2025-03-01", "his") for name in "abcd"]
    clinic += [numbered(kit, name, "UNKNOWN") for name in "abcd"]
    hospital = make_hospital(clinic, [done(kit, "q", "z", "2025-03-01", "ris"), numbered(kit, "z", "UNKNOWN")], MRN)
    hospital.night()
    assert hospital.links() == {}


def test_no_number_is_kept(make_hospital: Any, kit: Any) -> None:
    number = "M-4711-0815"
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", number)],
        [done(kit, "q", "7", "2025-03-01", "ris"), numbered(kit, "7", number)],
        MRN,
    )
    hospital.night()
    assert len(hospital.links()) == 1
    hospital.ledger.close()
    assert not [
        path for path in hospital.config.ledger.path.parent.glob("both*") if number.encode() in path.read_bytes()
    ]


def test_without_identifier_systems_the_same_reference_is_the_same_person(make_hospital: Any, kit: Any) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1"), kit.condition("c", "1")],
        [done(kit, "q", "1", "2025-03-01", "ris"), numbered(kit, "1", "M1")],
    )
    _, decisions = hospital.night()
    assert [one.patient for one in decisions] == ["Patient/1"]
    with hospital.ledger.read() as connection:
        assert identities_of(connection).systems == ()


def test_naming_a_system_later_reads_everyone_again(make_hospital: Any, kit: Any) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1"), kit.condition("c", "1")],
        [done(kit, "q", "7", "2025-03-01", "ris"), numbered(kit, "7", "M1"), kit.condition("c", "7")],
    )
    assert len(hospital.night()[1]) == 2
    facility = hospital.config.facility.model_copy(update={"patient_identifier_systems": (MRN,)})
    hospital.config = hospital.config.model_copy(update={"facility": facility})
    outcomes, decisions = hospital.night()
    assert [outcome.since for outcome in outcomes] == ["", ""]
    assert [one.patient for one in decisions] == ["Patient/1"]
    assert all(outcome.since for outcome in hospital.night()[0])


def test_each_source_has_its_own_cursor_and_its_own_failures(make_hospital: Any, kit: Any) -> None:
    hospital = make_hospital(
        [done(kit, "p", "1", "2025-03-01", "his"), numbered(kit, "1", "M1")],
        [done(kit, "q", "7", "2025-03-01", "ris"), numbered(kit, "7", "M1")],
        MRN,
    )
    hospital.servers["clinic"].switch(Faults(require_bearer="x"))
    outcomes, _ = hospital.night()
    assert [bool(outcome.error) for outcome in outcomes] == [True, False]
    with hospital.ledger.read() as connection:
        assert cursor(connection, "clinic", "Procedure") == ""
        assert cursor(connection, "archive", "Procedure") != ""
    hospital.servers["clinic"].switch(Faults())
    outcomes, decisions = hospital.night()
    assert [outcome.complete for outcome in outcomes] == [True, True]
    assert [outcome.since == "" for outcome in outcomes] == [True, False]
    assert len(decisions) == 1
