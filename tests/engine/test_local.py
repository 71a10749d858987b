"""The local engine: whatever the packing, the same decisions, the same tallies, in bounded memory. Synthetic data."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.engine.local import Counted, classify_files, count_files
from io_fhir_adapter.engine.scan import Scan
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.model import ConditionFact, Decision, ProcedureFact
from io_fhir_adapter.pull.files import InputFile, find_inputs
from io_fhir_adapter.volume.count import Period

OPS = "http://fhir.de/CodeSystem/bfarm/ops"
ICD = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
YEAR = Period.year("2025")
STDIN = [InputFile(None, "stdin")]


@cache
def rules() -> Ruleset:
    return load_ruleset()


def procedure(
    name: str, code: str = "5-501.a3", day: str | None = "2025-03-14", patient: str = "1", **more: Any
) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "Procedure",
        "id": name,
        "status": "completed",
        "code": {"coding": [{"system": OPS, "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "reasonCode": [{"coding": [{"system": ICD, "code": "C22.0"}]}],
        **more,
    }
    return resource if day is None else {**resource, "performedDateTime": day}


def lines(*resources: Any) -> io.BytesIO:
    return io.BytesIO(b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in resources))


def count(*resources: Any, period: Period = YEAR, **more: Any) -> Counted:
    return count_files(STDIN, rules(), period, stdin=lines(*resources), **more)


def classify(*resources: Any, **more: Any) -> tuple[Scan, list[Decision]]:
    with classify_files(STDIN, rules(), stdin=lines(*resources), **more) as (scan, decisions):
        return scan, list(decisions)


def test_a_session_is_counted_in_its_year_only() -> None:
    resources = [procedure("a"), procedure("b", day="2024-12-31"), procedure("c", day="2025-05-01")]
    assert count(*resources).volume.counted == 2
    assert count(*resources, period=Period.year("2024")).volume.counted == 1
    assert [d.date for d in classify(*resources)[1]] == ["2024-12-31", "2025-03-14", "2025-05-01"]


def test_the_facility_s_zone_decides_the_year() -> None:
    late = procedure("a", day="2024-12-31T23:30:00Z")
    berlin = zone("Europe/Berlin")
    assert count(late, tz=berlin).volume.counted == 1
    assert count(late, tz=berlin).volume.seen.procedures == 1
    assert count(late, tz=zone("Europe/London")).volume.counted == 0


def test_what_was_seen_is_tallied_over_distinct_procedures() -> None:
    seen = count(
        procedure("a"),
        procedure("a"),
        procedure("b", status="not-done"),
        procedure("c", code="9-999"),
        procedure("d", day="2023"),
        procedure("e", day=None),
        procedure("f", code="X", status="preparation"),
    ).volume.seen
    assert (seen.procedures, seen.completed, seen.mapped, seen.known_system) == (4, 2, 1, 2)
    assert seen.by_status == {"completed": 2, "not-done": 1, "preparation": 1}
    assert (seen.outside, seen.undated, seen.quarantined) == (1, 1, 0)


def test_broken_procedures_are_set_aside_and_the_rest_counts() -> None:
    counted = count(
        procedure("a"),
        b'{"resourceType":"Procedure",\n',
        procedure("b", code="9-999", subject=None),
        procedure("c", subject={"display": "nobody"}),
        {**procedure("d"), "id": None},
        procedure("e", day="2025-02-30"),
        procedure("f", code="9-999", day="2025-02-30"),
        procedure("g", performedPeriod="always"),
    )
    assert counted.volume.counted == 1
    assert [entry.position for entry in counted.scan.quarantined] == [f"stdin:{line}" for line in range(2, 9)]
    assert counted.scan.quarantined_total == 7
    assert counted.volume.seen.procedures == 1


def test_a_coding_with_an_empty_or_missing_system_is_unmapped_and_no_crash() -> None:
    odd = {
        "coding": [{"system": OPS, "code": "5-501.a3"}, {"system": "", "code": "x"}, {"code": "x"}, {"system": OPS}, {}]
    }
    counted = count({**procedure("a"), "code": odd})
    assert counted.volume.counted == 1
    assert {(entry.system, entry.code) for entry in counted.scan.unmapped} >= {("", "x")}


def test_a_procedure_without_any_code_is_told_apart() -> None:
    bare = {**procedure("a"), "code": {"text": "Ablation"}}
    none = {key: value for key, value in procedure("b").items() if key != "code"}
    counted = count(bare, none)
    assert counted.scan.without_code == 2
    assert {d.reason for d in classify(bare, none)[1]} == {"unmapped"}


def test_the_list_of_quarantined_is_bounded_and_its_number_exact() -> None:
    counted = count(*[b"{broken\n"] * 1_500, procedure("a"))
    assert len(counted.scan.quarantined) == 1_000
    assert counted.scan.quarantined_total == 1_500
    assert counted.volume.counted == 1


def test_conditions_and_encounters_are_evidence_wherever_they_stand() -> None:
    plain = {
        key: value
        for key, value in procedure("a", "5-839.90", encounter={"reference": "Encounter/e"}).items()
        if key != "reasonCode"
    }
    condition = {
        "resourceType": "Condition",
        "id": "c",
        "subject": {"reference": "Patient/1"},
        "code": {"coding": [{"system": ICD, "code": "C79.5"}]},
    }
    encounter = {
        "resourceType": "Encounter", "id": "e", "subject": {"reference": "Patient/1"},
        "diagnosis": [{"condition": {"reference": "Condition/c"}, "rank": 1}],
    }  # fmt: skip
    for order in ([plain, condition, encounter], [encounter, condition, plain]):
        (decision,) = classify(*order)[1]
        assert (decision.decision, decision.indication.level) == ("counted", "encounter")
        assert count(*order).volume.counted == 1
    assert count(plain).volume.not_counted == 1


def test_a_patient_s_merged_record_is_one_person() -> None:
    link = {
        "resourceType": "Patient",
        "id": "old",
        "link": [{"other": {"reference": "Patient/1"}, "type": "replaced-by"}],
    }
    resources = [procedure("a", "8-836.ka"), procedure("b", "8-541.6", patient="old"), link]
    (decision,) = classify(*resources)[1]
    assert (decision.patient, decision.category) == ("Patient/1", "tace")


def test_a_refused_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<Procedure/>")
    (tmp_path / "b.ndjson").write_bytes(lines(procedure("a")).getvalue())
    told: list[str] = []
    counted = count_files(find_inputs([str(tmp_path)]), rules(), YEAR, progress=lambda report: told.append(report.name))
    assert counted.volume.counted == 1
    assert [bool(report.refused) for report in counted.scan.files] == [True, False]
    assert [Path(name).name for name in told] == ["a.xml", "b.ndjson"]


codes = st.sampled_from(["5-501.a3", "8-836.ka", "8-541.6", "5-98h.2", "9-999", "8-835.23", "5-550.1"])
records = st.lists(
    st.tuples(
        codes,
        st.sampled_from(["2025-03-14", "2025-03-15T23:30:00Z", "2025", "2024-12-31", "2025-06"]),
        st.sampled_from(["1", "2"]),
        st.sampled_from(["completed", "completed", "not-done"]),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(records, st.integers(0, 99))
def test_counting_and_classifying_agree_in_any_order(drawn: list[tuple[str, str, str, str]], seed: int) -> None:
    resources = [
        procedure(str(n), code, day, patient, status=status) for n, (code, day, patient, status) in enumerate(drawn)
    ]
    decisions = classify(*resources)[1]
    random.Random(seed).shuffle(resources)
    assert classify(*resources)[1] == decisions
    volume = count(*resources, *resources[:3]).volume
    inside = [decision for decision in decisions if YEAR.contains(decision.date)]
    assert volume.counted == sum(decision.decision == "counted" for decision in inside)
    assert volume.review == sum(decision.decision == "review" for decision in inside)


def test_the_spool_gives_each_patient_once_however_little_it_may_hold() -> None:
    facts = [ProcedureFact("s", f"{n}", f"Patient/{n % 7}", "completed", "2025") for n in range(100)]
    conditions = [ConditionFact("s", f"c{n}", f"Patient/{n % 11}") for n in range(50)]
    random.Random(7).shuffle(facts)
    with Spool(limit=9) as spool:
        for fact in facts:
            spool.add(fact)
        for condition in conditions:
            spool.add(condition)
        found = list(spool.patients())
    assert [item.patient for item in found] == [f"Patient/{n}" for n in range(7)]
    assert sum(len(item.procedures) for item in found) == 100
    assert sum(len(item.conditions) for item in found) == sum(n % 11 < 7 for n in range(50))


def test_the_spool_follows_links_and_ends_in_a_circle() -> None:
    with Spool() as spool:
        for number in ("1", "2", "3"):
            spool.add(ProcedureFact("s", number, f"Patient/{number}", "completed", "2025"))
        spool.link("Patient/1", "Patient/2")
        spool.link("Patient/2", "Patient/1")
        found = list(spool.patients())
    assert sum(len(item.procedures) for item in found) == 3


@pytest.mark.parametrize("number", [3_000])
def test_many_lines_of_one_type(number: int) -> None:
    counted = count(*[procedure(str(n), patient=str(n)) for n in range(number)])
    assert counted.volume.counted == number
    assert counted.volume.seen.mapped == number
