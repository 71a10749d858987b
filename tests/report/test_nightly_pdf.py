"""The nightly report on paper: one page, the numbers of the page for the browser, the same bytes each time."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.report.test_dossier import texts_of
from tests.report.test_nightly import HOSTILE, data

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.model import Decision
from io_fhir_adapter.report import typeset as setting
from io_fhir_adapter.report.nightly import RunFact, UnmappedCode
from io_fhir_adapter.report.nightly_pdf import report_files, report_pdf, shown_on_paper
from io_fhir_adapter.volume.count import Period, Seen, VolumeCounter

CATEGORIES = ("ablation-rfa", "ablation-mwa", "ablation-cryo", "ablation-ire", "tace", "deb-tace", "tare", "pve",
              "ia-chemo", "biliary", "urinary", "cementoplasty", "neurolysis")  # fmt: skip


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return report_files(data(), pdf=True)


def pages(pdf: bytes) -> int:
    (found,) = re.findall(rb"/Type\s*/Pages\s*/Count (\d+)", pdf)
    return int(found)


def test_paper_and_page_say_the_same(files: dict[str, bytes]) -> None:
    paper = [line.strip() for line in texts_of(files["report.pdf"]).splitlines()]
    page = files["report.html"].decode()
    for words in ("12", "13", "Haus am See", "Threshold reached", "The threshold was reached on 10 January 2025.",
                  "Transarterial chemoembolisation", "Look-alike of an IO code", "1,234", "1,240", "X-1",
                  "Not counted, and why"):  # fmt: skip
        assert words in paper, words
        assert words in page or words.startswith("Not counted")
    assert any("sha256:abc" in line for line in paper)
    assert any(line.startswith("Synthetic demonstration data") for line in paper)
    assert any(line.startswith("urn:uuid:1: accepted. The receiver") for line in paper)
    assert not any("secret-7" in line for line in paper)


def test_the_same_report_gives_the_same_bytes(files: dict[str, bytes]) -> None:
    assert report_pdf(data()) == files["report.pdf"]
    assert pages(files["report.pdf"]) == 1


def test_where_no_paper_is_wanted_there_is_the_page_alone(undrawn: None) -> None:
    assert set(report_files(data())) == {"report.html"}


def test_whatever_has_to_go_on_it_goes_on_one_page() -> None:
    counter = VolumeCounter(Period.year("2025"), 150, dict.fromkeys(CATEGORIES, "yes"))
    for at, category in enumerate(CATEGORIES):
        for reason in ("look-alike", "other-disease", "planning-only", "undated", "revision-only", "add-on-only"):
            counter.add(Decision("s", f"Patient/{at}", "2025-03-04", category, "not-counted", reason))
        counter.add(Decision("s", f"Patient/{at}", "2025-03-04", category, "counted", "counted"))
    full = data(
        facility_name=f"{HOSTILE} #pagebreak() " * 4,
        volume=counter.result(Seen(9, 9, {"completed": 9}, 9, 9, 9, 0)),
        runs=tuple(RunFact(f"clinic-{at}: Procedure", at, 0, 1, at % 2 == 0, 1.0) for at in range(20)),
        notes=("the server did what no server should do, and said so at length; " * 6,) * 9,
        unmapped=(UnmappedCode("http://local.example/" + "very-long/" * 20, "X-1234567890", None, 3, 2),) * 9,
        unmapped_total=None,
        cases=None,
        submission=None,
        synthetic=False,
    )
    shown = shown_on_paper(full)
    assert shown["complete"] is False
    assert [row[-1] for row in shown["readings"]] == ["no"] * 8  # what is not complete comes first
    assert shown["categories"][-1] == ["", "3 more", "3", "0"]
    assert shown["reasons"][1]["rows"][-1] == ["2 more", "26"]
    assert (shown["codes_total"], shown["notes"][-1]) == ("9", "5 more on the page of the report.")
    pdf = report_pdf(full)
    assert pages(pdf) == 1
    assert any("<script>alert" in line and "#pagebreak()" in line for line in texts_of(pdf).splitlines())


def test_a_scope_is_said_and_a_first_year_shows_what_was_read() -> None:
    said = shown_on_paper(replace(data(), previous=None, scope="Only the department's records."))
    assert said["figures"][-1] == {"name": "Procedures read in the period", "value": "40"}
    assert said["notes"][0] == "Only the department's records."


def test_a_night_writes_it_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    procedure = {"resourceType": "Procedure", "id": "1", "status": "completed", "subject": {"reference": "Patient/1"},
                 "performedDateTime": "2025-03-04", "code": {"text": "a synthetic one"}}  # fmt: skip
    (tmp_path / "data" / "one.json").write_text(json.dumps(procedure), encoding="utf-8")
    path = tmp_path / "hospital.yaml"
    path.write_text("facility: {code: F-1}\nsources: [{name: a, kind: files, paths: [data]}]\n", encoding="utf-8")
    arguments = ["run", "--config", str(path), "--dry-run", "--as-of", "2026-01-30"]
    assert run([*arguments, "--pdf"]) == 0
    assert str(tmp_path / "out" / "report.pdf") in capsys.readouterr().out
    assert pages((tmp_path / "out" / "report.pdf").read_bytes()) == 1


@pytest.mark.parametrize(("lines", "options", "where"), [("", ["--pdf"], "--pdf"), ("output: {pdf: true}", [], "out")])
def test_without_typst_nothing_is_begun_and_a_sentence_says_what_to_do(
    lines: str, options: list[str], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "hospital.yaml"
    path.write_text(f"facility: {{code: F-1}}\nsources: [{{name: a, kind: files, paths: [data]}}]\n{lines}\n", "utf-8")
    monkeypatch.setattr(setting, "find_spec", lambda _: None)
    for name in ("run", "serve") if lines else ("run",):
        assert run([name, "--config", str(path), *options]) == 2
    said = capsys.readouterr().err
    assert f"{where}" in said
    assert "the PDF of the report needs typst, which is not installed; pip install 'io-fhir-adapter[pdf]'" in said
    assert not list((tmp_path / "out").glob("*"))


def test_checking_says_beforehand_whether_the_paper_can_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hospital.yaml"
    path.write_text("facility: {code: F-1}\nsources: [{name: a, kind: files, paths: [data]}]\noutput: {pdf: true}\n")

    def report() -> str:
        run(["check", "--config", str(path), "--json"])
        checks: list[dict[str, str]] = json.loads(capsys.readouterr().out)
        return next(check["state"] for check in checks if check["name"] == "report")

    assert report() == "ok"
    monkeypatch.setattr(setting, "find_spec", lambda _: None)
    assert report() == "fail"
