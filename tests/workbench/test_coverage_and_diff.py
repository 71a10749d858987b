"""What the tables know of a source, and what other tables would change, on small synthetic ledgers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.classify.ruleset import Ruleset, SiteTable
from io_fhir_adapter.classify.workbench.coverage import survey
from io_fhir_adapter.classify.workbench.diff import Side, compare_rulesets, ruleset_in
from io_fhir_adapter.errors import MappingError, UsageError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.model import Code, ProcedureFact
from io_fhir_adapter.report.gather import unmapped_codes
from io_fhir_adapter.shipped import shipped_path

OPS, LOCAL, ICD = (
    "http://fhir.de/CodeSystem/bfarm/ops",
    "http://hospital.example/keys",
    "http://hl7.org/fhir/sid/icd-10",
)
RADIOFREQUENCY = "5-501.93"


def procedure(number: int, *codes: Code, status: str = "completed") -> ProcedureFact:
    return ProcedureFact(
        "his",
        str(number),
        f"Patient/{number}",
        status,
        "2025-03-14",
        codes=codes,
        reasons=(Code(ICD, "C22.0"),),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = new_ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def test_coverage_counts_procedures_by_system(ledger: Ledger, ruleset: Ruleset) -> None:
    local = [procedure(number, Code(LOCAL, "K1", display="CT Leber")) for number in range(1, 6)]
    facts = [
        *local,
        procedure(6, Code(OPS, "5-501.a3"), Code(LOCAL, "K2", display="Ablation Frau Muster")),
        procedure(7, Code(OPS, "1-100")),
        procedure(8),
        procedure(9, Code(OPS, "5-501.a3"), status="not-done"),
    ]
    with ledger.begin() as connection:
        found = survey(iter(facts), ruleset, connection)
        rows = unmapped_codes(connection, ruleset)
    assert (found.procedures, found.known, found.mapped, found.without_code) == (8, 2, 1, 1)
    assert [(item.name, item.known, item.procedures, item.mapped) for item in found.systems] == [
        (LOCAL, False, 6, 0),
        ("ops", True, 2, 1),
    ]
    listed = {(row.system, row.code): (row.procedures, row.display) for row in rows}
    assert listed[LOCAL, "K1"] == (5, "CT Leber")
    assert listed[OPS, "1-100"] == (1, None)
    assert (LOCAL, "K2") not in listed  # its Procedure has a row by another code


def test_a_local_code_read_by_its_text_still_lacks_a_row(ledger: Ledger, ruleset: Ruleset) -> None:
    fact = procedure(1, Code(LOCAL, "K1", display="Mikrowellenablation Leber"))
    with ledger.begin() as connection:
        found = survey([fact], ruleset, connection)
        rows = unmapped_codes(connection, ruleset)
    assert (found.mapped, [row.code for row in rows]) == (0, ["K1"])


def other_mappings(folder: Path, *without: str) -> Path:
    """A copy of the shipped mappings whose OPS table lacks rows."""
    copy = folder / "mappings"
    shutil.copytree(shipped_path("mappings"), copy)
    table = copy / "codes" / "ops.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith(without)), encoding="utf-8")
    return copy


def test_the_same_mappings_change_nothing(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger, procedure(1, Code(OPS, RADIOFREQUENCY)), procedure(2, Code(OPS, "8-836.ka")))
    copy = other_mappings(tmp_path)
    with ledger.read() as connection:
        shipped = ruleset_in(shipped_path("mappings"), "iasios", ())
        found = compare_rulesets(connection, shipped, ruleset_in(copy, "iasios", ()), 5)
    assert (found.patients, found.decisions, found.same, found.changed) == (2, 2, 2, 0)


def fill(ledger: Ledger, *facts: ProcedureFact) -> None:
    with ledger.begin() as connection:
        run = start_run(connection, datetime(2025, 4, 1, tzinfo=UTC))
        put_facts(connection, [StoredFact(fact) for fact in facts], run)


def test_a_row_less_and_a_row_more_change_decisions(ledger: Ledger, tmp_path: Path) -> None:
    fill(
        ledger,
        procedure(1, Code(OPS, RADIOFREQUENCY)),
        procedure(2, Code(LOCAL, "K1")),
        procedure(3, Code(LOCAL, "K2")),
    )
    copy = other_mappings(tmp_path, "5-501.9")
    own = tmp_path / "own.csv"
    header = (copy / "codes" / "ops.csv").read_text(encoding="utf-8").partition("\n")[0]
    own.write_text(f"{header}\nK1,microwave,liver,percutaneous,none,main,expected,,,m,c,\n", encoding="utf-8")
    with ledger.read() as connection:
        old = ruleset_in(shipped_path("mappings"), "iasios", ())
        new = ruleset_in(copy, "iasios", [SiteTable(LOCAL, own)])
        found = compare_rulesets(connection, old, new, 5)
    assert (found.same, found.changed) == (0, 2)
    changes = {change.procedures: (change.before, change.after) for change in found.examples}
    before, after = changes[("Procedure/1",)]
    assert before.decision == "counted"
    assert after == Side()
    assert changes[("Procedure/2",)][0] == Side()
    assert changes[("Procedure/2",)][1].kind == ("ablation-mwa", "counted")
    assert {change.date for change in found.examples} == {"2025-03-14"}
    assert "Patient" not in str(found.to_json())


def test_a_folders_own_programme_decides(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger, *(procedure(number, Code(OPS, RADIOFREQUENCY)) for number in range(1, 5)))
    copy = other_mappings(tmp_path)
    file = copy / "programmes" / "iasios.yaml"
    shipped = ruleset_in(shipped_path("mappings"), "iasios", ())
    with ledger.read() as connection:
        category = compare_rulesets(connection, shipped, shipped, 0)
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace('  ablation-rfa: "yes"', '  ablation-rfa: "no"'), encoding="utf-8")
        found = compare_rulesets(connection, shipped, ruleset_in(copy, "iasios", ()), 2)
    assert category.changed == 0
    assert found.kinds == (((("ablation-rfa", "counted"), ("ablation-rfa", "not-counted")), 4),)
    assert len(found.examples) == 2


def test_a_folder_that_holds_no_mappings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no mappings folder"):
        ruleset_in(tmp_path, "iasios", ())
    copy = other_mappings(tmp_path)
    (copy / "techniques.csv").write_text("wrong\n", encoding="utf-8")
    with pytest.raises(MappingError):
        ruleset_in(copy, "iasios", ())
