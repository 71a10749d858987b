"""Lint says every fault with file and line, and agrees with what the loader refuses."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.tables import COLUMNS, GlobIndex, load_code_table
from io_fhir_adapter.classify.workbench.lint import Fault, lint_rules, lint_tables
from io_fhir_adapter.classify.workbench.rows import TableFile, read_code_list, shipped_tables
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path

TODAY = date(2026, 1, 15)
WORDS = frozenset({"microwave", "radiofrequency", "ablation", "none"})
CODES = Path(__file__).resolve().parents[2] / ".." / "shared" / "codes" / "raw"


class Tables(Protocol):
    folder: Path

    def write(self, *rows: str, name: str = "own.csv", system: str = "ops", site: bool = False) -> TableFile: ...


def lint(table: TableFile, codes: tuple[str, ...] | None = None) -> list[Fault]:
    return lint_tables([table], WORDS, TODAY, {table.system: codes} if codes is not None else None)


def kinds(faults: list[Fault]) -> list[tuple[str, str]]:
    return [(fault.place, fault.kind) for fault in faults]


def test_a_good_table_has_no_fault(tables: Tables) -> None:
    assert lint(tables.write("5-501.53", "5-501.5? ablation", "5-501.[89]0 none")) == []


def test_all_faults_are_said_not_just_the_first(tables: Tables) -> None:
    table = tables.write(
        "5-501.53 microwav lver", "5-50[1", "5-501.63 microwave liver valid_from=2025-13-01", "5-501.73"
    )
    with table.path.open("a", encoding="utf-8") as handle:
        handle.write("5-501.83,microwave\n")
    faults = lint(table)
    assert kinds(faults) == [
        ("own.csv:2", "unknown-word"),
        ("own.csv:2", "unknown-word"),
        ("own.csv:3", "pattern"),
        ("own.csv:4", "date"),
        ("own.csv:6", "columns"),
    ]
    assert all(fault.level == "error" for fault in faults)
    assert "did you mean 'liver'?" in faults[0].text
    assert "did you mean 'microwave'?" in faults[1].text


def test_every_ambiguous_pair_is_said(tables: Tables) -> None:
    faults = lint(tables.write("5-501.5[12]", "5-501.5[23]", "5-501.53", "5-501.53", "5-501.6[12]", "5-501.6[2]"))
    assert kinds(faults) == [("own.csv:3", "ambiguous"), ("own.csv:5", "ambiguous")]
    assert "own.csv:2" in faults[0].text


def test_rows_of_one_code_at_different_times_are_not_ambiguous(tables: Tables) -> None:
    assert not lint(
        tables.write(
            "5-501.53 microwave liver valid_to=2099-12-31", "5-501.53 radiofrequency liver valid_from=2100-01-01"
        )
    )


def test_a_sites_table_may_say_otherwise_than_ours(tables: Tables) -> None:
    ours, own = tables.write("5-501.53", name="ops.csv"), tables.write("5-501.53 ablation", site=True)
    assert lint_tables([ours, own], WORDS, TODAY) == []


@pytest.mark.parametrize(
    ("system", "good", "bad"),
    [
        ("icd10pcs", "0F503ZF", "0F503Z"),
        ("icd10pcs", "0F5[012]3Z?", "0F5[012]3Z??"),
        ("icd10pcs", "0F5*", "0F5O*"),
        ("icd10pcs", "0F503ZF", "0f503zf"),
        ("ops", "8-836.ka", "8836ka"),
        ("ops", "8-836.*", "8836*"),
        ("ops", "5-501.5?", "5-501.5???"),
        ("snomed", "609232008", "609232009"),
        ("snomed", "78701*", "7.87E+08"),
        ("cpt", "4738[234]", "4738[234]0"),
        ("opcs4", "J12.4", "J124"),
        ("ccam", "HLNK001", "HLNK01"),
        ("chop", "Z50.27.31", "50.27.31"),
        ("chop", "Z50.27.*", "Z5027*"),
    ],
)
def test_patterns_that_no_code_of_the_system_can_match(tables: Tables, system: str, good: str, bad: str) -> None:
    assert lint(tables.write(good, system=system)) == []
    assert kinds(lint(tables.write(bad, system=system))) == [("own.csv:2", "impossible")]


def test_local_codes_have_any_shape(tables: Tables) -> None:
    assert lint(tables.write("RIS-4711", "ct/17.b", system="http://hospital.example/keys")) == []


def test_what_a_coder_should_look_at_is_a_warning(tables: Tables) -> None:
    faults = lint(tables.write("5-501.53 microwave liver valid_to=2024-12-31 meaning= checked="))
    assert [(fault.kind, fault.level) for fault in faults] == [
        ("expired", "warning"),
        ("no-meaning", "warning"),
        ("unchecked", "warning"),
    ]


def test_rows_that_decide_about_no_code_of_a_list(tables: Tables) -> None:
    table = tables.write("5-501.5* ablation", "5-501.53", "5-501.54", "5-501.9*", "5-501.5?", "5-501.8* none liver")
    faults = lint(table, ("5-501.53", "5-501.54", "5-501.80"))
    assert kinds(faults) == [("own.csv:2", "shadowed"), ("own.csv:5", "matches-nothing"), ("own.csv:6", "shadowed")]
    assert "own.csv:3" in faults[0].text


def test_an_expired_row_need_not_be_in_the_list(tables: Tables) -> None:
    table = tables.write("5-501.53 microwave liver valid_to=2020-12-31", "5-501.54")
    assert kinds(lint(table, ("5-501.54",))) == [("own.csv:2", "expired")]


def test_without_a_list_a_set_whose_every_code_has_a_row_of_its_own_is_shadowed(tables: Tables) -> None:
    faults = lint(tables.write("5-501.5[34] ablation", "5-501.53", "5-501.54"))
    assert kinds(faults) == [("own.csv:2", "shadowed")]
    assert not lint(tables.write("5-501.5[345] ablation", "5-501.53", "5-501.54"))


def test_a_row_that_decides_before_a_more_specific_one_begins_is_not_shadowed(tables: Tables) -> None:
    rows = ["5-501.5[34] ablation", "5-501.53 microwave liver valid_from=2025-01-01", "5-501.54"]
    assert not lint(tables.write(*rows))
    rows[1] = "5-501.53 microwave liver valid_to=2099-01-01"
    assert not lint(tables.write(*rows))


def test_a_file_that_is_no_table(tables: Tables) -> None:
    path = tables.folder / "x.csv"
    path.write_bytes(b"\xff\xfe\x00")
    (fault,) = lint(TableFile(path, "ops", "x.csv"))
    assert (fault.level, fault.kind) == ("error", "unreadable")
    path.write_text("code,technique\n", encoding="utf-8")
    (fault,) = lint(TableFile(path, "ops", "x.csv"))
    assert "the first line must read" in fault.text


_CELL = st.sampled_from(["microwave", "none", "liver", "", "percutaneous", "main", "implied", "nonsense", "2025-01-01"])
_CODE = st.text("5-0.[]*?13", min_size=0, max_size=8)


@given(rows=st.lists(st.tuples(_CODE, st.lists(_CELL, min_size=11, max_size=11)), min_size=1, max_size=4))
def test_lint_finds_an_error_exactly_where_the_loader_refuses(
    rows: list[tuple[str, list[str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lint") / "x.csv"
    good = ["microwave", "liver", "percutaneous", "none", "main", "implied", "", "", "m", "c", ""]
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows([code, *(good if place % 2 else cells)] for place, (code, cells) in enumerate(rows, start=1))
    try:
        GlobIndex(load_code_table(path, "local", dict.fromkeys(WORDS), label="x.csv"))
        refused = ""
    except MappingError as exc:
        refused = exc.where
    # a local system, whose codes have any shape
    errors = {fault.place for fault in lint(TableFile(path, "local", "x.csv")) if fault.level == "error"}
    assert bool(errors) == bool(refused)
    assert not refused or refused in errors


def test_the_shipped_tables_have_no_error(ruleset: Ruleset) -> None:
    folder = shipped_path("mappings")
    faults = lint_tables(shipped_tables(folder), ruleset.rules.techniques, TODAY)
    assert [fault for fault in faults if fault.kind != "expired"] == []
    assert lint_rules(folder, "iasios") == []


def test_a_fault_of_the_rules_is_said(tmp_path: Path) -> None:
    faults = lint_rules(tmp_path, "iasios")
    assert [fault.kind for fault in faults] == ["rules", "rules"]


def test_every_row_for_icd10pcs_decides_about_a_published_code(ruleset: Ruleset) -> None:
    path = CODES / "icd10pcs" / "icd10pcs_2025_codes_generated.tsv"
    if not path.exists():
        pytest.skip("the ICD-10-PCS 2025 code list is absent")
    table = next(table for table in shipped_tables(shipped_path("mappings")) if table.system == "icd10pcs")
    codes = {"icd10pcs": read_code_list(path, "icd10pcs")}
    faults = lint_tables([table], ruleset.rules.techniques, TODAY, codes)
    assert [fault for fault in faults if fault.kind != "expired"] == []


@pytest.mark.parametrize(
    "text",
    [
        "code,label\n8836KA,text\n5-501.53,more\n",
        "\ufefflabel;code\nx;8836KA\ny;5-501.53\n",
        "8836KA\tx, y\n5-501.53\tz\n",
    ],
)
def test_lists_of_codes_come_in_several_forms(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    assert read_code_list(path, "ops") == ("8-836.ka", "5-501.53")


def test_a_list_without_codes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("code\n", encoding="utf-8")
    with pytest.raises(MappingError, match="holds no code"):
        read_code_list(path, "ops")
    with pytest.raises(MappingError, match="cannot be read"):
        read_code_list(tmp_path / "none.csv", "ops")
