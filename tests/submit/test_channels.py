"""The ways on which a submission leaves: what is sent on each, and what counts as its receipt."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.receiver.conftest import sealed_submission
from tests.submit.endpoint import FHIR, Endpoint, outcome, response

from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.submit.channels import Answered, open_channel
from io_fhir_adapter.submit.receipts import judge_operation
from io_fhir_adapter.trust.canonical import canonical_json

NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
SENT: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [{"resource": {"resourceType": kind}} for kind in ("Measure", "MeasureReport")],
    "signature": {"data": "c3ludGhldGlj"},
}
WITHDRAWAL = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": "Provenance"}}]}
NAME = "sha256-ab"


def send(body: bytes, identifier: str = "sha256:ab", last: bytes = b"", **settings: Any) -> Answered:
    """Sends one submission on the channel that the settings name."""

    async def sending() -> Answered:
        async with open_channel(SubmissionConfig.model_validate(settings), lambda: NOW) as channel:
            return await channel.send(body, identifier, last)

    return asyncio.run(sending())


def look(folder: Path, body: bytes, identifier: str = "sha256:ab") -> Answered | None:
    """Looks for the receipt of what was laid into a folder."""

    async def looking() -> Answered | None:
        config = SubmissionConfig.model_validate({"channel": "file-drop", "folder": folder})
        async with open_channel(config, lambda: NOW) as channel:
            return await channel.look(body, identifier)

    return asyncio.run(looking())


def drop(folder: Path, body: bytes, last: bytes = b"") -> Answered:
    return send(body, last=last, channel="file-drop", folder=folder)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[Endpoint, str]]:
    made = Endpoint()
    with LoopbackServer(made) as server:
        yield made, f"{server.base_url}/fhir"


def test_a_transaction_is_posted_as_it_was_sealed(endpoint: tuple[Endpoint, str]) -> None:
    system, url = endpoint
    system.will(response("201", "201"))
    answered = send(canonical_json(SENT), url=url)
    assert (answered.verdict.kind, answered.status) == ("accepted", 200)
    assert (system.asked[-1].method, system.asked[-1].path) == ("POST", "/fhir")
    assert system.asked[-1].body == canonical_json(SENT)
    assert json.loads(answered.body) == response("201", "201")


def test_submit_data_takes_the_report_and_the_whole_signed_bundle(endpoint: tuple[Endpoint, str]) -> None:
    system, url = endpoint
    system.will(b"", status=200)
    answered = send(canonical_json(SENT), url=url, channel="submit-data")
    assert answered.verdict.kind == "accepted"
    assert system.asked[-1].path == "/fhir/Measure/$submit-data"
    report, whole = json.loads(system.asked[-1].body)["parameter"]
    assert report == {"name": "measureReport", "resource": {"resourceType": "MeasureReport"}}
    assert whole == {"name": "resource", "resource": SENT}


def test_what_has_no_measure_report_is_posted_whatever_the_channel(endpoint: tuple[Endpoint, str]) -> None:
    system, url = endpoint
    system.will(response("200 OK"))
    assert send(canonical_json(WITHDRAWAL), url=url, channel="submit-data").verdict.kind == "accepted"
    assert (system.asked[-1].path, system.asked[-1].body) == ("/fhir", canonical_json(WITHDRAWAL))


def test_both_ways_lead_to_the_same_submission_at_the_receiver(synthetic_draw: Callable[..., Any]) -> None:
    body = canonical_json(sealed_submission(synthetic_draw(1, 1, 3), "F-001", 151))
    store = ReceiverStore()
    with LoopbackServer(create_app(store)) as server:
        verdicts = [
            send(body, url=f"{server.base_url}/fhir", channel=channel).verdict
            for channel in ("submit-data", "transaction", "submit-data")
        ]
    assert [verdict.kind for verdict in verdicts] == ["accepted"] * 3
    assert [one.times for one in store.submissions()] == [3]
    store.close()


@pytest.mark.parametrize("channel", ["transaction", "submit-data"])
def test_nobody_there_is_told_and_not_raised(channel: str) -> None:
    with LoopbackServer(Endpoint()) as server:
        url = server.base_url
    answered = send(canonical_json(SENT), url=url, channel=channel)
    assert (answered.verdict.kind, answered.status, answered.body) == ("transient", 0, b"")


def parameters(*resources: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "return", "resource": one} for one in resources]}


@pytest.mark.parametrize(
    ("status", "content_type", "answer", "kind"),
    [
        (200, FHIR, b"", "accepted"),
        (204, "", b"", "accepted"),
        (200, FHIR, response("201", "200"), "accepted"),
        (200, FHIR, response("200", "201", "200"), "accepted"),
        (200, FHIR, outcome("informational", "information"), "accepted"),
        (200, FHIR, {"resourceType": "Parameters"}, "accepted"),
        (200, FHIR, parameters(outcome("informational", "warning")), "accepted"),
        (200, FHIR, parameters(response("201", "201")), "accepted"),
        (200, FHIR, outcome("invalid"), "rejected"),
        (200, FHIR, outcome("lock-error"), "transient"),
        (200, FHIR, parameters(outcome("informational", "information"), outcome("required")), "rejected"),
        (200, FHIR, parameters(response("201", "400")), "rejected"),
        (200, FHIR, response("201", "400"), "rejected"),
        (200, FHIR, response("201", "429"), "transient"),
        (200, FHIR, response("201"), "transient"),
        (200, FHIR, response(*["201"] * 4), "transient"),
        (200, FHIR, {"resourceType": "Bundle", "type": "collection"}, "rejected"),
        (200, FHIR, {"resourceType": "Parameters", "parameter": [1, {"resource": 2}]}, "accepted"),
        (200, FHIR, {"resourceType": "MeasureReport"}, "transient"),
        (200, FHIR, b'{"resourceType":"Paramet', "transient"),
        (200, "text/html", b"<html>Sign in</html>", "transient"),
        (202, FHIR, b"", "transient"),
        (400, FHIR, outcome("invalid"), "rejected"),
        (404, "text/html", b"<html>", "transient"),
        (404, FHIR, outcome("not-supported"), "rejected"),
        (429, FHIR, b"", "transient"),
        (503, "", b"", "transient"),
    ],
)
def test_the_operation_has_its_own_receipt(status: int, content_type: str, answer: Any, kind: str) -> None:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    verdict = judge_operation(status, content_type, body, SENT)
    assert verdict.kind == kind
    assert verdict.sentence


def test_a_dropped_file_is_whole_and_can_be_checked(tmp_path: Path) -> None:
    folder, body = tmp_path / "out" / "body", canonical_json(SENT)
    answered = drop(folder, body)
    assert answered.verdict.kind == "sent"
    assert f"{NAME}.json" in answered.verdict.sentence
    assert {path.name for path in folder.iterdir()} == {f"{NAME}.json", f"{NAME}.sha256"}
    assert (folder / f"{NAME}.json").read_bytes() == body
    assert (folder / f"{NAME}.sha256").read_text() == f"{hashlib.sha256(body).hexdigest()}  {NAME}.json\n"
    assert look(folder, body) is None


def test_dropping_again_makes_no_second_file_and_mends_a_half_one(tmp_path: Path) -> None:
    body = canonical_json(SENT)
    (tmp_path / f".{NAME}.json.part").write_bytes(body[:5])
    (tmp_path / f"{NAME}.json").write_bytes(b"of another time")
    for _ in range(2):
        assert drop(tmp_path, body).verdict.kind == "sent"
    assert {path.name for path in tmp_path.iterdir()} == {f"{NAME}.json", f"{NAME}.sha256"}
    assert (tmp_path / f"{NAME}.json").read_bytes() == body


@pytest.mark.parametrize(
    ("receipt", "kind"),
    [
        (response("201", "200"), "accepted"),
        (response("201", "400"), "rejected"),
        (outcome("invalid"), "rejected"),
        (outcome("informational", "information"), "transient"),
        (b'{"resourceType":"Bundle","type":"transaction-resp', "transient"),
        (b"", "transient"),
        (b"<html>", "transient"),
    ],
)
def test_a_receipt_that_comes_as_a_file_is_judged_like_an_answer(receipt: Any, kind: str, tmp_path: Path) -> None:
    body = canonical_json(SENT)
    drop(tmp_path, body)
    content = receipt if isinstance(receipt, bytes) else json.dumps(receipt).encode()
    (tmp_path / f"{NAME}.receipt.json").write_bytes(content)
    answered = look(tmp_path, body)
    assert answered is not None
    assert (answered.verdict.kind, answered.status, answered.body) == (kind, 0, content)
    assert "HTTP" not in answered.verdict.sentence


def test_a_receipt_that_was_judged_is_put_aside_when_it_is_sent_again(tmp_path: Path) -> None:
    body, refused = canonical_json(SENT), json.dumps(outcome("invalid")).encode()
    receipt = tmp_path / f"{NAME}.receipt.json"
    drop(tmp_path, body)
    receipt.write_bytes(refused)
    drop(tmp_path, body, last=refused)
    assert look(tmp_path, body) is None
    assert [path.read_bytes() for path in tmp_path.glob(f"{NAME}.receipt-*.json")] == [refused]
    receipt.write_bytes(refused)  # the body says the same once more
    drop(tmp_path, body, last=b"another answer")
    assert receipt.read_bytes() == refused, "a receipt that nobody judged yet stays"


def test_a_folder_that_cannot_be_written_to_is_told_and_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answered = drop(tmp_path / "file" / "folder", canonical_json(SENT))
    assert answered.verdict.kind == "transient"
    assert "cannot be written to" in answered.verdict.sentence


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"channel": "file-drop"}, "folder belongs to channel file-drop"),
        ({"url": "https://a.example", "folder": "x"}, "folder belongs to channel file-drop"),
        ({"channel": "file-drop", "folder": "x", "url": "https://a.example"}, "url is never used"),
        ({"channel": "file-drop", "folder": "x", "retries": 3}, "retries is never used"),
        ({"channel": "file-drop", "folder": "x", "nonce": "task"}, "cannot ask for a nonce"),
        ({"channel": "pigeon", "url": "https://a.example"}, "channel"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SubmissionConfig.model_validate(settings)
