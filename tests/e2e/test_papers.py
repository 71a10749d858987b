"""Readiness, standards and dossier on the ledger of a night with a small hospital: right numbers, and nobody's name."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.conftest import Canaries, same_nonces, write_config
from tests.e2e.test_canaries import AS_OF, store_of
from tests.report.test_dossier import texts_of

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import load_config
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.night import Night
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app

pytestmark = pytest.mark.xdist_group("papers")


@dataclass(frozen=True)
class Facility:
    """A facility after its first night."""

    hospital: Hospital
    config: str
    night: Night

    @property
    def submission(self) -> Any:
        assert self.night.submission is not None
        return json.loads(self.night.submission.body)


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Facility:
    folder, hospital = tmp_path_factory.mktemp("papers"), build_hospital(7, patients=150, procedures=900)
    received = ReceiverStore("sqlite://")
    with (
        same_nonces(),
        LoopbackServer(sandbox_app(store_of(hospital))) as sandbox,
        LoopbackServer(receiver_app(received)) as receiver,
    ):
        path = write_config(folder, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir")
        config = load_config(path)
        ledger = open_ledger(config.ledger)
        night = asyncio.run(Nightly(config, ledger, rules_for(config), as_of=AS_OF).run())
        ledger.close()
    received.close()
    return Facility(hospital, str(path), night)


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = run(list(arguments))
    shown = capfd.readouterr()
    assert code == 0, shown.err
    return shown.out


def test_readiness_has_the_numbers_of_the_ledger(facility: Facility, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("readiness", "--config", facility.config, "--as-of", AS_OF.isoformat())
    found = json.loads(told(capfd, *arguments, "--json"))
    by_id = {requirement["id"]: requirement for requirement in found["requirements"]}
    assert {name: one["state"] for name, one in by_id.items()} == {
        "approval": "unknown", "enrolment": "unknown", "volume": "not-yet", "core": "not-yet", "case-review": "person",
    }  # fmt: skip
    volume, sample = facility.night.volume, facility.night.sample
    assert volume is not None
    assert sample is not None
    assert (by_id["volume"]["value"], by_id["volume"]["possible"]) == (volume.counted, volume.possible)
    assert f"{len(sample.cases)} of 30 drawn from {sample.draw.frame_size} patients" in by_id["case-review"]["evidence"]
    assert "Internal case review  0 of 30 signed" in told(capfd, *arguments)


def test_another_programme_counts_the_same_ledger_and_changes_nothing(
    facility: Facility, capfd: pytest.CaptureFixture[str]
) -> None:
    before = told(capfd, "count", "--config", facility.config, "--period", "2025")
    arguments = ("readiness", "--config", facility.config, "--as-of", AS_OF.isoformat(), "--json")
    degir = json.loads(told(capfd, *arguments, "--programme", "degir"))
    iasios = json.loads(told(capfd, *arguments))
    last = {group["id"]: group for group in degir["years"][1]["groups"]}
    assert list(last) == ["A", "B", "C", "D"]
    ours = {group["id"]: group["done"] for group in iasios["years"][1]["groups"]}
    # module D holds what the FAQ's first three groups hold, and more; ports and biopsies are C alone
    assert last["D"]["done"] >= ours["ablations"] + ours["radioembolisation"] + ours["chemoembolisation"]
    assert last["C"]["done"] > 0
    assert degir["years"][1]["counted"] <= last["D"]["done"]
    assert told(capfd, "count", "--config", facility.config, "--period", "2025") == before


def test_the_papers_hold_no_canary(facility: Facility, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    canaries = Canaries(facility.hospital.canaries)
    out = told(
        capfd, "dossier", "--config", facility.config, "--out", str(tmp_path), "--as-of", AS_OF.isoformat(),
        "--evidence",
    )  # fmt: skip
    assert canaries.found(out) == set()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"volume.csv", "cases.csv", "standards.csv", "method.csv", "dossier.xlsx", "dossier.pdf"}
    texts = {path.name: path.read_text(encoding="utf-8-sig") for path in tmp_path.glob("*.csv")}
    with zipfile.ZipFile(tmp_path / "dossier.xlsx") as book:
        texts |= {name: book.read(name).decode() for name in book.namelist()}
    texts["dossier.pdf"] = texts_of((tmp_path / "dossier.pdf").read_bytes())
    sealed = json.dumps(facility.submission)
    for name, text in texts.items():
        assert canaries.found(text) == set(), name
    identifier = facility.submission["identifier"]["value"]
    assert identifier in texts["dossier.pdf"]
    sheets = list(csv.reader(io.StringIO(texts["cases.csv"])))
    assert len(sheets[1][3:]) == sum(
        1 for entry in facility.submission["entry"] if entry["resource"]["resourceType"] == "Patient"
    )
    assert all(token in sealed for token in sheets[1][3:])
    ids = {resource["id"] for found in facility.hospital.resources.values() for resource in found} - {"org-sandbox"}
    words = {word for text in texts.values() for word in text.replace(",", " ").replace("<", " ").split()}
    assert words & ids == set()


def test_papers_that_nobody_approved_are_a_draft(
    facility: Facility, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    approved = Path(facility.config)
    plain = shutil.copytree(approved.parent, tmp_path / "unapproved") / approved.name
    with closing(sqlite3.connect(plain.with_name("ledger.sqlite"))) as ledger, ledger:
        ledger.execute("DELETE FROM approvals")
        ledger.execute("UPDATE outbox SET state = 'queued'")
    document = yaml.safe_load(plain.read_text(encoding="utf-8"))
    document |= {"sign_in": {"public_url": "https://accreditation.example", "accounts": True}}
    signing_in = plain.with_name("with-sign-in.yaml")
    signing_in.write_text(yaml.safe_dump(document), encoding="utf-8")
    for path, told_so in ((signing_in, True), (plain, True), (approved, False)):
        assert run(["dossier", "--config", str(path), "--out", str(tmp_path), "--as-of", AS_OF.isoformat()]) == 0
        assert ("draft: nobody approved the submission yet" in capfd.readouterr().err) == told_so
        method = (tmp_path / "method.csv").read_text(encoding="utf-8-sig")
        assert ("Draft,nobody approved the submission yet" in method) == told_so


def test_there_are_no_papers_without_a_sealed_submission(
    facility: Facility, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["dossier", "--config", facility.config, "--out", str(tmp_path), "--as-of", "2025-06-01"]
    assert run(arguments) == 1
    assert "no submission of 2024 is sealed yet" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_self_assessment_goes_out_and_comes_back(
    facility: Facility, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    form, answers = tmp_path / "form.json", tmp_path / "answers.json"
    told(capfd, "standards", "--config", facility.config, "--export", str(form))
    questionnaire = json.loads(form.read_text(encoding="utf-8"))
    answers.write_text(json.dumps(_all_met(questionnaire)), encoding="utf-8")
    for _ in range(2):  # the same again changes nothing
        words = told(capfd, "standards", "--config", facility.config, "--import", str(answers))
        assert "27 of 27 answered, 27 met" in words
    arguments = ("readiness", "--config", facility.config, "--as-of", AS_OF.isoformat(), "--json")
    found = json.loads(told(capfd, *arguments))
    assert next(one for one in found["requirements"] if one["id"] == "core")["state"] == "met"
    answers.write_text("{", encoding="utf-8")
    assert run(["standards", "--config", facility.config, "--import", str(answers)]) == 1
    assert "the file is no JSON" in capfd.readouterr().err


def _all_met(node: dict[str, Any]) -> dict[str, Any]:
    """A response that says of every core requirement that it is met."""
    items: list[dict[str, Any]] = []
    for item in node["item"]:
        made: dict[str, Any] = {"linkId": item["linkId"]}
        if item.get("prefix") == "core":
            made["answer"] = [{"valueCoding": item["answerOption"][0]["valueCoding"]}]
        elif item["type"] == "group" and not item.get("repeats"):
            made["item"] = _all_met(item)["item"]
        else:
            continue
        items.append(made)
    head = {"resourceType": "QuestionnaireResponse", "questionnaire": node.get("url"), "status": "completed"}
    return {**head, "item": items}
