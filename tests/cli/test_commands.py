"""What a user sees: help with an example, exit codes, one sentence for every error, good input kept beside bad."""

from __future__ import annotations

import ast
import gzip
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fhir.resources.R4B.measurereport import MeasureReport

from io_fhir_adapter.cli import main, mappings, on_demand
from io_fhir_adapter.cli.main import COMMANDS, run

ICD = "http://hl7.org/fhir/sid/icd-10"
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
KEYS = ["source", "patient", "date", "category", "decision", "reason", "findings", "indication", "procedures"]
FINDING_KEYS = ["technique", "site", "approach", "agent", "system", "code", "rule"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return call


def procedure(number: int, code: str = "5-501.a3", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Procedure",
        "id": str(number),
        "status": "completed",
        "subject": {"reference": f"Patient/{number % 3}"},
        "performedDateTime": f"2025-03-{number:02d}",
        "code": {"coding": [{"system": OPS, "code": code}]},
        "reasonCode": [{"coding": [{"system": ICD, "code": "C22.0"}]}],
        **more,
    }


def ndjson(*resources: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(resource).encode() + b"\n" for resource in resources)


def config(folder: Path, **more: Any) -> str:
    document = {
        "facility": {"code": "F-1"},
        "sources": [{"name": "files", "kind": "files", "paths": ["in"]}],
        **more,
    }
    (folder / "in").mkdir(exist_ok=True)
    path = folder / "facility.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def fhir_source(url: str, **more: Any) -> dict[str, Any]:
    return {"sources": [{"name": "server", "kind": "fhir", "url": url, "retries": 0, **more}]}


def one_sentence(err: str, code: str) -> None:
    """Exactly one line, with its code and without a traceback."""
    assert len(err.splitlines()) == 1, err
    assert f"[{code}]" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, say: Run) -> None:
    names = [[name, *more] for more in ([part] for part in getattr(on_demand.command(COMMANDS, name), "commands", ()))]
    for called in names or [[name]]:
        code, out, _ = say(*called, "--help")
        assert code == 0
        assert f"Example: io-fhir-adapter {' '.join(called)}" in " ".join(out.split())


@pytest.mark.parametrize("places", [main.COMMANDS, mappings.COMMANDS], ids=["all", "mappings"])
def test_what_the_help_says_of_a_command_is_the_first_line_of_its_own(places: on_demand.Places) -> None:
    own = {name: (on_demand.command(places, name).help or "").splitlines()[0] for name in places}
    assert own == {name: words for name, (_, words) in places.items()}


HEAVY = {
    "aiohttp", "alembic", "altair", "apscheduler", "fastapi", "fhir.resources", "fhirpathpy", "fhirpy", "httpx",
    "joserfc", "prometheus_client", "rapidfuzz", "requests", "sqlalchemy", "uvicorn", "vl_convert",
}  # fmt: skip
LIGHT = [
    ["--help"],
    ["classify", "in"],
    ["count", "in", "--period", "2025"],
    ["mappings", "--help"],
    ["mappings", "lint"],
]
LOADED = (
    "import sys\nfrom io_fhir_adapter.cli.main import run\nfor one in {0!r}:\n    run(one)\nprint(sorted(sys.modules))"
)


def test_small_commands_start_without_the_libraries_that_a_night_needs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "procedures.ndjson").write_bytes(ndjson(procedure(1)))
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(LIGHT)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert "io_fhir_adapter.engine.local" in loaded
    assert sorted(HEAVY & loaded) == []


def test_the_commands_of_the_contract_are_there() -> None:
    wanted = {"demo", "check", "run", "serve", "pull", "count", "draw", "review", "submit", "classify", "explain"}
    assert wanted | {"sandbox", "receiver"} <= set(COMMANDS)


def test_the_version(say: Run) -> None:
    code, out, err = say("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command"),
        (["run"], "Missing option '--config'"),
        (["run", "--bogus"], "No such option"),
        (["count"], "nothing to count"),
        (["classify"], "no input is named"),
        (["count", "x", "--period", "25"], "is not a year"),
        (["count", "x"], "no period is named"),
        (["classify", "x", "--engine", "abacus"], "there is no engine"),
        (["count", "x", "--period", "2025", "--programme", "nobody"], "nobody"),
        (["run", "--config", "/nowhere/f.yaml"], "cannot be read"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_two(arguments: list[str], words: str, say: Run) -> None:
    code, out, err = say(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize(
    ("text", "words", "error"),
    [
        ("facility: [", "not valid YAML", "IOA-CFG-001"),
        ("", "no settings", "IOA-CFG-001"),
        ("facility: {code: F}\n", "sources is missing", "IOA-CFG-002"),
        ("facility: {code: F, tiem_zone: UTC}\nsources: [{name: a, kind: files, paths: [x]}]\n", "'time_zone'", "002"),
        ("facility: {code: F, time_zone: Mars/Base}\nsources: [{name: a, kind: files, paths: [x]}]\n", "Mars", "002"),
    ],
)
def test_a_bad_configuration_is_one_sentence(text: str, words: str, error: str, tmp_path: Path, say: Run) -> None:
    path = tmp_path / "facility.yaml"
    path.write_text(text, encoding="utf-8")
    code, out, err = say("run", "--config", str(path))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert error in err
    assert str(path) in err


@pytest.mark.parametrize("command", ["run", "pull"])
def test_a_missing_secret_is_one_sentence(command: str, tmp_path: Path, say: Run) -> None:
    auth = {"kind": "bearer", "token": {"env": "IO_FHIR_ADAPTER_NO_SUCH_SECRET"}}
    path = config(tmp_path, **fhir_source("http://127.0.0.1:9/fhir", auth=auth))
    code, _, err = say(command, "--config", path)
    assert code == 1  # what that source cannot do keeps nothing else from being done
    one_sentence(err, "IOA-CFG-003")
    assert "IO_FHIR_ADAPTER_NO_SUCH_SECRET" in err


@pytest.mark.parametrize("command", ["run", "pull"])
def test_an_unreachable_server_is_one_sentence(command: str, tmp_path: Path, say: Run) -> None:
    path = config(tmp_path, **fhir_source("http://127.0.0.1:9/fhir"))
    code, _, err = say(command, "--config", path)
    assert code == 1
    one_sentence(err, "IOA-PUL-001")
    assert "127.0.0.1:9" in err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["count"], 1, "holds no Procedure yet"),
        (["draw"], 1, "no patient has a counted session"),
        (["review"], 1, "no patient has a counted session"),
        (["submit"], 1, "no patient has a counted session"),
        (["explain", "4711"], 2, "no Procedure '4711'"),
        (["explain", "Procedure/4711"], 2, "no Procedure '4711'"),
    ],
)
def test_an_empty_ledger_is_one_sentence(
    arguments: list[str], exit_code: int, words: str, tmp_path: Path, say: Run
) -> None:
    path = config(tmp_path, submission={"url": "http://127.0.0.1:9/fhir"})
    code, _, err = say(*arguments, "--config", path)
    assert code == exit_code
    assert len(err.splitlines()) == 1
    assert words in err


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path, say: Run) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (
        ["demo", "--out", str(tmp_path / "file" / "out")],
        ["run", "--config", config(tmp_path, output={"folder": "file/out"})],
    ):
        code, _, err = say(*arguments)
        assert code == 2
        one_sentence(err, "IOA-CFG-009")


def test_no_such_file_is_one_sentence(tmp_path: Path, say: Run) -> None:
    for command in (["classify"], ["count", "--period", "2025"]):
        code, _, err = say(*command, str(tmp_path / "nothing.ndjson"))
        assert code == 1
        one_sentence(err, "IOA-INP-001")


BAD: dict[str, tuple[str, bytes]] = {
    "XML": ("bad.xml", b'<?xml version="1.0"?><Procedure xmlns="http://hl7.org/fhir"/>'),
    "cut off gzip": ("bad.ndjson.gz", gzip.compress(ndjson(*(procedure(n) for n in range(1, 28))))[:-20]),
    "no gzip": ("bad.json.gz", b"\x1f\x8bnothing of the kind"),
    "PDF": ("bad.ndjson", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"),
    "web page": ("bad.json", b"<!doctype html><title>Sign in</title>"),
}


@pytest.mark.parametrize("kind", BAD)
def test_good_input_beside_bad_is_kept(kind: str, tmp_path: Path, say: Run) -> None:
    name, data = BAD[kind]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.ndjson").write_bytes(ndjson(procedure(1), procedure(2)))
    code, out, err = say("classify", str(tmp_path / name), str(tmp_path / "good.ndjson"), "--json")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert name in err
    assert {"2025-03-01", "2025-03-02"} <= {json.loads(line)["date"] for line in out.splitlines()}
    code, out, err = say("count", str(tmp_path / name), str(tmp_path / "good.ndjson"), "--period", "2025", "--json")
    assert code == 1
    assert len(err.splitlines()) == 1
    MeasureReport.model_validate(json.loads(out))


def test_a_broken_line_is_set_aside_with_its_place_and_the_rest_is_kept(tmp_path: Path, say: Run) -> None:
    path = tmp_path / "mixed[1].ndjson"
    path.write_bytes(ndjson(procedure(1)) + b'{"resourceType": "Procedure", \n' + ndjson(procedure(2)))
    code, out, err = say("classify", str(path))
    assert (code, len(out.splitlines())) == (1, 2)
    assert "1 quarantined" in err
    assert "mixed[1].ndjson:2: a line is no JSON" in err
    code, out, err = say("classify", str(path), "--json")
    assert (code, len(out.splitlines()), len(err.splitlines())) == (1, 2, 1)


def test_an_unusable_resource_is_set_aside_and_the_job_is_done(tmp_path: Path, say: Run) -> None:
    path = tmp_path / "mixed.ndjson"
    path.write_bytes(ndjson(procedure(1), {"resourceType": "Procedure", "id": "9", "status": "completed"}))
    code, out, err = say("classify", str(path))
    assert (code, len(out.splitlines())) == (0, 1)
    assert "mixed.ndjson:2: the Procedure has no subject" in err


def test_stdin_is_read(tmp_path: Path, say: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(ndjson(procedure(1), procedure(2))))
    monkeypatch.setattr(sys, "stdin", stream)
    code, out, _ = say("classify", "-")
    assert (code, len(out.splitlines())) == (0, 2)


def test_a_classified_line_has_exactly_the_keys_of_the_contract(tmp_path: Path, say: Run) -> None:
    (tmp_path / "a.ndjson").write_bytes(ndjson(procedure(1), procedure(2, "1-100", reasonCode=[])))
    code, out, err = say("classify", str(tmp_path), "--json")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert list(line) == [*KEYS, "categories"]
        assert list(line["indication"]) == ["level", "system", "code"]
        assert all(list(finding) == FINDING_KEYS for finding in line["findings"])
    assert [(line["category"], line["decision"]) for line in lines] == [
        ("ablation-mwa", "counted"),
        ("none", "not-counted"),
    ]
    assert lines[0]["procedures"] == ["Procedure/1"]


def test_the_order_of_the_lines_does_not_depend_on_the_order_of_the_files(tmp_path: Path, say: Run) -> None:
    resources = [procedure(number) for number in range(1, 25)]
    outputs = set()
    for name, order in (("one", resources), ("two", resources[::-1])):
        folder = tmp_path / name
        folder.mkdir()
        for place, resource in enumerate(order):
            (folder / f"{place:02d}.json").write_bytes(json.dumps(resource).encode())
        outputs.add(say("classify", str(folder), "--json")[1])
    outputs.add(say("classify", *map(str, sorted((tmp_path / "one").iterdir(), reverse=True)), "--json")[1])
    assert len(outputs) == 1


def test_count_prints_a_valid_measure_report(tmp_path: Path, say: Run) -> None:
    (tmp_path / "a.ndjson").write_bytes(ndjson(procedure(1), procedure(2), procedure(4)))
    code, out, err = say("count", str(tmp_path), "--period", "2025", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    MeasureReport.model_validate(report)
    counts = {
        population["code"]["coding"][0]["code"]: population.get("count")  # none of a step that was not asked for
        for group in report["group"]
        for population in group["population"]
    }
    assert counts["numerator"] == 3
    code, out, _ = say("count", str(tmp_path), "--period", "2025")
    assert code == 0
    assert "3 of 150" in out


def test_one_facility_from_files_end_to_end(tmp_path: Path, say: Run, undrawn: None) -> None:
    path = config(tmp_path)
    patients = [{"resourceType": "Patient", "id": str(number), "gender": "female"} for number in range(3)]
    good = [procedure(number) for number in (1, 2, 4)]
    idle = procedure(5, status="not-done")
    (tmp_path / "in" / "export.ndjson").write_bytes(ndjson(*patients, *good, idle, {**procedure(6), "subject": {}}))
    code, out, err = say("run", "--config", path, "--as-of", "2026-02-01", "--dry-run")
    assert (code, "Case review" in out) == (0, False), err
    assert "3 of 150" in out
    code, out, err = say("run", "--config", path, "--as-of", "2026-02-01")
    assert (code, "2 of 2 patients drawn" in out) == (0, True), err
    assert "all 2 patients of the frame are in the sample: the programme asks for 30" in " ".join(out.split())
    drawn = json.loads(say("draw", "--config", path, "--as-of", "2026-02-01", "--json")[1])
    assert (drawn["short"], drawn["wanted"], drawn["frame"]["size"]) == (True, 30, 2)
    assert "3 of 150" in say("count", "--config", path, "--period", "2025")[1]
    code, out, _ = say("explain", "Procedure/1", "--config", path)
    assert (code, "COUNTED" in out, "codes/ops.csv" in out) == (0, True, True)
    assert "[not-completed]" in say("explain", "5", "--config", path)[1]
    assert "was set aside" in say("explain", "6", "--config", path)[1]
    explained = json.loads(say("explain", "1", "--config", path, "--json")[1])
    assert explained["decisions"][0]["decision"] == "counted"
    assert explained["decisions"][0]["trail"]
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in report


def test_a_wrong_date_is_one_sentence(tmp_path: Path, say: Run) -> None:
    code, _, err = say("run", "--config", config(tmp_path), "--as-of", "30.1.2026")
    assert code == 2
    one_sentence(err, "IOA-USE-005")


def test_an_unforeseen_error_shows_its_type_alone(tmp_path: Path, say: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("Maria Mustermann")

    monkeypatch.setattr("io_fhir_adapter.cli.facility.load_config", fail)
    code, out, err = say("draw", "--config", str(tmp_path / "f.yaml"))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "KeyError" in err
    assert "Mustermann" not in err
