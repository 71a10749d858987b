from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.submit.receipts import judge
from io_fhir_adapter.transport.client import retry_after_seconds

KINDS = ("Measure", "MeasureReport", "Patient")
SENT: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [{"resource": {"resourceType": kind}} for kind in KINDS],
}
FHIR = "application/fhir+json; charset=utf-8"
NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
Entry = dict[str, Any]


def outcome(code: str = "processing", severity: str = "error", **more: Any) -> Entry:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": code, **more}]}


def stored(kind: str, status: str = "201 Created", **more: Any) -> Entry:
    return {"response": {"status": status, "location": f"{kind}/1/_history/1", **more}}


def answer(*entries: Entry, kind: str = "transaction-response") -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": list(entries)}).encode()


ALL = [stored(kind) for kind in KINDS]


def test_a_whole_transaction_response_is_a_receipt() -> None:
    verdict = judge(200, FHIR, answer(*ALL), SENT)
    assert verdict.kind == "accepted"
    assert [(entry.index, entry.status, entry.location) for entry in verdict.entries] == [
        (0, 201, "Measure/1/_history/1"),
        (1, 201, "MeasureReport/1/_history/1"),
        (2, 201, "Patient/1/_history/1"),
    ]


@pytest.mark.parametrize("status", ["200", "200 OK", "201 Created", "204"])
def test_every_success_of_an_entry_counts_with_or_without_location(status: str) -> None:
    entries = [{"response": {"status": status}} for _ in KINDS]
    assert judge(200, FHIR, answer(*entries), SENT).kind == "accepted"


def test_locations_may_be_absolute() -> None:
    entries = [{"response": {"status": "200 OK", "location": f"https://a.example/fhir/{kind}/x-1"}} for kind in KINDS]
    verdict = judge(200, FHIR, answer(*entries), SENT)
    assert verdict.kind == "accepted"
    assert verdict.entries[2].location == "Patient/x-1"


def test_informative_outcomes_do_not_spoil_a_receipt() -> None:
    entries = [*ALL[:2], stored("Patient", outcome=outcome("informational", "information"))]
    assert judge(200, FHIR, answer(*entries), SENT).kind == "accepted"


@pytest.mark.parametrize(
    ("status", "content_type", "body", "kind"),
    [
        (200, FHIR, answer(*ALL[:2]), "transient"),
        (200, FHIR, answer(*ALL, ALL[0]), "transient"),
        (200, FHIR, answer(), "transient"),
        (200, FHIR, answer(*ALL)[:-20], "transient"),
        (200, FHIR, b"", "transient"),
        (200, FHIR, b"\xff\xfe", "transient"),
        (200, FHIR, b"[" * 100_000, "transient"),
        (200, FHIR, b"[]", "transient"),
        (200, FHIR, b'"ok"', "transient"),
        (200, FHIR, b'{"resourceType":"Patient"}', "transient"),
        (200, "text/html", b"<html>Sign in</html>", "transient"),
        (200, FHIR, b"\n<!doctype html><title>Sign in</title>", "transient"),
        (200, FHIR, answer(*ALL, kind="batch-response"), "rejected"),
        (200, FHIR, answer(*ALL, kind="transaction"), "rejected"),
        (200, FHIR, json.dumps(outcome("invalid")).encode(), "rejected"),
        (200, FHIR, json.dumps(outcome("informational", "information")).encode(), "transient"),
        (202, FHIR, b"", "transient"),
        (301, "text/html", b"", "transient"),
        (400, FHIR, json.dumps(outcome("structure")).encode(), "rejected"),
        (400, "text/plain", b"bad", "rejected"),
        (401, FHIR, json.dumps(outcome("login")).encode(), "transient"),
        (403, FHIR, json.dumps(outcome("forbidden")).encode(), "rejected"),
        (403, "text/html", b"<html>", "transient"),
        (404, "text/html", b"<html>", "transient"),
        (404, FHIR, json.dumps(outcome("not-found")).encode(), "rejected"),
        (409, FHIR, json.dumps(outcome("conflict")).encode(), "transient"),
        (412, FHIR, json.dumps(outcome("multiple-matches")).encode(), "rejected"),
        (413, "text/html", b"<html>", "rejected"),
        (422, FHIR, json.dumps(outcome("business-rule")).encode(), "rejected"),
        (422, FHIR, json.dumps(outcome("lock-error")).encode(), "transient"),
        (429, FHIR, b"", "transient"),
        (500, FHIR, json.dumps(outcome("exception")).encode(), "transient"),
        (502, "text/html", b"<html>", "transient"),
        (503, "", b"", "transient"),
    ],
)
def test_anything_else_is_no_receipt(status: int, content_type: str, body: bytes, kind: str) -> None:
    verdict = judge(status, content_type, body, SENT)
    assert verdict.kind == kind
    assert verdict.sentence


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ({"response": {"status": "400 Bad Request"}}, "rejected"),
        ({"response": {"status": "412"}}, "rejected"),
        ({"response": {"status": "304 Not Modified"}}, "rejected"),
        ({"response": {"status": "429 Too Many Requests"}}, "transient"),
        ({"response": {"status": "503"}}, "transient"),
        ({"response": {"status": "422", "outcome": outcome("timeout")}}, "transient"),
        ({"response": {"status": "201 Created", "outcome": outcome("invalid")}}, "rejected"),
        ({"response": {"status": "200", "outcome": outcome("transient")}}, "transient"),
        ({"response": {"status": "yes"}}, "transient"),
        ({"response": {"status": 201.5}}, "accepted"),
        ({"response": {}}, "transient"),
        ({"response": []}, "transient"),
        ({}, "transient"),
        ("x", "transient"),
        (stored("Group"), "transient"),
    ],
)
def test_one_entry_decides_over_a_half_stored_answer(last: Any, kind: str) -> None:
    assert judge(200, FHIR, answer(*ALL[:2], last), SENT).kind == kind


def test_a_refused_entry_weighs_more_than_one_to_be_sent_again() -> None:
    entries = [{"response": {"status": "429"}}, ALL[1], {"response": {"status": "422", "outcome": outcome("required")}}]
    verdict = judge(200, FHIR, answer(*entries), SENT, retry_after=9)
    assert verdict.kind == "rejected"
    assert verdict.retry_after is None
    assert "entry 2" in verdict.sentence
    assert "a required element is missing" in verdict.sentence
    assert "1 are reported as stored" in verdict.sentence


def test_reasons_name_elements_in_our_words_and_quote_nothing() -> None:
    said = outcome(
        "value", diagnostics="Erika CANARY", details={"text": "CANARY"}, expression=["Patient.identifier[0]"]
    )
    said["issue"].append({"severity": "error", "code": "CANARY", "expression": ["Patient.name.where(family='CANARY')"]})
    for verdict in (
        judge(422, FHIR, json.dumps(said).encode(), SENT),
        judge(200, FHIR, answer(*ALL[:2], {"response": {"status": "422", "outcome": said}}), SENT),
        judge(200, FHIR, answer(*ALL[:2], {"response": {"status": "CANARY", "location": "CANARY"}}), SENT),
    ):
        assert "CANARY" not in repr(verdict)
    verdict = judge(422, FHIR, json.dumps(said).encode(), SENT)
    assert "a value that is not allowed at Patient.identifier[0]" in verdict.sentence


def test_the_wish_to_wait_is_handed_on() -> None:
    assert judge(429, FHIR, b"", SENT, retry_after=7.0).retry_after == 7.0
    assert judge(503, FHIR, b"", SENT).retry_after is None
    assert judge(200, FHIR, answer(*[{"response": {"status": "429"}}] * 3), SENT, retry_after=3).retry_after == 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Mon, 05 Jan 2026 03:01:00 GMT", 60.0),
        ("Mon, 05 Jan 2026 02:00:00 GMT", 0.0),
        ("Mon, 05 Jan 2026 04:00:30 +0100", 30.0),
        ("Monday, 05-Jan-26 03:01:00 GMT", 60.0),
        ("", None),
        (None, None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 30, 1e9),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["resourceType", "type", "entry", "response", "status", "issue"]), inner)
    ),
    max_leaves=20,
)


@given(st.integers(min_value=100, max_value=599), st.text(max_size=20), st.binary(max_size=60))
def test_no_bytes_make_it_fail_or_accept(status: int, content_type: str, body: bytes) -> None:
    assert judge(status, content_type, body, SENT).kind != "accepted"


@given(json_values)
def test_no_json_makes_it_fail(entries: Any) -> None:
    body = json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}).encode()
    judge(200, FHIR, body, SENT)


@given(st.text(max_size=40))
def test_no_header_makes_it_fail(value: str) -> None:
    retry_after_seconds(value, NOW)
