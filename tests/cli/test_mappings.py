"""The workbench on the command line: exit codes, files written, nothing of ours touched."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.classify.tables import COLUMNS
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.shipped import shipped_path

OPS, LOCAL, ICD = (
    "http://fhir.de/CodeSystem/bfarm/ops",
    "http://hospital.example/keys",
    "http://hl7.org/fhir/sid/icd-10",
)
HEADER = ",".join(COLUMNS)
ROW = "K1,microwave,liver,percutaneous,none,main,expected,,,synthetic,synthetic,"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command of the group in this process; gives exit code, stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = run(["mappings", *map(str, arguments)])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return call


def export_of_five_patients(folder: Path, display: str = "Mikrowellenablation Leber") -> Path:
    """Five patients with the same local key, and one with a code that has a row."""
    coded = [(number, {"system": LOCAL, "code": "K1", "display": display}) for number in range(1, 6)]
    coded.append((6, {"system": OPS, "code": "5-501.93"}))
    lines = [
        json.dumps(
            {
                "resourceType": "Procedure", "id": str(number), "status": "completed",
                "subject": {"reference": f"Patient/{number}"}, "performedDateTime": "2025-03-14",
                "code": {"coding": [coding]}, "reasonCode": [{"coding": [{"system": ICD, "code": "C22.0"}]}],
            }
        )
        for number, coding in coded
    ]  # fmt: skip
    (folder / "in").mkdir()
    path = folder / "in" / "procedures.ndjson"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def configured(folder: Path, *tables: Path) -> Path:
    document: dict[str, Any] = {
        "facility": {"code": "F-1"},
        "sources": [{"name": "files", "kind": "files", "paths": ["in"]}],
        "mappings": {"site_tables": [{"system": LOCAL, "file": str(table)} for table in tables]},
    }
    path = folder / "facility.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def table(folder: Path, *rows: str) -> Path:
    path = folder / "keys.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["lint", "coverage", "suggest", "export", "import", "diff"])
def test_every_command_explains_itself_with_an_example(name: str, say: Run) -> None:
    code, out, _ = say(name, "--help")
    assert code == 0
    assert f"Example: io-fhir-adapter mappings {name}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["coverage"], "no input is named"),
        (["suggest", "--out", "/nowhere/x.csv"], "no input is named"),
        (["lint", "--table", "x.csv"], "--system"),
        (["lint", "--codes", "x.csv"], "--system"),
        (["export", "--out", "x", "--format", "xml"], "there is no format"),
        (["diff", "old", "new"], "no ledger is named"),
        (["diff", "old", "new", "--ledger", "x"], "no mappings folder"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_two(arguments: list[str], words: str, say: Run) -> None:
    code, out, err = say(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


def test_lint_of_what_ships_is_clean(say: Run) -> None:
    code, out, err = say("lint")
    assert (code, err) == (0, "")
    assert " 0 errors" in f" {out.splitlines()[-1]}"


def test_lint_says_every_error_of_a_sites_table(tmp_path: Path, say: Run) -> None:
    bad = table(tmp_path, ROW.replace("microwave", "microwaves"), ROW, ROW)
    code, out, _ = say("lint", "--config", configured(tmp_path, bad))
    assert code == 1
    assert "keys.csv:2: error: 'microwaves' is no technique; did you mean 'microwave'? [unknown-word]" in out
    assert "keys.csv:4: error:" in out
    assert "[ambiguous]" in out


def test_lint_of_one_table_against_a_list_as_json(tmp_path: Path, say: Run) -> None:
    own = table(tmp_path, ROW, ROW.replace("K1", "K2"))
    codes = tmp_path / "codes.csv"
    codes.write_text("code\nK1\n", encoding="utf-8")
    code, out, _ = say("lint", "--table", own, "--system", LOCAL, "--codes", codes, "--json")
    assert code == 0
    (fault,) = json.loads(out)
    assert (fault["level"], fault["kind"], fault["place"]) == ("warning", "matches-nothing", "keys.csv:3")


def test_coverage_of_files(tmp_path: Path, say: Run) -> None:
    path = export_of_five_patients(tmp_path)
    code, out, err = say("coverage", path, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["procedures"], found["known"], found["mapped"]) == (6, 1, 1)
    assert found["unmapped"] == [
        {
            "system": LOCAL, "code": "K1", "display": "Mikrowellenablation Leber", "procedures": 5, "patients": 5,
            "known_system": False,
        }
    ]  # fmt: skip
    code, out, _ = say("coverage", path, path)
    assert "6 completed Procedures" in out
    assert "Mikrowellenablation" in out


def test_a_display_that_few_share_is_not_shown(tmp_path: Path, say: Run) -> None:
    path = export_of_five_patients(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    _, out, _ = say("coverage", path)
    assert "K1" in out
    assert "Mikrowellenablation" not in out


def test_coverage_of_a_file_that_cannot_be_read_says_so(tmp_path: Path, say: Run) -> None:
    good, bad = export_of_five_patients(tmp_path), tmp_path / "bad.ndjson.gz"
    bad.write_bytes(b"\x1f\x8bnothing")
    code, out, err = say("coverage", good, bad)
    assert code == 1
    assert "6 completed Procedures" in out
    assert "bad.ndjson.gz" in err


def test_a_proposed_row_can_be_accepted_and_decides(tmp_path: Path, say: Run) -> None:
    path, proposed, accepted = export_of_five_patients(tmp_path), tmp_path / "s.csv", tmp_path / "keys.csv"
    code, out, _ = say("suggest", path, "--out", proposed)
    assert code == 0
    assert LOCAL in out
    with proposed.open(encoding="utf-8", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert list(row) == [*COLUMNS, "score", "display"]
    assert (row["code"], row["technique"], row["site"]) == ("K1", "microwave", "liver")

    assert say("suggest", path, "--out", accepted, "--accept-above", "100")[0] == 0
    assert accepted.read_text(encoding="utf-8").splitlines() == [HEADER]
    assert say("suggest", path, "--out", accepted, "--accept-above", "60")[0] == 0
    config = configured(tmp_path, accepted)
    code, out, _ = say("lint", "--config", config)
    assert code == 0
    assert "keys.csv:2: warning: where the row was checked" in out
    _, out, _ = say("coverage", path, "--config", config, "--json")
    assert json.loads(out)["mapped"] == 6
    code, _, err = say("suggest", path, "--config", config, "--out", accepted)
    assert code == 2
    assert "table in use" in err


def test_a_display_of_one_patient_is_counted_and_read_only_where_that_is_asked_for(tmp_path: Path, say: Run) -> None:
    path, out = tmp_path / "one.ndjson", tmp_path / "s.csv"
    coding = {"system": LOCAL, "code": "K7", "display": "Mikrowellenablation Leber"}
    resource = {
        "resourceType": "Procedure", "id": "1", "status": "completed", "subject": {"reference": "Patient/1"},
        "code": {"coding": [coding]}, "performedDateTime": "2025-03-14",
    }  # fmt: skip
    path.write_text(json.dumps(resource), encoding="utf-8")
    code, shown, said = say("suggest", path, "--out", out)
    assert code == 0
    assert "0 rows proposed; 1 local codes have no row" in shown
    assert f"no proposal        1 Procedures  {LOCAL} K7" in shown
    assert said == (
        "1 displays were not read, because fewer than 5 patients share each and it may name them; "
        "--shared-by 1 reads them\n"
    )
    assert "Mikrowellenablation" not in shown + said + out.read_text(encoding="utf-8")

    code, shown, said = say("suggest", path, "--out", out, "--shared-by", "1")
    assert (code, said) == (0, "")
    assert "no proposal" not in shown
    with out.open(encoding="utf-8", newline="") as handle:
        assert [row["technique"] for row in csv.DictReader(handle)] == ["microwave"]
    assert "Mikrowellenablation" not in say("coverage", path)[1]


def test_several_local_systems_get_a_file_each(tmp_path: Path, say: Run) -> None:
    path = export_of_five_patients(tmp_path)
    other = path.read_text(encoding="utf-8").replace(LOCAL, "http://other.example/keys").replace('"id": "', '"id": "b')
    (tmp_path / "in" / "other.ndjson").write_text(other, encoding="utf-8")
    code, out, _ = say("suggest", tmp_path / "in", "--out", tmp_path / "s.csv")
    assert code == 0
    assert sorted(found.name for found in tmp_path.glob("s*.csv")) == ["s-1.csv", "s-2.csv"]
    assert "http://other.example/keys" in out


def test_nothing_is_written_into_the_shipped_mappings(tmp_path: Path, say: Run) -> None:
    ours = shipped_path("mappings", "codes")
    before = sorted(path.name for path in ours.iterdir())
    path = export_of_five_patients(tmp_path)
    for arguments in (["suggest", path, "--out", ours / "x.csv"], ["export", "--out", ours]):
        code, _, err = say(*arguments)
        assert code == 2
        assert "table in use" in err
    assert sorted(found.name for found in ours.iterdir()) == before


def test_what_was_exported_can_be_imported(tmp_path: Path, say: Run) -> None:
    own = table(tmp_path, ROW, ROW.replace("K1", "K2*").replace("synthetic,", '"one, two",', 1))
    code, out, _ = say("export", "--out", tmp_path / "fhir", "--config", configured(tmp_path, own))
    assert code == 0
    assert "resources" in out
    concept_map = tmp_path / "fhir" / "ConceptMap-site-keys-to-procedure-category.json"
    code, out, err = say("import", concept_map, "--out", tmp_path / "back.csv")
    assert (code, err) == (0, "")
    assert (tmp_path / "back.csv").read_text(encoding="utf-8") == own.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["", "[1", "{}", "NaN", '{"resourceType": "ConceptMap", "group": [{"element": [{}]}]}']
)
def test_what_is_no_usable_concept_map_is_one_sentence(text: str, tmp_path: Path, say: Run) -> None:
    path = tmp_path / "map.json"
    path.write_text(text, encoding="utf-8")
    code, out, err = say("import", path, "--out", tmp_path / "x.csv")
    assert code in {1, 2}
    assert out == ""
    assert str(path) in err.splitlines()[-1]
    assert not (tmp_path / "x.csv").exists()


def test_a_difference_needs_a_ledger_that_exists(tmp_path: Path, say: Run) -> None:
    ours = shipped_path("mappings")
    code, _, err = say("diff", ours, ours, "--config", configured(tmp_path))
    assert code == 1
    assert "there is no ledger yet" in err
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_difference_over_a_ledger(tmp_path: Path, say: Run) -> None:
    export_of_five_patients(tmp_path)
    config, ours = configured(tmp_path), shipped_path("mappings")
    assert run(["pull", "--config", str(config)]) == 0
    _, _, _ = say("lint")  # what pull said is out of the way
    code, out, err = say("diff", ours, ours, "--config", config)
    assert (code, err) == (0, "")
    assert out.startswith("0 sessions would be decided otherwise")
    code, out, _ = say("coverage", "--config", config, "--json")
    assert (code, json.loads(out)["procedures"]) == (0, 6)

    new = tmp_path / "new"
    (new / "codes").mkdir(parents=True)
    for path in ours.rglob("*.*"):
        target = new / path.relative_to(ours)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        keep = [
            line for line in text.splitlines(keepends=True) if path.name != "ops.csv" or not line.startswith("5-501")
        ]
        target.write_text("".join(keep), encoding="utf-8")
    code, out, _ = say("diff", ours, new, "--ledger", tmp_path / "ledger.sqlite", "--json")
    found = json.loads(out)
    assert (code, found["changed"]) == (0, 1)
    assert found["examples"][0]["before"]["decision"] == "counted"
    assert found["examples"][0]["procedures"] == ["Procedure/6"]
    assert "Patient" not in out


def test_explain_says_which_shipped_row_a_site_s_own_stands_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_of_five_patients(tmp_path)
    own = table(tmp_path, ROW.replace("K1,", "5-501.93,"))
    config = configured(tmp_path, own)
    config.write_text(config.read_text(encoding="utf-8").replace(LOCAL, OPS), encoding="utf-8")
    assert run(["pull", "--config", str(config)]) == 0
    capfd.readouterr()
    assert run(["explain", "6", "--config", str(config)]) == 0
    assert "(keys.csv:2), the site's own row in place of codes/ops.csv:" in capfd.readouterr().out
