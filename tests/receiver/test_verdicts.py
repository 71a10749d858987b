"""What comes after a submission: the body's verdicts, a withdrawal, and the other way to submit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.task import Task

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM, VERDICT_TASK
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.checks import Rules, Seal, check_submission, check_transaction
from io_fhir_adapter.receiver.registry import Facility, Registry, registry_of_tokens
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.verdicts import Given, give_verdict, verdicts_of
from io_fhir_adapter.receiver.wire import RefusedError
from io_fhir_adapter.submit.withdrawal import seal_withdrawal
from io_fhir_adapter.trust.keys import new_signature_key
from io_fhir_adapter.trust.signature import SignatureKey, sign_bundle

Json = dict[str, Any]
Make = Callable[..., Json]
FHIR = {"Content-Type": "application/fhir+json"}
NOW = datetime(2026, 1, 6, 3, 0, tzinfo=UTC)
KEY, OTHER = new_signature_key("ES256"), new_signature_key("EdDSA")


def withdrawal(identifier: str, facility: str = "F-001", reason: str = "sent-in-error") -> Json:
    return seal_withdrawal(facility, "iasios", identifier, reason, "0.1.0", NOW)


def take(store: ReceiverStore, bundle: Json) -> str:
    store.accept(check_transaction(bundle, Rules()))
    return str(bundle["identifier"]["value"])


def task_of(store: ReceiverStore, identifier: str, facility: str = "F-001") -> Json:
    (found,) = store.search("Task", "identifier", VERDICT_TASK, identifier, facility)
    Task.model_validate(found.content)
    return found.content


def said(task: Json) -> tuple[str, str, list[str]]:
    return (
        task["status"],
        task["businessStatus"]["coding"][0]["code"],
        [note["text"] for note in task.get("note", [])],
    )


def refusal(store: ReceiverStore, bundle: Json) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        take(store, bundle)
    return caught.value.status, caught.value.issues[0].expression


def test_each_verdict_follows_the_one_before_and_none_is_lost(store: ReceiverStore, sealed: Make) -> None:
    identifier = take(store, sealed(cases=1))
    assert said(task_of(store, identifier)) == ("in-progress", "received", [])
    give_verdict(store, identifier, "correction-asked", "Count the <ablations> again.", "vogt")
    before = task_of(store, identifier)
    give_verdict(store, identifier, "accepted", "", "adler")
    after = task_of(store, identifier)
    assert said(before) == ("on-hold", "correction-asked", ["Count the <ablations> again."])
    assert said(after) == ("completed", "accepted", ["Count the <ablations> again."])
    assert after["lastModified"] > before["lastModified"]
    assert after["owner"]["identifier"]["value"] == "F-001"
    assert after["focus"]["identifier"] == {"system": SUBMISSION_SYSTEM, "value": identifier}
    assert "vogt" not in json.dumps(after)
    first = store.read("Task", after["id"], "F-001", 1)
    assert first is not None
    assert said(first.content) == ("in-progress", "received", [])
    assert [(given.verdict, given.by) for given in verdicts_of(store, identifier)] == [
        ("correction-asked", "vogt"), ("accepted", "adler"),
    ]  # fmt: skip
    assert isinstance(verdicts_of(store, identifier)[0], Given)
    assert store.search("Task", "identifier", VERDICT_TASK, identifier, "F-002") == []
    take(store, sealed(cases=1))  # a late duplicate opens nothing again
    assert said(task_of(store, identifier)) == said(after)
    assert store.problems() == []


@pytest.mark.parametrize(
    ("verdict", "note", "by", "status"),
    [
        ("received", "", "vogt", 422),
        ("withdrawn", "", "vogt", 422),
        ("accepted", "", "", 422),
        ("accepted", "x" * 4001, "vogt", 422),
        ("accepted", "\x00", "vogt", 422),
        ("rejected", "", "vogt", 404),
    ],
)
def test_what_is_no_verdict_changes_nothing(sealed: Make, verdict: str, note: str, by: str, status: int) -> None:
    store = ReceiverStore()
    identifier = take(store, sealed(cases=1))
    with pytest.raises(RefusedError) as caught:
        give_verdict(store, "sha256:" + "0" * 64 if status == 404 else identifier, verdict, note, by)
    assert caught.value.status == status
    assert said(task_of(store, identifier)) == ("in-progress", "received", [])
    store.close()


def test_a_withdrawal_marks_and_deletes_nothing(store: ReceiverStore, sealed: Make) -> None:
    identifier = take(store, sealed(cases=1))
    first = store.accept(check_transaction(withdrawal(identifier), Rules()))
    again = store.accept(check_transaction(withdrawal(identifier), Rules()))
    assert [result.status for result in (*first, *again)] == [201, 200]
    assert first[0].id == again[0].id
    (kept,) = store.submissions()
    assert (kept.identifier, kept.withdrawn, kept.bundle) == (identifier, "sent-in-error", sealed(cases=1))
    assert said(task_of(store, identifier)) == ("cancelled", "withdrawn", [])
    with pytest.raises(RefusedError) as caught:
        give_verdict(store, identifier, "accepted", "", "vogt")
    assert caught.value.status == 422
    assert refusal(store, withdrawal(identifier, reason="other")) == (422, "Bundle.entry")
    assert store.problems() == []


def test_only_an_own_submission_can_be_withdrawn(store: ReceiverStore, sealed: Make) -> None:
    identifier = take(store, sealed(cases=1))
    place = "Bundle.entry[0].resource.target"
    assert refusal(store, withdrawal(identifier, "F-002")) == (422, place)
    assert refusal(store, withdrawal("sha256:" + "0" * 64)) == (422, place)
    assert said(task_of(store, identifier)) == ("in-progress", "received", [])


@pytest.mark.parametrize(
    ("change", "expression"),
    [
        (lambda p: p.pop("activity"), ".activity"),
        (lambda p: p.pop("reason"), ".reason"),
        (lambda p: p["reason"][0]["coding"][0].update(code="because"), ".reason[0].coding[0].code"),
        (lambda p: p["reason"].append(p["reason"][0]), ".reason"),
        (lambda p: p["target"].append(p["target"][0]), ".target"),
        (lambda p: p["target"][0].update(display="CANARY"), ".target[0].display"),
        (lambda p: p["agent"][0].pop("onBehalfOf"), ".agent"),
        (lambda p: p.update(entity=[{"role": "source", "what": {"identifier": {"value": "x"}}}]), ".identifier.system"),
        (lambda p: p.update(recorded="yesterday"), ".recorded"),
    ],
)
def test_what_is_no_withdrawal_is_refused(change: Callable[[Json], Any], expression: str) -> None:
    bundle = copy.deepcopy(withdrawal("sha256:" + "0" * 64))
    change(bundle["entry"][0]["resource"])
    with pytest.raises(RefusedError) as caught:
        check_transaction(bundle, Rules())
    assert caught.value.status == 422
    assert any(issue.expression.endswith(expression) for issue in caught.value.issues), caught.value.issues


def public(*keys: SignatureKey) -> Json:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def test_who_has_keys_must_sign_with_one_of_them(sealed: Make) -> None:
    bundle, rules = sealed(cases=1), Rules(keys=lambda _facility: public(KEY))
    taken = check_transaction(sign_bundle(bundle, KEY, when=NOW), rules)
    assert taken.seal == Seal("valid", str(KEY.kid))
    for wrong in (bundle, sign_bundle(bundle, OTHER, when=NOW)):
        with pytest.raises(RefusedError) as caught:
            check_transaction(wrong, rules)
        assert (caught.value.status, caught.value.issues[0].expression) == (422, "Bundle.signature")


@pytest.mark.parametrize(("signed", "found"), [(False, Seal("none")), (True, Seal("unchecked"))])
def test_without_keys_a_signature_is_said_to_be_unchecked_or_required(sealed: Make, signed: bool, found: Seal) -> None:
    bundle = sign_bundle(sealed(cases=1), KEY, when=NOW) if signed else sealed(cases=1)
    assert check_submission(bundle).seal == found
    rsa = {"keys": [{"kty": "RSA", "kid": "sign-in", "n": "AQAB", "e": "AQAB"}]}  # of no use for signing a submission
    for keys in (None, lambda _facility: rsa):
        with pytest.raises(RefusedError) as caught:
            check_transaction(bundle, Rules(keys=keys, require_signature=True))
        assert caught.value.issues[0].expression == "Bundle.signature"


def test_what_was_found_of_the_signature_is_kept(store: ReceiverStore, sealed: Make) -> None:
    rules = Rules(keys=lambda _facility: public(KEY))
    store.accept(check_transaction(sign_bundle(sealed(cases=1), KEY, when=NOW), rules))
    take(store, sealed(cases=1, counted=152))
    assert [(kept.signed, kept.kid) for kept in store.submissions()] == [("valid", KEY.kid), ("none", "")]


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """The endpoint for two facilities, one with a key."""
    store = ReceiverStore()
    tokens = registry_of_tokens({"one": "F-001", "two": "F-002"}).tokens
    registry = Registry((Facility("F-001", jwks=public(KEY)), Facility("F-002")), tokens=tokens)
    with (
        LoopbackServer(create_app(store, registry=registry)) as server,
        httpx.Client(
            base_url=server.base_url, headers={"Authorization": "Bearer one", **FHIR}, trust_env=False
        ) as made,
    ):
        yield made
    store.close()


def parameters(bundle: Json) -> Json:
    (report,) = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "MeasureReport"]
    given = [{"name": "measureReport", "resource": report}, {"name": "resource", "resource": bundle}]
    return {"resourceType": "Parameters", "parameter": given}


def test_submit_data_is_the_same_as_a_transaction(client: httpx.Client, sealed: Make) -> None:
    bundle = sign_bundle(sealed(cases=1), KEY, when=NOW)
    wrapped = client.post("/fhir/Measure/$submit-data", content=json.dumps(parameters(bundle)))
    plain = client.post("/fhir", content=json.dumps(bundle))
    assert wrapped.status_code == plain.status_code == 200
    assert wrapped.json()["type"] == "transaction-response"
    places = [[entry["response"]["location"] for entry in answer.json()["entry"]] for answer in (wrapped, plain)]
    assert places[0] == places[1]
    found = client.get("/fhir/Task", params={"identifier": f"{VERDICT_TASK}|{bundle['identifier']['value']}"}).json()
    assert found["total"] == 1
    asked = {"identifier": f"{VERDICT_TASK}|{bundle['identifier']['value']}"}
    assert client.get("/fhir/Task", params=asked, headers={"Authorization": "Bearer two"}).json()["total"] == 0
    unsigned = client.post("/fhir/Measure/$submit-data", content=json.dumps(parameters(sealed(cases=1, counted=160))))
    assert (unsigned.status_code, unsigned.json()["issue"][0]["expression"]) == (422, ["Bundle.signature"])


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(resourceType="Bundle"),
        lambda p: p.pop("parameter"),
        lambda p: p["parameter"].pop(),
        lambda p: p["parameter"].append(p["parameter"][1]),
        lambda p: p["parameter"][0]["resource"].update(status="pending"),
        lambda p: p["parameter"][1].update(resource={"resourceType": "Patient"}),
        lambda p: p["parameter"][1]["resource"].update(entry=3),
        lambda p: p.update(extension=[]),
        lambda p: p["parameter"].append("x"),
    ],
)
def test_other_parameters_are_refused(client: httpx.Client, sealed: Make, change: Callable[[Json], Any]) -> None:
    given = copy.deepcopy(parameters(sealed(cases=1)))
    change(given)
    answer = client.post("/fhir/Measure/$submit-data", content=json.dumps(given))
    assert answer.status_code == 422
    assert answer.json()["issue"][0]["expression"]
