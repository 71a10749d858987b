"""Checking a submission from its Bundle alone: what is true passes, whatever was tampered with does not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from io_fhir_adapter.cli.main import app
from io_fhir_adapter.submit.seal import CaseContent, SubmissionContent, Superseded, seal
from io_fhir_adapter.trust.drawn import Place, draw_problems
from io_fhir_adapter.trust.frame import rank
from io_fhir_adapter.trust.submission import submission_digest
from io_fhir_adapter.trust.verify import verify_submission

Bundle = dict[str, Any]
BASE = "https://io-fhir-adapter.example/fhir"
MEASURE = f"{BASE}/Measure/io-annual-volume-iasios"


def _case(number: int, token: str) -> CaseContent:
    review = {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": f"{BASE}/Questionnaire/x",
        "status": "completed",
    }
    return CaseContent(number, token, {"resourceType": "Patient"}, (), (), review)


@pytest.fixture
def bundle(synthetic_draw: Callable[..., Any]) -> Bundle:
    """A sealed submission with three cases and two reserves."""
    return submission(synthetic_draw())


def submission(draw: Any) -> Bundle:
    """The sealed submission of a draw."""
    content = SubmissionContent(
        facility_code="F-001",
        programme="iasios",
        period_start=date(2025, 1, 1),
        period_end=date(2025, 12, 31),
        measure={"resourceType": "Measure", "url": MEASURE, "status": "draft"},
        measure_report={
            "resourceType": "MeasureReport", "status": "complete", "type": "summary", "measure": MEASURE,
            "period": {"start": "2025-01-01", "end": "2025-12-31"},
        },
        group=draw.group,
        draw=draw.drawn,
        questionnaire=None,
        cases=tuple(_case(number, token) for number, token in enumerate(draw.tokens, start=1)),
        method={
            "frame_digest": draw.commitment.digest, "nonce": draw.nonce, "ruleset_digest": "sha256:" + "c" * 64,
            "software_version": "0",
        },
        superseded=(Superseded("sha256:" + "d" * 64, "rules-corrected"),),
    )  # fmt: skip
    return seal(content, datetime(2026, 1, 5, tzinfo=UTC))


def of_kind(bundle: Bundle, kind: str) -> Bundle:
    return next(entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind)


def failed(bundle: Bundle) -> list[str]:
    return [finding.check for finding in verify_submission(bundle) if not finding.holds]


def test_a_true_submission_holds_and_says_what_was_drawn(bundle: Bundle) -> None:
    found = {finding.check: finding.words for finding in verify_submission(bundle)}
    assert failed(bundle) == []
    assert found["frame"] == "120 patients, 2024-12-02 to 2025-12-01"
    assert found["draw"].startswith("3 cases, 2 reserves, 0 left; nonce: local; 1 earlier draw superseded")


def _nonce(bundle: Bundle) -> None:
    entities = of_kind(bundle, "Provenance")["entity"]
    nonce = next(entity for entity in entities if entity["what"]["identifier"]["system"].endswith("draw-nonce"))
    nonce["what"]["identifier"]["value"] = "cd" * 32


def _role(place: int, code: str) -> Callable[[Bundle], None]:
    return lambda bundle: of_kind(bundle, "List")["entry"][place]["flag"]["coding"][0].update(code=code)


def _swap(bundle: Bundle) -> None:
    entries = of_kind(bundle, "List")["entry"]
    entries[0], entries[1] = entries[1], entries[0]


def _another_reference(bundle: Bundle) -> None:
    first, second = (entry["item"] for entry in of_kind(bundle, "List")["entry"][:2])
    first["reference"], second["reference"] = second["reference"], first["reference"]


def _reserve_as_case(bundle: Bundle) -> None:
    entries = of_kind(bundle, "List")["entry"]
    entries[-1]["item"]["reference"] = entries[0]["item"]["reference"]


def _another_case(bundle: Bundle) -> None:
    """A patient of the frame whom nobody drew, in the place of a case, everywhere."""
    drawn = {entry["item"]["identifier"]["value"] for entry in of_kind(bundle, "List")["entry"]}
    frame = [member["entity"]["identifier"]["value"] for member in of_kind(bundle, "Group")["member"]]
    chosen, old = (
        next(token for token in frame if token not in drawn),
        of_kind(bundle, "Patient")["identifier"][0]["value"],
    )
    of_kind(bundle, "Patient")["identifier"][0]["value"] = chosen
    place = next(e for e in of_kind(bundle, "List")["entry"] if e["item"]["identifier"]["value"] == old)
    place["item"]["identifier"]["value"] = chosen


TAMPERED: dict[str, Callable[[Bundle], Any]] = {
    "a token left out of the frame": lambda b: of_kind(b, "Group")["member"].pop(),
    "a token changed": lambda b: of_kind(b, "Group")["member"][5]["entity"]["identifier"].update(value="f" * 64),
    "the frame's digest": lambda b: of_kind(b, "Group")["identifier"][0].update(value="sha256:" + "0" * 64),
    "the window": lambda b: of_kind(b, "Group")["characteristic"][0]["period"].update(end="2025-11-01"),
    "the rules": lambda b: of_kind(b, "Group")["identifier"][1].update(value="sha256:" + "0" * 64),
    "the number of patients": lambda b: of_kind(b, "Group").update(quantity=200),
    "the programme": lambda b: b["meta"]["tag"][0].update(code="degir"),
    "the nonce": _nonce,
    "the order": _swap,
    "a case made a reserve": _role(0, "reserve"),
    "a reserve made a case out of turn": _role(4, "case"),
    "a case left without a reason": _role(1, "unwanted"),
    "another patient in a case's place": _another_case,
    "a place left out": lambda b: of_kind(b, "List")["entry"].pop(1),
    "where the nonce came from": lambda b: of_kind(b, "List")["orderedBy"]["coding"][0].update(code="nonce-dice"),
    "the frame's facility": lambda b: of_kind(b, "Group")["managingEntity"]["identifier"].update(value="F-002"),
    "the draw's digest": lambda b: of_kind(b, "List")["identifier"][0].update(value="sha256:" + "0" * 64),
    "a case's patient": lambda b: of_kind(b, "Patient")["identifier"][0].update(value="f" * 64),
    "a review left out": lambda b: b["entry"].remove(
        next(e for e in b["entry"] if e["resource"]["resourceType"] == "QuestionnaireResponse")
    ),
    "the frame left out": lambda b: b["entry"].remove(
        next(e for e in b["entry"] if e["resource"]["resourceType"] == "Group")
    ),
    "no reason for a superseded draw": lambda b: of_kind(b, "Provenance")["reason"][0]["coding"][0].update(code="?"),
    "the frame's programme": lambda b: of_kind(b, "Group")["meta"]["tag"][0].update(code="degir"),
    "a frame of things": lambda b: of_kind(b, "Group").update(type="device"),
    "a frame that is a plan": lambda b: of_kind(b, "Group").update(actual=False),
    "a draw from something else": lambda b: of_kind(b, "List")["subject"].update(reference="urn:uuid:" + "0" * 36),
    "a place that leads to another case": _another_reference,
    "a place that leads nowhere": lambda b: of_kind(b, "List")["entry"][0]["item"].pop("reference"),
    "a reserve that leads to a case": _reserve_as_case,
    "no reasons at all for a superseded draw": lambda b: of_kind(b, "Provenance").pop("reason"),
    "a superseded draw kept secret, but for its reason": lambda b: of_kind(b, "Provenance")["entity"].pop(),
    "a reserve left out at the end": lambda b: of_kind(b, "List")["entry"].pop(),
    "fewer reserves wanted": lambda b: of_kind(b, "Group")["characteristic"][2]["valueQuantity"].update(value=1),
    "nobody says how many are wanted": lambda b: of_kind(b, "Group").update(
        characteristic=of_kind(b, "Group")["characteristic"][:1]
    ),
    "half of how many are wanted": lambda b: of_kind(b, "Group")["characteristic"].pop(),
    "a member of another type": lambda b: of_kind(b, "Group").update(member="x"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_shows_even_where_the_identifier_was_made_anew(bundle: Bundle, name: str) -> None:
    tampered = copy.deepcopy(bundle)
    TAMPERED[name](tampered)
    assert "identifier" in failed(tampered)
    tampered["identifier"]["value"] = submission_digest(tampered)
    assert failed(tampered)
    assert "identifier" not in failed(tampered)


def test_a_draw_of_everybody_is_said_to_be_one(synthetic_draw: Callable[..., Any], bundle: Bundle) -> None:
    assert "the whole frame" not in {finding.check: finding.words for finding in verify_submission(bundle)}["draw"]
    everybody = submission(synthetic_draw(cases=3, reserves=1, size=4))
    found = {finding.check: finding for finding in verify_submission(everybody)}
    assert all(finding.holds for finding in found.values())
    assert found["draw"].words.startswith("3 cases, 1 reserves, 0 left; nonce: local; the whole frame")


def test_who_left_is_followed_by_the_next_reserve(synthetic_draw: Callable[..., Any]) -> None:
    draw = synthetic_draw(cases=3, reserves=3)
    order = rank(bytes.fromhex(draw.nonce), draw.commitment.tokens)[:6]

    def problems(*roles: str) -> list[str]:
        places = [Place(token, role) for token, role in zip(order, roles, strict=True)]
        return list(draw_problems(draw.commitment, draw.nonce, places))

    assert problems("case", "not-io", "case", "case", "reserve", "reserve") == []
    assert problems("case", "not-io", "duplicate", "case", "patient-objects", "case") == []
    assert problems("case", "not-io", "case", "reserve", "case", "reserve") == ["a reserve was passed over"]
    number = "another number of cases is in the sample than the frame was committed to with"
    assert problems("case", "not-io", "case", "reserve", "reserve", "reserve") == [number]
    assert problems("case", "case", "case", "case", "reserve", "reserve") == [number]
    assert problems("not-io", "not-io", "not-io", "not-io", "case", "case") == []


@pytest.mark.parametrize("nonce", ["", "ab", "xy" * 32, "ab" * 31])
def test_a_nonce_of_another_size_is_none(synthetic_draw: Callable[..., Any], nonce: str) -> None:
    draw = synthetic_draw()
    assert list(draw_problems(draw.commitment, nonce, draw.places)) == ["the nonce is not 256 bits in hexadecimal"]


def test_the_command_says_each_check_and_shows_failure_in_its_exit_code(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(bundle), encoding="utf-8")
    told = CliRunner().invoke(app, ["verify", str(path), "--json"], standalone_mode=False)
    findings = {finding["check"]: finding["holds"] for finding in json.loads(told.output)}
    assert findings == {
        "structure": True,
        "signature": True,
        "identifier": True,
        "frame": True,
        "draw": True,
        "cases": True,
    }
    assert told.return_value == 0
    _swap(bundle)
    path.write_text(json.dumps(bundle), encoding="utf-8")
    told = CliRunner().invoke(app, ["verify", str(path)], standalone_mode=False)
    assert told.return_value == 1
    assert "FAIL" in told.output


@pytest.mark.parametrize("content", ["", "{", "[]", '{"resourceType": "Patient"}'])
def test_what_is_no_bundle_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    told = CliRunner().invoke(app, ["verify", str(path)], standalone_mode=False)
    assert "x.json" in str(told.exception)
