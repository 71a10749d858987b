from __future__ import annotations

import csv
import json
import re
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fhir.resources.R4B import get_fhir_model_class

from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.sandbox.hospital import RESOURCE_TYPES, Hospital, build_hospital
from io_fhir_adapter.sandbox.ordinary import ORDINARY_CODES, UNMAPPED_CODES
from io_fhir_adapter.sandbox.plans import CODES, LOCAL, SYSTEMS, codings
from io_fhir_adapter.sandbox.recipes import IO_RECIPES, LOOK_ALIKES, PROFILES, RECIPES
from io_fhir_adapter.sandbox.truth import SessionTruth
from io_fhir_adapter.shipped import shipped_path

pytestmark = pytest.mark.xdist_group("hospital")  # one for all of them: making it takes seconds
BERLIN = ZoneInfo("Europe/Berlin")
YEARS = (2024, 2025)
IO_NAMES = {recipe.name for recipe in IO_RECIPES}
LOOK_ALIKE_NAMES = {recipe.name for recipe in LOOK_ALIKES}
DECIDED_UNDONE = {"not-completed", "entered-in-error"}


@cache
def hospital() -> Hospital:
    return build_hospital()


@cache
def by_reference() -> dict[str, dict[str, Any]]:
    return {f"{kind}/{item['id']}": item for kind, items in hospital().resources.items() for item in items}


@cache
def good_text() -> str:
    return "\n".join(json.dumps(item) for item in (*by_reference().values(), *hospital().later))


def with_trait(trait: str, decision: str = "") -> list[SessionTruth]:
    return [
        truth
        for truth in hospital().truth.sessions
        if trait in truth.traits and (not decision or truth.decision == decision)
    ]


def recorded_days(procedure: dict[str, Any]) -> str:
    """The local day on which a Procedure starts, worked out from the resource alone."""
    text = procedure.get("performedDateTime") or procedure.get("performedPeriod", {}).get("start", "")
    return datetime.fromisoformat(text).astimezone(BERLIN).date().isoformat() if "T" in text else text


def survivor(reference: str) -> str:
    patient = by_reference()[reference.removesuffix("/_history/1")]
    for link in patient.get("link", ()):
        if link["type"] == "replaced-by":
            return str(link["other"]["reference"])
    return f"Patient/{patient['id']}"


def test_same_seed_same_hospital_and_other_seed_another() -> None:
    small = build_hospital(7, patients=80, procedures=900)
    assert small == build_hospital(7, patients=80, procedures=900)
    assert small.resources != build_hospital(8, patients=80, procedures=900).resources


def test_a_hospital_too_small_or_with_swapped_years_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 60 patients"):
        build_hospital(patients=20)
    with pytest.raises(UsageError, match="first year first"):
        build_hospital(years=(2025, 2024))


def test_size() -> None:
    resources = hospital().resources
    assert set(resources) == set(RESOURCE_TYPES)
    assert all(resources.values())
    assert len(resources["Patient"]) > 1500
    assert len(resources["Procedure"]) == 25_000
    assert len(resources["Encounter"]) > 5_000
    assert len(resources["Condition"]) > 1_000
    assert 35 <= len(hospital().broken) <= 45


@pytest.mark.parametrize("year", YEARS)
def test_proportions_of_a_year(year: int) -> None:
    truth = hospital().truth.years[year]
    real = [session for session in truth.sessions if session.kind in IO_NAMES]
    alike = [session for session in truth.sessions if session.kind in LOOK_ALIKE_NAMES]
    assert 250 <= len(real) <= 275
    assert 190 <= truth.counted <= 215
    assert 2.7 <= len(alike) / len(real) <= 3.3
    assert len(truth.counted_by_category) >= 15
    assert len(truth.eligible_patients) >= 60
    assert sum(len(session.procedures) > 1 for session in real) >= 60
    assert len(truth.counted_by_month) == 12


def test_every_resource_is_in_order_tagged_and_dated() -> None:
    closing = "2026-01-06T02:00:00.000Z"
    for kind, items in hospital().resources.items():
        assert [item["id"] for item in items] == sorted({item["id"] for item in items})
        for item in items:
            assert item["resourceType"] == kind
            assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", item["id"])
            assert item["meta"]["security"][0]["code"] == "HTEST"
            assert item["meta"]["tag"][0]["code"] == "synthetic"
            updated = item["meta"]["lastUpdated"]
            assert datetime.fromisoformat(updated).tzinfo == UTC
            assert updated <= closing
    assert json.loads(json.dumps(hospital().resources)) is not None


@pytest.mark.parametrize("kind", RESOURCE_TYPES)
def test_good_resources_are_valid_r4(kind: str) -> None:
    model = get_fhir_model_class(kind)
    items = hospital().resources[kind]
    for item in Random(1).sample(items, min(200, len(items))):
        model.model_validate(item)


def test_later_resources_are_valid_and_newer() -> None:
    later = hospital().later
    known = by_reference()
    newest = max(item["meta"]["lastUpdated"] for item in known.values())
    for item in later:
        get_fhir_model_class(item["resourceType"]).model_validate(item)
        before = known.get(f"{item['resourceType']}/{item['id']}")
        assert item["meta"]["versionId"] == ("2" if before else "1")
        assert item["meta"]["lastUpdated"] > newest
        assert before != item
    assert sum(item["meta"]["versionId"] == "1" for item in later) >= 5
    assert {"Patient", "Procedure", "Condition"} <= {item["resourceType"] for item in later}


def test_references_lead_somewhere() -> None:
    known = by_reference()
    for reference in set(re.findall(r'"reference": "([^"]+)"', json.dumps(hospital().resources))):
        assert reference.removesuffix("/_history/1") in known


def test_truth_agrees_with_its_own_sessions() -> None:
    for truth in (hospital().truth, hospital().truth_later):
        for year, of_year in truth.years.items():
            kinds = Counter(session.decision for session in of_year.sessions)
            assert (of_year.counted, of_year.review, of_year.not_counted) == (
                kinds["counted"],
                kinds["review"],
                kinds["not-counted"],
            )
            assert sum(of_year.counted_by_category.values()) == of_year.counted
            assert sum(of_year.counted_by_month.values()) == of_year.counted
            assert sum(of_year.review_by_category.values()) == of_year.review
            assert sum(of_year.not_counted_by_reason.values()) == of_year.not_counted
            assert all(session.date.startswith(str(year)) for session in of_year.sessions)
        assert json.loads(json.dumps(truth.to_json()))["years"]["2025"]["counted"] == truth.years[2025].counted


def test_truth_agrees_with_the_recipes() -> None:
    recipes = {recipe.name: recipe for recipe in RECIPES}
    for session in hospital().truth.sessions:
        recipe = recipes[session.kind]
        if "undated" in session.traits:
            assert (session.decision, session.reason, session.date) == ("not-counted", "undated", "")
        else:
            assert (session.decision, session.reason) == (recipe.decision, recipe.reason)
        assert session.category == recipe.category


def test_truth_agrees_with_the_resources() -> None:
    known = by_reference()
    used: Counter[str] = Counter()
    for session in hospital().truth.sessions:
        days = set()
        for reference in session.procedures:
            procedure = known[reference]
            used[reference] += 1
            days.add(recorded_days(procedure))
            assert survivor(procedure["subject"]["reference"]) == session.patient
            assert (procedure["status"] == "completed") == (session.reason not in DECIDED_UNDONE)
        assert min(days) == session.date
        assert (len(days) == 2) == ("a-day-apart" in session.traits)
    assert max(used.values()) == 1


def test_nothing_else_happens_on_the_day_of_a_session() -> None:
    planned = {
        (session.patient, session.date): set(session.procedures)
        for session in hospital().truth.sessions
        if session.date
    }
    for procedure in hospital().resources["Procedure"]:
        key = (survivor(procedure["subject"]["reference"]), recorded_days(procedure))
        if key in planned and procedure["status"] == "completed":
            assert f"Procedure/{procedure['id']}" in planned[key]


def test_totals_of_the_truth() -> None:
    truth, resources = hospital().truth, hospital().resources
    broken = sum(kind == "Procedure" for kind, _ in hospital().broken)
    assert truth.procedures_total == len(resources["Procedure"]) + broken
    assert truth.procedures_broken == broken
    assert sum(truth.broken.values()) == len(hospital().broken)
    assert truth.resources == {kind: len(items) for kind, items in sorted(resources.items())}
    bare = [item for item in resources["Procedure"] if not item.get("code", {}).get("coding")]
    assert truth.without_code == len(bare) >= 50
    assert any("code" not in item for item in bare)


def test_unmapped_codes_are_those_that_stand_alone_on_procedures() -> None:
    unmapped = {(SYSTEMS[system], code) for system, code in (*UNMAPPED_CODES, ("ris", "RIS-9001"), ("cat", "KH-4711"))}
    counts: Counter[tuple[str, str]] = Counter()
    for procedure in hospital().resources["Procedure"]:
        found = [(coding["system"], coding["code"]) for coding in procedure.get("code", {}).get("coding", ())]
        if set(found) & unmapped:
            assert len(found) == 1
            counts[found[0]] += 1
    assert {(row.system, row.code): row.count for row in hospital().truth.unmapped} == counts
    assert sum(counts.values()) >= 100
    per_year = [row.count for year in hospital().truth.years.values() for row in year.unmapped]
    assert sum(per_year) == sum(counts.values())


def test_second_night_changes_the_truth_by_what_was_corrected() -> None:
    before = {session.procedures: session for session in hospital().truth.sessions}
    changed, new = Counter[str](), 0
    for session in hospital().truth_later.sessions:
        old = before.pop(session.procedures, None)
        if old is None:
            new += 1
            assert (session.decision, "new" in session.traits) == ("counted", True)
        elif old != session:
            assert "corrected" in session.traits
            changed[f"{old.decision} to {session.decision}"] += 1
    assert not before
    assert new == 2
    assert changed["counted to not-counted"] == 3
    assert changed["not-counted to counted"] >= 3
    assert changed["review to counted"] >= 1
    assert changed["counted to review"] == 2
    assert changed["counted to counted"] == 2
    totals = hospital().truth_later.procedures_total, hospital().truth.procedures_total
    assert totals[0] - totals[1] == sum(
        item["resourceType"] == "Procedure" and item["meta"]["versionId"] == "1" for item in hospital().later
    )


@pytest.mark.parametrize(
    ("trait", "least"),
    [
        ("two-systems", 20),
        ("a-day-apart", 8),
        ("utc-day-differs", 15),
        ("period-over-midnight", 15),
        ("year-end", 2),
        ("year-start", 2),
        ("replaced-error", 10),
        ("ordinary-work-same-day", 10),
        ("versioned-reference", 10),
        ("part-of", 30),
        ("split-over-merged", 4),
        ("merged-record", 2),
        ("day-after-another", 2),
        ("withdrawn-later", 2),
    ],
)
def test_awkward_counted_sessions_are_present(trait: str, least: int) -> None:
    assert len(with_trait(trait, "counted")) >= least


def test_midnight_falls_between_utc_and_local_days() -> None:
    for session in with_trait("utc-day-differs"):
        for reference in session.procedures:
            written = by_reference()[reference].get("performedDateTime", "")
            assert written.endswith("Z")
            assert written[:10] < session.date
    for session in with_trait("period-over-midnight"):
        period = by_reference()[session.procedures[0]]["performedPeriod"]
        assert period["start"][:10] == session.date < period["end"][:10]
    assert {session.date for session in with_trait("year-end")} == {"2024-12-31", "2025-12-31"}
    assert {session.date for session in with_trait("year-start")} == {"2024-01-01", "2025-01-01"}


def test_two_systems_recorded_the_same_session() -> None:
    for session in with_trait("two-systems"):
        origins = {
            item["meta"].get("source") or item["identifier"][0]["system"]
            for item in (by_reference()[reference] for reference in session.procedures)
        }
        assert len(origins) == 2
        if "a-day-apart" not in session.traits:
            assert {recorded_days(by_reference()[reference]) for reference in session.procedures} == {session.date}


def test_a_session_on_the_next_day_is_another_session() -> None:
    days = {(session.patient, session.date) for session in hospital().truth.sessions if session.decision == "counted"}
    for session in with_trait("day-after-another"):
        day_before = datetime.fromordinal(datetime.fromisoformat(session.date).toordinal() - 1).date().isoformat()
        assert (session.patient, day_before) in days


def test_merged_records_hold_parts_of_sessions() -> None:
    for session in with_trait("split-over-merged"):
        subjects = {by_reference()[reference]["subject"]["reference"] for reference in session.procedures}
        assert len(subjects) == 2
    merged = [item for item in hospital().resources["Patient"] if item.get("link")]
    assert Counter(item["active"] for item in merged) == {True: 6, False: 6}


def test_indications_come_by_every_route() -> None:
    routes = Counter(session.route for session in hospital().truth.sessions if session.decision == "counted")
    assert set(routes) == {"reason-code", "reason-reference", "encounter", "condition"}
    assert min(routes.values()) >= 30
    known = by_reference()
    for session in hospital().truth.sessions:
        items = [known[reference] for reference in session.procedures]
        stated = any("reasonCode" in item or "reasonReference" in item for item in items)
        assert stated == (session.route in {"reason-code", "reason-reference"})
        if session.route == "encounter":
            assert any("diagnosis" in known[item["encounter"]["reference"]] for item in items)


def test_sessions_without_evidence_belong_to_patients_without_an_active_tumour() -> None:
    tumours: dict[str, list[str]] = {}
    for condition in hospital().resources["Condition"]:
        code = condition["code"]["coding"][0]["code"]
        if code.startswith("C"):
            tumours.setdefault(condition["subject"]["reference"], []).append(
                condition["clinicalStatus"]["coding"][0]["code"]
            )
    bare = [session for session in hospital().truth.sessions if session.route == "none"]
    assert Counter(session.reason for session in bare).keys() == {"indication-not-found", "no-tumour-indication"}
    for session in bare:
        assert "active" not in tumours.get(session.patient, [])
    assert any(tumours.get(session.patient) == ["resolved"] for session in bare)


def test_stated_other_disease_stands_beside_a_tumour_on_record() -> None:
    named = [
        session
        for session in hospital().truth.sessions
        if session.kind == "cement for osteoporosis in a tumour patient"
    ]
    assert len(named) >= 8
    assert {session.reason for session in named} == {"other-disease"}


def test_dates_and_statuses_of_every_kind() -> None:
    procedures = hospital().resources["Procedure"]
    statuses = Counter(item["status"] for item in procedures)
    for status in ("not-done", "entered-in-error", "in-progress", "preparation"):
        assert statuses[status] >= 20
    lengths = Counter(len(item.get("performedDateTime", "")) for item in procedures)
    assert lengths[4] >= 20
    assert lengths[7] >= 50
    assert lengths[10] >= 1000
    assert sum("_performedDateTime" in item for item in procedures) >= 20
    assert sum("performedPeriod" in item for item in procedures) >= 1000
    missing = [item for item in procedures if not {"performedDateTime", "performedPeriod"} & item.keys()]
    assert len(missing) >= 50
    assert sum("partOf" in item for item in procedures) >= 200
    assert len(hospital().truth.undated) == 3


def test_codes_are_written_in_several_ways() -> None:
    written = [
        coding for item in hospital().resources["Procedure"] for coding in item.get("code", {}).get("coding", ())
    ]
    systems = Counter(coding["system"] for coding in written)
    for system in (
        "http://fhir.de/CodeSystem/dimdi/ops",
        "http://hl7.org/fhir/sid/icd-10-pcs",
        "http://snomed.info/sct",
        "http://www.ama-assn.org/go/cpt",
        SYSTEMS["ris"],
    ):
        assert systems[system] >= 50
    ops = [coding for coding in written if coding["system"].endswith("/ops")]
    assert sum(coding["code"] != coding["code"].lower() for coding in ops) >= 100
    assert sum(coding["code"].endswith((":R", ":L")) for coding in ops) >= 5
    assert sum("version" not in coding for coding in ops) >= 500
    several = [item for item in hospital().resources["Procedure"] if len(item.get("code", {}).get("coding", ())) > 1]
    assert len(several) >= 500
    assert all({coding["system"] for coding in item["code"]["coding"]} != {SYSTEMS["cpt"]} for item in several)


def test_canaries_are_unique_and_planted() -> None:
    canaries = hospital().canaries
    assert len(canaries) > 10_000
    assert all(re.fullmatch(r"Zyx[A-Z2-9]{8}", canary) for canary in canaries)
    planted = set(re.findall(r"Zyx[A-Z2-9]{8}", good_text()))
    planted |= set(re.findall(r"Zyx[A-Z2-9]{8}", "\n".join(text for _, text in hospital().broken)))
    assert planted == set(canaries)
    assert len(set(canaries)) == len(canaries)


def test_every_personal_element_holds_a_canary() -> None:
    def personal(value: Any, name: str = "") -> list[str]:
        if isinstance(value, dict):
            return [text for key, item in value.items() for text in personal(item, key)]
        if isinstance(value, list):
            return [text for item in value for text in personal(item, name)]
        names = {"family", "given", "line", "city", "valueString", "authorString", "div"}
        return [value] if name in names else []

    patients = [*hospital().resources["Patient"], *hospital().resources["Practitioner"]]
    for item in patients:
        contacts = [entry["value"] for key in ("identifier", "telecom") for entry in item[key]]
        for text in (*personal(item), *contacts):
            assert "Zyx" in text
    for item in hospital().resources["Procedure"]:
        texts = [note["text"] for note in item.get("note", ())] + personal(item)
        texts += [identifier["value"] for identifier in item.get("identifier", ())]
        assert all("Zyx" in text for text in texts)


def test_broken_resources_are_json_with_something_wrong() -> None:
    parsed = [(kind, json.loads(text)) for kind, text in hospital().broken]
    ids = [item["id"] for _, item in parsed if "id" in item]
    assert len(set(ids)) == len(ids) == len(parsed) - 3
    assert {kind for kind, _ in parsed} == {"Procedure", "Condition", "Encounter", "Patient"}
    good = by_reference()
    assert not {f"{kind}/{item.get('id')}" for kind, item in parsed} & good.keys()
    refused = 0
    for kind, item in parsed:
        assert item["resourceType"] == kind
        try:
            get_fhir_model_class(kind).model_validate(item)
        except ValueError:
            refused += 1
    assert refused >= 30


def test_every_planned_code_is_used_and_no_other() -> None:
    used = {
        pair
        for recipe in RECIPES
        for variant in (*recipe.variants, *([recipe.twin] if recipe.twin else []))
        for codes in codings(variant)
        for pair in codes
    }
    assert used == {(row.system, row.code) for row in CODES}
    assert len({(row.system, row.code) for row in CODES}) == len(CODES)
    ordinary = {pair for codes in ORDINARY_CODES for pair in codes if pair != ("ops", "3-225")}
    assert not ordinary & used
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert {profile for recipe in RECIPES for profile in recipe.profiles} == set(PROFILES)
    with pytest.raises(ValueError, match="not in the table"):
        codings("ops:9-999")


def test_local_codes_are_mapped_except_those_that_are_not_meant_to_be() -> None:
    with shipped_path("config", "sandbox-local-codes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    header = shipped_path("config", "sandbox-local-codes.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note"
    patterns = [row["code"] for row in rows]

    def mapped(code: str) -> bool:
        return any(Path(code).match(pattern) for pattern in patterns)

    for row in LOCAL:
        assert mapped(row.code) == (row.category != "unmapped")
    for codes in ORDINARY_CODES:
        assert all(mapped(code) for system, code in codes if system == "ris")
    assert not any(mapped(code) for system, code in UNMAPPED_CODES if system == "ris")


def test_a_small_hospital_has_everything_too() -> None:
    small = build_hospital(3, patients=60, procedures=400, years=(2025, 2025))
    assert set(small.truth.years) == {2025}
    kinds = {session.kind for session in small.truth.years[2025].sessions}
    assert kinds == {recipe.name for recipe in RECIPES}
    assert len(small.resources["Procedure"]) >= 400
    assert small.later
