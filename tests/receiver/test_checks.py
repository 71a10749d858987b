from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from io_fhir_adapter.receiver.checks import check_submission, parse_token
from io_fhir_adapter.receiver.wire import Limits, RefusedError, operation_outcome, parse_json, read_body

Make = Callable[..., dict[str, Any]]
Change = Callable[[dict[str, Any]], Any]


def of_kind(bundle: dict[str, Any], kind: str, number: int = 0) -> dict[str, Any]:
    found = [entry for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]
    entry: dict[str, Any] = found[number]
    return entry


def setting(kind: str, **elements: Any) -> Change:
    return lambda bundle: of_kind(bundle, kind)["resource"].update(elements)


def test_a_sealed_submission_passes_and_says_what_it_says(sealed: Make) -> None:
    submission = check_submission(sealed(), programmes={"iasios"})
    assert (submission.facility, submission.programme, submission.cases) == ("F-001", "iasios", 3)
    assert (submission.period_start, submission.period_end) == ("2025-01-01", "2025-12-31")
    assert submission.populations == (("numerator", 151), ("review", 2))


def test_volumes_alone_pass(altered: Make) -> None:
    def bare(bundle: dict[str, Any]) -> None:
        kept = ("Measure", "MeasureReport")
        bundle["entry"] = [entry for entry in bundle["entry"] if entry["resource"]["resourceType"] in kept]

    assert check_submission(altered(bare)).cases == 0


@pytest.mark.parametrize(
    ("change", "expression"),
    [
        # the shell
        (lambda b: b.update(type="batch"), "Bundle.type"),
        (lambda b: b.update(resourceType="List"), "Bundle.type"),
        (lambda b: b["meta"]["tag"][0].update(code="degir"), "Bundle.meta.tag"),
        (lambda b: b.update(signature={"when": "today"}), "Bundle.signature.when"),
        (lambda b: b.update(nonsense=1), "Bundle.nonsense"),
        # entries and requests
        (lambda b: b["entry"][0].update(search={}), "Bundle.entry[0]"),
        (lambda b: b["entry"][0].pop("fullUrl"), "Bundle.entry[0]"),
        (lambda b: b["entry"][0].update(fullUrl="https://a.example/1"), "Bundle.entry[0].fullUrl"),
        (lambda b: b["entry"][0]["request"].update(method="DELETE"), "Bundle.entry[0].request"),
        (lambda b: b["entry"][0]["request"].update(url="Measure"), "Bundle.entry"),
        (lambda b: b["entry"][0]["request"].update(url="Patient?identifier=a|b"), "Bundle.entry[0].request.url"),
        (
            lambda b: b["entry"][0]["request"].update(url="Measure?url=https://other.example"),
            "Bundle.entry[0].resource.url",
        ),
        (lambda b: b["entry"][0]["resource"].update(id="m"), "Bundle.entry[0].resource.id"),
        (lambda b: b["entry"].append(b["entry"][3]), "Bundle.entry"),
        # resources
        (setting("Measure", resourceType="Library"), "Bundle.entry[0].resource.resourceType"),
        (setting("Procedure", status="finished"), ".status"),
        (setting("Procedure", category=[]), ".category"),
        (setting("Procedure", bodySite=None), ".bodySite"),
        (setting("Procedure", unknownThing=1), ".unknownThing"),
        (setting("Patient", active="true"), ".active"),
        (setting("Group", quantity="120"), ".quantity"),
        (lambda b: of_kind(b, "Procedure")["resource"].pop("status"), ".status"),
        (setting("Procedure", identifier=[{"system": "x", "value": "y"}]), ".identifier"),
        # references
        (
            setting("Procedure", subject={"reference": "urn:uuid:00000000-0000-0000-0000-000000000000"}),
            ".subject.reference",
        ),
        (setting("Procedure", encounter={"reference": "https://a.example/Encounter/1"}), ".encounter.reference"),
        (setting("Procedure", encounter={"reference": "#e"}), ".encounter.reference"),
        # persons, places, free text
        (setting("Patient", name=[{"family": "CANARY"}]), ".name"),
        (setting("Patient", birthDate="1950-01-01"), ".birthDate"),
        (setting("Patient", address=[{"city": "CANARY"}]), ".address"),
        (setting("Patient", telecom=[{"value": "CANARY"}]), ".telecom"),
        (setting("Patient", deceasedDateTime="2025-01-01"), ".deceasedDateTime"),
        (setting("Patient", text={"status": "generated", "div": "<div>CANARY</div>"}), ".text"),
        (setting("Measure", text={"status": "generated", "div": "<div>CANARY</div>"}), "Bundle.entry[0].resource.text"),
        (
            lambda b: of_kind(b, "Patient")["resource"]["identifier"].append({"system": "a", "value": "CANARY"}),
            ".identifier",
        ),
        (
            lambda b: of_kind(b, "Procedure")["resource"]["identifier"].append({"system": "a", "value": "C"}),
            ".identifier",
        ),
        (setting("Procedure", note=[{"text": "CANARY"}]), ".note"),
        (setting("Procedure", performer=[{"actor": {"display": "CANARY"}}]), ".performer"),
        (setting("Condition", contained=[{"resourceType": "Patient"}]), ".contained"),
        (setting("Condition", encounter={"identifier": {"value": "CANARY"}}), ".encounter"),
        (setting("Procedure", encounter={"identifier": {"value": "CANARY"}}), ".encounter.identifier"),
        (setting("QuestionnaireResponse", author={"display": "CANARY"}), ".author"),
        # counts and numbers
        (setting("Group", quantity=2), "Bundle.entry"),
        (lambda b: of_kind(b, "Group")["resource"]["member"].pop(), "Bundle.entry"),
        (lambda b: b["entry"].remove(of_kind(b, "Group")), ".subject.reference"),
        (lambda b: b["entry"].remove(of_kind(b, "List")), "Bundle.entry"),
        (lambda b: of_kind(b, "List")["resource"]["entry"].pop(0), "Bundle.entry"),
        (lambda b: b["entry"].remove(of_kind(b, "QuestionnaireResponse")), "Bundle.entry"),
        (lambda b: b["entry"].remove(of_kind(b, "MeasureReport")), "Bundle.entry"),
        (
            lambda b: of_kind(b, "MeasureReport")["resource"]["group"][0]["population"][0].update(count=152),
            ".stratifier[0]",
        ),
        (
            lambda b: of_kind(b, "MeasureReport")["resource"]["group"][0]["population"][0].update(count=-1),
            ".population[0].count",
        ),
        (lambda b: of_kind(b, "MeasureReport")["resource"]["group"][0]["population"].pop(), ".stratifier[0]"),
        (lambda b: of_kind(b, "MeasureReport")["resource"].pop("reporter"), ".reporter.identifier"),
    ],
)
def test_what_is_wrong_is_refused_by_entry_and_element(altered: Make, change: Change, expression: str) -> None:
    def without_lost_links(bundle: dict[str, Any]) -> None:
        change(bundle)
        urls = {entry.get("fullUrl") for entry in bundle["entry"]}
        target = of_kind(bundle, "Provenance")["resource"]["target"]
        target[:] = [item for item in target if item["reference"] in urls]

    with pytest.raises(RefusedError) as caught:
        check_submission(altered(without_lost_links), programmes={"iasios"})
    assert caught.value.status == 422
    assert any(issue.expression.endswith(expression) for issue in caught.value.issues), caught.value.issues
    assert "CANARY" not in json.dumps(operation_outcome(caught.value.issues))


def test_a_changed_bundle_no_longer_has_its_digest(sealed: Make) -> None:
    bundle = sealed()
    of_kind(bundle, "Patient")["resource"]["gender"] = "female"
    with pytest.raises(RefusedError) as caught:
        check_submission(bundle)
    assert caught.value.issues[0].expression == "Bundle.identifier"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(),
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}) | st.just([[1]]),
)
def test_no_value_in_any_place_makes_it_do_more_than_refuse(sealed: Make, data: st.DataObject, value: Any) -> None:
    bundle = sealed(cases=1)
    node: Any = bundle
    for _ in range(data.draw(st.integers(1, 8))):
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        parent = node
        node = node[key]
        if not isinstance(node, dict | list) or not node:
            break
    parent[key] = value
    with contextlib.suppress(RefusedError):
        check_submission(bundle)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a|b", ("a", "b")),
        ("b", (None, "b")),
        ("|b", ("", "b")),
        (r"a\|b|c\,d", ("a|b", "c,d")),
    ],
)
def test_tokens_of_a_search(text: str, parsed: tuple[str | None, str]) -> None:
    assert parse_token(text) == parsed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b"\xff{}",
        b"[" * 200_000,
        b'{"a":' * 41 + b"1" + b"}" * 41,
    ],
)
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_json(body, Limits())
    assert caught.value.status == 400


def test_nesting_up_to_the_limit_is_taken() -> None:
    assert parse_json(b'{"a":' * 40 + b"1" + b"}" * 40, Limits(depth=40))


async def _chunks(body: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _read(body: bytes, content_type: str = "application/fhir+json", encoding: str = "", limit: int = 1000) -> bytes:
    coroutine = read_body(_chunks(body), content_type, encoding, Limits(body_bytes=limit))
    try:
        coroutine.send(None)
    except StopIteration as done:
        read: bytes = done.value
        return read
    raise AssertionError("it waited for something")


def test_bodies_come_plain_or_gzipped_up_to_the_limit() -> None:
    body = b"x" * 1000
    assert _read(body) == body
    assert _read(gzip.compress(body, mtime=0), "application/json; charset=utf-8", "gzip") == body


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status"),
    [
        (b"x" * 1001, "application/fhir+json", "", 413),
        (gzip.compress(b"x" * 1001, mtime=0), "application/fhir+json", "gzip", 413),
        (gzip.compress(b"x" * 50_000_000, mtime=0), "application/fhir+json", "gzip", 413),
        (gzip.compress(b"x" * 900, mtime=0)[:-4], "application/fhir+json", "gzip", 400),
        (gzip.compress(b"x", mtime=0) + b"tail", "application/fhir+json", "gzip", 400),
        (b"plain", "application/fhir+json", "gzip", 400),
        (b"{}", "application/fhir+json", "br", 415),
        (b"{}", "text/json", "", 415),
        (b"{}", "application/fhir+xml", "", 415),
        (b"{}", "", "", 415),
    ],
)
def test_other_bodies_are_refused(body: bytes, content_type: str, encoding: str, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        _read(body, content_type, encoding)
    assert caught.value.status == status
