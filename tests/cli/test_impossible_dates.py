"""What cannot have been done on its date, before birth or after death: set aside, shown, and back when corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.cli.main import run

OPS = "http://fhir.de/CodeSystem/bfarm/ops"
ICD = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
BIRTH, DEATH = "the date lies before the patient's birth", "the date lies after the patient's death"
Json = dict[str, Any]


def procedure(name: str, patient: str, day: str = "2025-03-14", **more: Any) -> Json:
    return {
        "resourceType": "Procedure",
        "id": name,
        "status": "completed",
        "subject": {"reference": f"Patient/{patient}"},
        "performedDateTime": day,
        "code": {"coding": [{"system": OPS, "code": "5-501.a3"}]},
        "reasonCode": [{"coding": [{"system": ICD, "code": "C22.0"}]}],
        **more,
    }


def person(name: str, born: str, **more: Any) -> Json:
    return {"resourceType": "Patient", "id": name, "birthDate": born, **more}


class Site:
    """A facility that reads a folder of files."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capfd = capfd
        (folder / "in").mkdir()
        document = {
            "facility": {"code": "F-1"},
            "sources": [{"name": "files", "kind": "files", "paths": ["in"]}],
        }
        self.config = folder / "facility.yaml"
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")

    def write(self, name: str, *resources: Json) -> None:
        text = "".join(json.dumps(resource) + "\n" for resource in resources)
        (self.folder / "in" / name).write_text(text, encoding="utf-8")

    def say(self, *arguments: str) -> str:
        assert run([*arguments, "--config", str(self.config)]) == 0
        shown = self.capfd.readouterr()
        return " ".join((shown.out + shown.err).split())

    def night(self) -> str:
        self.say("run", "--dry-run")
        return " ".join((self.folder / "out" / "report.html").read_text(encoding="utf-8").split())


@pytest.fixture
def site(tmp_path: Path, capfd: pytest.CaptureFixture[str], undrawn: None) -> Site:
    return Site(tmp_path, capfd)


@pytest.mark.parametrize("names", [("a.ndjson", "z.ndjson"), ("z.ndjson", "a.ndjson")], ids=["first", "last"])
def test_it_is_set_aside_in_either_order_and_comes_back_when_corrected(site: Site, names: tuple[str, str]) -> None:
    procedures, people = names
    site.write(procedures, procedure("good", "a"), procedure("early", "b"), procedure("late", "c"))
    site.write(people, person("a", "1950"), person("b", "2025-06"), person("c", "1950", deceasedDateTime="2025-03-12"))
    report = site.night()
    assert f"Procedure: {BIRTH}" in report.replace("&#39;", "'")
    assert f"Procedure: {DEATH}" in report.replace("&#39;", "'")
    shown = site.say("count", "--period", "2025")
    assert "1 counted" in shown
    assert "quarantined 2" in shown
    assert f"set aside and takes part in nothing: {BIRTH} [IOA-RES-014]" in site.say("explain", "early")

    site.night()  # nothing changed: they stay where they are
    assert "quarantined 2" in site.say("count", "--period", "2025")

    site.write(people, person("a", "1950"), person("b", "1960-06"), person("c", "1950", deceasedDateTime="2025-03-13"))
    site.night()
    shown = site.say("count", "--period", "2025")
    assert "3 counted" in shown
    assert "quarantined" not in shown
    assert "COUNTED" in site.say("explain", "early")


def test_a_corrected_procedure_comes_back_and_a_new_death_sets_it_aside(site: Site) -> None:
    site.write("a.ndjson", procedure("p", "a", "1930-01-01"), procedure("q", "b"))
    site.write("z.ndjson", person("a", "1950"), person("b", "1950"))
    site.night()
    assert "quarantined 1" in site.say("count", "--period", "2025")
    site.write("a.ndjson", procedure("p", "a"), procedure("q", "b"))
    site.write("z.ndjson", person("a", "1950"), person("b", "1950", deceasedDateTime="2025-01-01"))
    site.night()
    shown = site.say("count", "--period", "2025")
    assert "quarantined 1" in shown
    assert DEATH in site.say("explain", "q")
    assert "COUNTED" in site.say("explain", "p")


def test_a_procedure_that_no_row_matches_any_more_is_tallied_again(site: Site) -> None:
    site.write("a.ndjson", procedure("p", "a", "1930-01-01"), procedure("q", "b"))
    site.write("z.ndjson", person("a", "1950"))
    site.night()
    other = {"coding": [{"system": OPS, "code": "9-999"}]}
    site.write("a.ndjson", procedure("p", "a", "1930-01-01", code=other), procedure("q", "b"))
    assert BIRTH not in site.night().replace("&#39;", "'")
    assert "other-period 1" in site.say("count", "--period", "2025")


@pytest.mark.parametrize("names", [("a.ndjson", "z.ndjson"), ("z.ndjson", "a.ndjson")], ids=["first", "last"])
def test_counting_files_sets_it_aside_too(site: Site, names: tuple[str, str]) -> None:
    procedures, people = names
    site.write(procedures, procedure("good", "a"), procedure("early", "b"), procedure("late", "c"))
    site.write(people, person("a", "1950"), person("b", "2025-06"), person("c", "1950", deceasedDateTime="2025-03-12"))
    folder = str(site.folder / "in")
    shown = site.say("count", folder, "--period", "2025")
    assert "quarantined 2" in shown
    assert f"Procedure/early: {BIRTH}" in shown
    shown = site.say("classify", folder)
    assert f"Procedure/late: {DEATH}" in shown
    assert shown.count('"decision"') == 1
