"""The guard at the door, on a small hospital: it knows everybody in the draw, and says what it held back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.config import Config
from io_fhir_adapter.demo import AS_OF, demo_config
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.draws import StoredCase, cases_of, find_draw, put_nonce
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.review.cases import PreparedCase
from io_fhir_adapter.review.keys import pseudonym_key
from io_fhir_adapter.review.leaks import LeakScanner
from io_fhir_adapter.review.sample import Design, Sample, commit_sample, draw_sample, leave_sample
from io_fhir_adapter.sandbox.hospital import build_hospital

NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)


@dataclass
class Drawn:
    """A small draw with reserves, one of whose cases left."""

    job: Nightly
    ledger: Ledger
    sample: Sample
    everybody: list[StoredCase]
    prepared: list[PreparedCase]
    scanner: LeakScanner
    resources: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawn]:
    hospital = build_hospital(7, patients=60, procedures=240)
    resources = [one for found in hospital.resources.values() for one in found]
    folder = tmp_path_factory.mktemp("facility")
    (folder / "all.ndjson").write_text("\n".join(json.dumps(one) for one in resources))
    rules = rules_for(demo_config("http://127.0.0.1:9/fhir", "http://127.0.0.1:9/fhir", Path()))
    config = Config.model_validate({
        "facility": {"code": "F-001", "name": "Sandbox Hospital", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "files", "kind": "files", "paths": [str(folder / "all.ndjson")]}],
        "ledger": {"path": folder / "ledger.sqlite"},
        "review": {"key_file": folder / "pseudonym.key"},
    })  # fmt: skip
    put_owner_only(config.review.key_file, b"5a" * 32)  # so that the same are drawn each time
    ledger = open_ledger(config.ledger)
    job = Nightly(config, ledger, rules, as_of=AS_OF)
    asyncio.run(job.run(dry_run=True))
    small = rules.programme.model_copy(
        update={"sample": rules.programme.sample.model_copy(update={"size": 3, "reserves": 3})}
    )
    design = Design(small, "F-001", pseudonym_key(config.review.key_file), rules.digest)
    committed = commit_sample(ledger, design, period="2025", as_of=AS_OF, now=NOW)
    with ledger.begin() as connection:
        put_nonce(connection, committed, "5a" * 32, "local", NOW)
        stored = find_draw(connection, small.id, "2025")
    assert stored is not None
    sample = draw_sample(ledger, design, stored, NOW)
    leave_sample(ledger, sample, 2, "file-unavailable", NOW)
    prepared, scanner = asyncio.run(job.casework.review(sample))
    with ledger.read() as connection:
        everybody = cases_of(connection, stored.id, None)
    by_reference = {f"{one['resourceType']}/{one['id']}": one for one in resources}
    yield Drawn(job, ledger, sample, everybody, prepared, scanner, by_reference)
    ledger.close()


def test_reserves_and_those_who_left_are_known_to_the_scan_too(drawn: Drawn) -> None:
    assert {case.role for case in drawn.everybody} == {"case", "reserve", "left"}
    for case in drawn.everybody:
        patient = drawn.resources[case.patient]
        birth = date.fromisoformat(patient["birthDate"])
        name = patient["name"][0]
        written = [
            case.patient, patient["id"], f"{name['given'][0]} {name['family']}", f"{birth:%d.%m.%Y}", f"{birth:%Y%m%d}",
            patient["identifier"][0]["value"], *case.procedures,
        ]  # fmt: skip
        for text in written:
            assert drawn.scanner.hits(f"note: {text}, seen"), case.role


def test_who_operated_is_known_to_the_scan(drawn: Drawn) -> None:
    performers = [
        part["actor"]["reference"]
        for case in drawn.everybody
        if case.role == "case"
        for reference in case.procedures
        for part in drawn.resources[reference].get("performer", ())
    ]
    assert performers
    for reference in performers:
        name = drawn.resources[reference]["name"][0]
        assert drawn.scanner.hits(reference)
        assert drawn.scanner.hits(f"by Dr {name['family']}") or len(name["family"]) < 4


def test_the_facilitys_own_name_and_the_form_are_no_leaks(drawn: Drawn) -> None:
    form = asyncio.run(drawn.job.casework.form())
    body = json.dumps({"form": form, "reporter": {"display": "Sandbox Hospital"}}).encode()
    assert drawn.scanner.scan(body) == []


def test_what_was_held_back_is_said_and_names_nobody(drawn: Drawn) -> None:
    form = asyncio.run(drawn.job.casework.form())
    guarded = drawn.job.casework.guard(drawn.sample, drawn.prepared, form, drawn.scanner)
    said = json.loads(json.dumps(guarded.to_json()))
    assert said["risk"]["k"] == 3
    numbers = [case.number for case in guarded.cases]
    assert {one["case"] for one in said["risk"]["generalised"]} | set(said["risk"]["flagged"]) <= set(numbers)
    assert all(risk.holds or risk.number in said["risk"]["flagged"] for risk in guarded.risks)
    assert said["dropped"]
    assert not drawn.scanner.hits(json.dumps(said))
    assert not drawn.scanner.hits(guarded.sentence)
    assert "3 patients look alike" in guarded.sentence


def test_what_leaves_is_as_alike_as_the_profile_asks_or_flagged(drawn: Drawn) -> None:
    form = asyncio.run(drawn.job.casework.form())
    guarded = drawn.job.casework.guard(drawn.sample, drawn.prepared, form, drawn.scanner)
    for case, risk in zip(guarded.cases, guarded.risks, strict=True):
        said = json.dumps([case.patient, *case.procedures, *case.conditions, case.response])
        if "drop-quarter" in risk.steps:
            assert "-Q" not in said
            assert "proc.quarter" not in said
        if "drop-sex" in risk.steps:
            assert "gender" not in said
            assert "case.sex" not in said
        assert risk.alike >= 3 or not risk.holds


def test_another_key_than_the_draws_is_refused_before_anything_is_read(drawn: Drawn, tmp_path: Path) -> None:
    review = drawn.job.config.review.model_copy(update={"key_file": tmp_path / "new.key"})
    config = drawn.job.config.model_copy(update={"review": review})
    with pytest.raises(ReviewError, match="not the one"):
        asyncio.run(Nightly(config, drawn.ledger, drawn.job.ruleset, as_of=AS_OF).casework.review(drawn.sample))
