"""A site's scope, from the configuration to files, ledger, explanation, report and funnel. All data is synthetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.cli.main import run

OPS = "http://fhir.de/CodeSystem/bfarm/ops"
ICD = "http://hl7.org/fhir/sid/icd-10"
SUITE = {"include": [{"location": "Location/suite"}], "exclude": [{"performer": "Practitioner/surgeon"}]}
Run = Callable[..., tuple[int, str, str]]
Json = dict[str, Any]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return call


def procedure(name: str, patient: str, **more: Any) -> Json:
    return {
        "resourceType": "Procedure",
        "id": name,
        "status": "completed",
        "subject": {"reference": f"Patient/{patient}"},
        "performedDateTime": "2025-03-14",
        "code": {"coding": [{"system": OPS, "code": "5-501.a3"}]},
        "reasonCode": [{"coding": [{"system": ICD, "code": "C22.0"}]}],
        **more,
    }


def located(place: str) -> Json:
    return {"location": {"reference": f"Location/{place}", "display": "Raum von Dr. Muster"}}


RESOURCES = [
    procedure("inside", "a", **located("suite")),
    procedure("elsewhere", "b", **located("theatre")),
    procedure("silent", "c"),
    procedure("by-stay", "d", encounter={"reference": "Encounter/d"}),
    procedure("excluded", "e", **located("suite"), performer=[{"actor": {"reference": "Practitioner/surgeon"}}]),
    procedure("half-in", "f", **located("suite"), performer=[{"actor": {"reference": "Practitioner/us"}}]),
    procedure("half-out", "f", **located("theatre")),
    {
        "resourceType": "Encounter",
        "id": "d",
        "subject": {"reference": "Patient/d"},
        "location": [{"location": {"reference": "Location/suite"}}],
    },
]
REASONS = {
    "Patient/a": "scope-unknown", "Patient/b": "out-of-scope", "Patient/c": "scope-unknown",
    "Patient/d": "scope-unknown", "Patient/e": "out-of-scope", "Patient/f": "counted",
}  # fmt: skip
"""Of those without a performer nobody can say that it was not the one who is excluded."""
SESSION_LOSSES = {"out-of-scope": 2, "scope-unknown": 3}


def facility(folder: Path, scope: Json | None) -> str:
    (folder / "in").mkdir(exist_ok=True)
    lines = "".join(json.dumps(resource) + "\n" for resource in RESOURCES)
    (folder / "in" / "all.ndjson").write_text(lines, encoding="utf-8")
    document: Json = {
        "facility": {"code": "F-1"},
        "sources": [{"name": "files", "kind": "files", "paths": ["in"]}],
    }
    path = folder / "facility.yaml"
    path.write_text(yaml.safe_dump(document | ({"scope": scope} if scope else {})), encoding="utf-8")
    return str(path)


def reasons(out: str) -> dict[str, str]:
    return {found["patient"]: found["reason"] for found in map(json.loads, out.splitlines())}


def funnel(report: Json) -> dict[str, int]:
    (group,) = [group for group in report["group"] if group["code"]["coding"][0]["code"] == "funnel"]
    found = {one["code"]["coding"][0]["code"]: one["count"] for one in group["population"] if "count" in one}
    for stratum in group["stratifier"][0].get("stratum", []):
        for one in stratum["population"]:
            found[f"{one['code']['coding'][0]['code']}: {stratum['value']['text']}"] = one["count"]
    return found


def test_files_are_decided_on_within_the_scope(tmp_path: Path, say: Run) -> None:
    inputs = str(tmp_path / "in")
    code, out, _ = say("classify", inputs, "--config", facility(tmp_path, SUITE))
    assert code == 0
    assert reasons(out) == REASONS
    assert "Muster" not in out
    without = reasons(say("classify", inputs, "--config", facility(tmp_path, None))[1])
    assert set(without.values()) == {"counted"}


def test_a_site_may_take_silence_for_an_answer(tmp_path: Path, say: Run) -> None:
    config = facility(tmp_path, {**SUITE, "when_unknown": "include"})
    found = reasons(say("classify", str(tmp_path / "in"), "--config", config)[1])
    assert {patient for patient, reason in found.items() if reason == "counted"} == {
        "Patient/a", "Patient/c", "Patient/d", "Patient/f",
    }  # fmt: skip


def test_the_ledger_says_the_same_as_the_files_and_a_new_scope_decides_anew(
    tmp_path: Path, say: Run, undrawn: None
) -> None:
    config = facility(tmp_path, None)
    assert say("run", "--config", config, "--as-of", "2026-06-01", "--dry-run")[0] == 0
    before = funnel(json.loads(say("count", "--config", config, "--period", "2025", "--json")[1]))
    assert not [name for name in before if "in-scope" in name]

    facility(tmp_path, SUITE)
    _, _, warned = say("count", "--config", config, "--period", "2025")
    assert "decided on with other tables, programme or scope" in warned
    code, _, _ = say("run", "--config", config, "--as-of", "2026-06-01", "--dry-run")
    assert code == 0
    code, out, warned = say("count", "--config", config, "--period", "2025", "--json")
    assert (code, warned) == (0, "")
    from_ledger = funnel(json.loads(out))
    from_files = funnel(
        json.loads(say("count", str(tmp_path / "in"), "--config", config, "--period", "2025", "--json")[1])
    )
    assert from_ledger == from_files
    assert (from_ledger["in-scope"], from_ledger["counted"]) == (1, 1)
    lost = {reason: from_ledger[f"lost-at-in-scope: {reason}"] for reason in SESSION_LOSSES}
    assert lost == SESSION_LOSSES


def test_the_report_and_the_explanation_show_the_scope(tmp_path: Path, say: Run) -> None:
    config = facility(tmp_path, SUITE)
    assert say("run", "--config", config, "--as-of", "2026-06-01", "--dry-run")[0] == 0
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "limits the scope: 1 rule includes, 1 rule excludes; a record that does not say is left for review" in html
    assert "outside the scope&nbsp;2" in html
    out = say("explain", "excluded", "--config", config)[1]
    assert "NOT COUNTED" in out
    assert "by Procedure.performer.actor  (scope.exclude[0])" in out
    assert "surgeon" not in out
    out = say("explain", "half-out", "--config", config)[1]
    assert "Procedure/half-out is none of those included, by Procedure.location (scope.include)" in out
    assert "COUNTED  " not in out


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"inclde": []}, "scope.inclde is not a known key; did you mean 'include'?"),
        ({"include": [{"location": "Organization/1"}]}, "scope.include.0.location: write Location/ID"),
    ],
)
def test_a_wrong_scope_is_one_sentence(scope: Json, words: str, tmp_path: Path, say: Run) -> None:
    code, out, err = say("classify", str(tmp_path / "in"), "--config", facility(tmp_path, scope))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert words in err
