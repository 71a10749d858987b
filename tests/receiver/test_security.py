"""What somebody with bad intentions gets from the receiver: refusals, each with its status and an OperationOutcome."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gzip
import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fhir.resources.R4B.operationoutcome import OperationOutcome

from io_fhir_adapter.canonical_urls import FRAME_SYSTEM
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.checks import RESOURCE_TYPES
from io_fhir_adapter.receiver.guard import Guard
from io_fhir_adapter.receiver.rates import Rate
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import Limits
from io_fhir_adapter.submit.withdrawal import seal_withdrawal
from io_fhir_adapter.trust.submission import submission_digest

Make = Callable[..., dict[str, Any]]
Served = Callable[..., httpx.Client]
FHIR = {"Content-Type": "application/fhir+json"}
ONE = {"Authorization": "Bearer one", **FHIR}
TWO = {"Authorization": "Bearer two", **FHIR}
SCRIPT = "<script>alert('CANARY')</script>"
TYPES = sorted({*RESOURCE_TYPES, "Task"})
EITHER_DATABASE = pytest.mark.parametrize(
    "store",
    ["memory", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))],
    indirect=True,
)


@pytest.fixture
def served() -> Iterator[Served]:
    """Starts a receiver of two facilities and gives a client: ``served(store, limits=…)``."""
    with contextlib.ExitStack() as stack:

        def start(store: ReceiverStore | None = None, **options: Any) -> httpx.Client:
            store = store or stack.enter_context(contextlib.closing(ReceiverStore()))
            secured = {"tokens": {"one": "F-001", "two": "F-002"}, "operator_token": "body"}
            server = stack.enter_context(LoopbackServer(create_app(store, **(secured | options))))
            return stack.enter_context(httpx.Client(base_url=server.base_url, trust_env=False))

        yield start


def refused(answer: httpx.Response, *statuses: int) -> None:
    """The answer is a refusal of the right kind, in words, without a trace of the code or of what was sent."""
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    assert answer.headers["content-type"].startswith("application/fhir+json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    OperationOutcome.model_validate_json(answer.content)
    for trace in ("Traceback", "site-packages", "CANARY", 'File "'):
        assert trace not in answer.text


def everything(client: httpx.Client, headers: dict[str, str], places: list[str]) -> list[Any]:
    """What a facility can read in these places now, versions and all."""
    return [client.get(f"/fhir/{place}", headers=headers).json() for place in places]


def test_one_facility_neither_reads_nor_overwrites_anothers(served: Served, sealed: Make, synthetic_draw: Any) -> None:
    client = served()
    bundle = sealed(facility="F-001", cases=1)
    announced = {**synthetic_draw(3, facility="F-001", seed="of another year").group}
    frame = next(one["value"] for one in announced["identifier"] if one["system"] == FRAME_SYSTEM)
    announced.pop("member", None)
    named = f"/fhir/Group?identifier={quote(f'{FRAME_SYSTEM}|{frame}')}"
    group = client.put(named, json=announced, headers=ONE)
    assert group.status_code == 201
    task = client.get(f"/fhir/Task?identifier={quote(frame)}", headers=ONE).json()["entry"][0]["resource"]
    answer = client.post("/fhir", json=bundle, headers=ONE)
    assert answer.status_code == 200, answer.text
    places = [entry["response"]["location"] for entry in answer.json()["entry"]]
    verdict = client.get(f"/fhir/Task?identifier={quote(bundle['identifier']['value'])}", headers=ONE).json()
    tasks = [task["id"], *(entry["resource"]["id"] for entry in verdict["entry"])]
    places += [f"Group/{group.json()['id']}/_history/1", *(f"Task/{one}/_history/1" for one in tasks)]
    places += [place.partition("/_history")[0] for place in places]
    before = everything(client, ONE, places)

    # reading: by id, by version, and by everything that its resources can be found by
    for place in places:
        refused(client.get(f"/fhir/{place}", headers=TWO), 404)
        refused(client.get(f"/fhir/{place}", headers={**TWO, "If-None-Match": 'W/"1"'}), 404)
    for kind in TYPES:
        ids = [place.split("/")[1] for place in places if place.startswith(f"{kind}/")]
        finds = [f"_id={id_}" for id_ in ids]
        for entry in bundle["entry"]:
            method_and_query = entry["request"]["url"].partition("?")
            if method_and_query[0] == kind and method_and_query[2]:
                finds += [method_and_query[2], method_and_query[2].replace("%7C", "|").rpartition("|")[2]]
        finds += [f"identifier={quote(value)}" for value in (bundle["identifier"]["value"], frame)]
        for find in {one if "=" in one else f"identifier={one}" for one in finds}:
            found = client.get(f"/fhir/{kind}?{find}", headers=TWO)
            assert (found.status_code, found.json().get("total")) == (200, 0), (kind, find)

    # writing: its Bundle under another's token, its ids, its urn references, its identifiers
    refused(client.post("/fhir", json=bundle, headers=TWO), 403)
    wrapped = {
        "resourceType": "Parameters",
        "parameter": [
            {
                "name": "measureReport",
                "resource": next(
                    one["resource"] for one in bundle["entry"] if one["resource"]["resourceType"] == "MeasureReport"
                ),
            },
            {"name": "resource", "resource": bundle},
        ],
    }
    refused(client.post("/fhir/Measure/$submit-data", json=wrapped, headers=TWO), 403)
    refused(client.put(named, json=announced, headers=TWO), 403, 422)
    for facility in ("F-001", "F-002"):
        named_there = bundle["identifier"]["value"]
        withdrawal = seal_withdrawal(
            facility, "iasios", named_there, "other", "0.1.0", datetime(2026, 1, 6, tzinfo=UTC)
        )
        refused(client.post("/fhir", json=withdrawal, headers=TWO), 403 if facility == "F-001" else 422)
    theirs = sealed(facility="F-002", cases=1)
    for change in (_takes_ids(places), _refers_to_ids(places), _refers_to_urns(bundle)):
        attack = copy.deepcopy(theirs)
        change(attack)
        attack["identifier"]["value"] = submission_digest(attack)
        refused(client.post("/fhir", json=attack, headers=TWO), 403, 422)
    # the very same content, said of itself, makes resources of its own
    mine = client.post("/fhir", json=theirs, headers=TWO)
    assert mine.status_code == 200, mine.text
    own = {entry["response"]["location"] for entry in mine.json()["entry"]}
    assert not own & set(places)
    assert everything(client, ONE, places) == before


def _takes_ids(places: list[str]) -> Callable[[dict[str, Any]], None]:
    """Every entry that can be is put in the place of another facility's resource."""

    def change(bundle: dict[str, Any]) -> None:
        free = [place for place in places if "/_history" not in place]
        for entry in bundle["entry"]:
            kind = entry["resource"]["resourceType"]
            place = next((one for one in free if one.startswith(f"{kind}/")), None)
            if place is not None:
                free.remove(place)
                entry["request"]["url"] = place

    return change


def _refers_to_ids(places: list[str]) -> Callable[[dict[str, Any]], None]:
    patient = next(place for place in places if place.startswith("Patient/") and "/_history" not in place)

    def change(bundle: dict[str, Any]) -> None:
        for entry in bundle["entry"]:
            if "subject" in entry["resource"] and entry["resource"]["resourceType"] == "Procedure":
                entry["resource"]["subject"] = {"reference": patient}

    return change


def _refers_to_urns(other: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    urn = next(one["fullUrl"] for one in other["entry"] if one["resource"]["resourceType"] == "Measure")

    def change(bundle: dict[str, Any]) -> None:
        own = {entry["fullUrl"] for entry in bundle["entry"]}
        for entry in bundle["entry"]:
            if entry["resource"]["resourceType"] == "Provenance":
                entry["resource"]["target"][0] = {"reference": urn if urn not in own else urn[:-1] + "0"}

    return change


def test_nothing_but_the_descriptions_is_open(served: Served) -> None:
    client = served()
    open_to_all = {
        "/fhir/metadata", "/openapi.json", "/.well-known/smart-configuration", "/fhir/.well-known/smart-configuration",
        "/auth/token",
    }  # fmt: skip
    paths = client.get("/openapi.json").json()["paths"]
    assert open_to_all - {"/openapi.json"} < set(paths)
    for path, operations in paths.items():
        there = path.replace("{kind}", "Patient").replace("{id}", "1").replace("{version}", "1")
        for method in operations:
            answer = client.request(method, there, headers=FHIR, json={})
            assert (answer.status_code == 401) == (path not in open_to_all), (method, path, answer.status_code)


PATHS = [
    "/fhir/Patient/../../../etc/passwd", "/fhir/Patient/..%2f..%2fetc%2fpasswd", "/fhir/Patient/%2e%2e/%2e%2e/metadata",
    "/fhir/Patient/%00", "/fhir/Patient/1%00", "/fhir/Patient/1%0d%0aSet-Cookie:%20a=b", "/fhir/Patient/%ff%fe",
    "/fhir/Patient/1'%20or%20'1'='1", "/fhir/Patient/<script>", "/fhir/Patient/" + "a" * 65, "/fhir/patient/1",
    "/fhir/Patient/1/_history/0", "/fhir/Patient/1/_history/-1", "/fhir/Patient/1/_history/99999999999999999999",
    "/fhir/Patient/1/_history/1%20", "/fhir/Patient/1/_history/%D9%A1", "/fhir/Patient/1/_history", "/fhir/Patient/1/",
    "/fhir//Patient/1", "//fhir/Patient/1", "/fhir/Binary/1", "/fhir/Patient/_history",
    "/fhir/Patient;a=b/1", "/FHIR/Patient/1", "/fhir/%50atient%2F1", "/fhir/Patient/1?_format=xml",
]  # fmt: skip
QUERIES = [
    "identifier=%00", "identifier=a%0d%0aSet-Cookie:%20a=b|b", "identifier=", "", "identifier=a&identifier=b",
    "identifier:contains=a", "_id=a&url=b", "_query=all", "_id=1&_include=*", "_count=1", "name=a", "_format=json",
    "identifier=a&_format=xml", "identifier=a&_format=json&_format=xml",
]  # fmt: skip


@EITHER_DATABASE
def test_odd_paths_and_queries_lead_nowhere(served: Served, store: ReceiverStore) -> None:
    client = served(store)
    for path in PATHS:
        answer = client.get(httpx.URL(str(client.base_url)).copy_with(raw_path=path.encode()), headers=ONE)
        refused(answer, 404, 406)
        assert "set-cookie" not in answer.headers
    for query in QUERIES:
        answer = client.get(f"/fhir/Patient?{query}", headers=ONE)
        refused(answer, 400, 406)
        assert "set-cookie" not in answer.headers
    for text in ("'; drop table resources; --", "%", "_", "a|b|c", "|", "a|", "|a", "\\", "𝕏"):
        found = client.get("/fhir/Patient", params={"identifier": text}, headers=ONE)
        assert (found.status_code, found.json()["total"]) == (200, 0)


def test_other_methods_and_formats_are_refused(served: Served) -> None:
    client = served()
    for method, path in [
        ("DELETE", "/fhir/Patient/1"), ("PUT", "/fhir/Patient/1"), ("PATCH", "/fhir/Patient/1"),
        ("POST", "/fhir/Patient"), ("DELETE", "/fhir"), ("OPTIONS", "/fhir"), ("TRACE", "/fhir/metadata"),
        ("POST", "/fhir/Patient/_search"), ("PUT", "/auth/token"), ("GET", "/fhir/Measure/$submit-data"),
    ]:  # fmt: skip
        answer = client.request(method, path, headers=ONE)
        refused(answer, 405)
        assert answer.headers["allow"]
    for accept in ("application/fhir+xml", "text/html", "application/json;q=0", "image/*, text/*"):
        refused(client.get("/fhir/metadata", headers={"Accept": accept}), 406)
    for accept in ("application/json", "text/html, */*;q=0.1", "Application/FHIR+JSON; fhirVersion=4.0", ""):
        assert client.get("/fhir/metadata", headers={"Accept": accept}).status_code == 200
    refused(client.get("/nowhere"), 404)


def test_a_host_header_changes_nothing(served: Served, sealed: Make) -> None:
    client = served()
    for name in ("Host", "X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL"):
        answers = [
            client.get("/fhir/metadata", headers={name: "evil.example"}),
            client.get("/fhir/Patient?identifier=a", headers={**ONE, name: "evil.example"}),
            client.get("/fhir/Patient/", headers={**ONE, name: "evil.example"}),
        ]
        assert not any("evil" in answer.text + str(answer.headers) for answer in answers)
        assert answers[2].status_code == 404  # and no redirection


BODIES: dict[str, tuple[bytes, int]] = {
    "nested": (b'{"a":' * 50 + b"1" + b"}" * 50, 400),
    "nested without end": (b"[" * 200_000, 400),
    "nested objects without end": (b'{"a":' * 200_000, 400),
    "a name twice": (b'{"resourceType":"Bundle","resourceType":"Bundle"}', 400),
    "a list": (b"[]", 400),
    "nothing": (b"", 400),
    "no UTF-8": (b'{"a":"\xff"}', 400),
    "a lonely surrogate": (rb'{"a":"\ud800"}', 400),
    "a zero character": (rb'{"a":"\u0000"}', 400),
    "a zero character in a name": (rb'{"\u0000":1}', 400),
    "an escape character": (rb'{"a":"\u001b[2J"}', 400),
    "a long string": (b'{"a":"' + b"x" * 70_000 + b'"}', 400),
    "a long name": (b'{"' + b"x" * 70_000 + b'":1}', 400),
    "not a number": (b'{"a":NaN}', 400),
    "infinity": (b'{"a":1e999}', 400),
    "a number of a thousand digits": (b'{"a":' + b"9" * 1000 + b"}", 400),
    "a number of ten thousand digits": (b'{"a":' + b"9" * 10_000 + b"}", 400),
    "another byte order": ("\ufeff{}".encode(), 400),
    "another type": (b'{"resourceType":"Patient"}', 422),
    "entries that are no list": (b'{"resourceType":"Bundle","type":"transaction","entry":{"a":1}}', 422),
    "entries that are nothing": (b'{"resourceType":"Bundle","type":"transaction","entry":[null,1,"a",[]]}', 422),
    "too many entries": (b'{"resourceType":"Bundle","type":"transaction","entry":[' + b"{}," * 60 + b"{}]}", 413),
    "a resource that is a list": (
        b'{"resourceType":"Bundle","type":"transaction","entry":[{"resource":[],"request":[],"fullUrl":{}}]}',
        422,
    ),
    "too large": (b'{"a":"' + b"x" * 300_000 + b'"}', 413),
}


def test_bodies_that_nobody_should_send(served: Served) -> None:
    client = served(limits=Limits(body_bytes=250_000, entries=50))
    large = {"nested without end", "nested objects without end"}
    for name, (body, status) in BODIES.items():
        statuses = (status, 413) if name in large else (status,)
        for content, headers in ((body, ONE), (gzip.compress(body, mtime=0), {**ONE, "Content-Encoding": "gzip"})):
            refused(client.post("/fhir", content=content, headers=headers), *statuses)
        target = f"/fhir/Group?identifier={quote(FRAME_SYSTEM)}|a"
        refused(client.put(target, content=body, headers=ONE), *statuses, 422)
        refused(client.post("/fhir/Measure/$submit-data", content=body, headers=ONE), *statuses, 400, 422)
    for encoding in ("br", "gzip, gzip", "deflate", "identity, gzip"):
        refused(client.post("/fhir", content=b"{}", headers={**ONE, "Content-Encoding": encoding}), 415)


def test_headers_and_addresses_have_a_size(served: Served) -> None:
    client = served()
    refused(client.get("/fhir/metadata", headers={"X-Long": "x" * 17_000}), 431)
    refused(client.get("/fhir/metadata", headers=[("x", "y")] * 9_000), 431)
    refused(client.get("/fhir/Patient", params={"identifier": "x" * 5_000}, headers=ONE), 414)
    refused(client.get("/fhir/" + "x" * 5_000, headers=ONE), 414)


def test_who_asks_too_often_waits(served: Served) -> None:
    client = served(limits=Limits(facility_rate=Rate(2, 0.001)))
    answers = [client.get("/fhir/Patient/1", headers=ONE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    refused(answers[-1], 429)
    assert int(answers[-1].headers["retry-after"]) > 0
    assert client.get("/fhir/Patient/1", headers=TWO).status_code == 404
    crowded = served(limits=Limits(address_rate=Rate(3, 0.001)))
    answers = [crowded.get("/fhir/metadata") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused(answers[-1], 429)


def test_of_too_many_at_once_some_wait() -> None:
    answers: list[int] = []

    async def slow(_scope: Any, _receive: Any, _send: Any) -> None:
        await gate.wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def all_at_once() -> None:
        guard = Guard(slow, Limits(at_once=2))
        scope: dict[str, Any] = {
            "type": "http",
            "headers": [],
            "query_string": b"",
            "raw_path": b"/",
            "client": None,
            "method": "GET",
        }
        tasks = [asyncio.create_task(guard(scope, receive, send)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        await guard(scope, receive, send)

    gate = asyncio.Event()
    asyncio.run(all_at_once())
    assert answers == [503]


def test_a_body_that_does_not_come_is_given_up(served: Served) -> None:
    client = served(limits=Limits(body_s=0.2))
    head = (
        "POST /fhir HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer one\r\n"
        "Content-Type: application/fhir+json\r\nContent-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection((str(client.base_url.host), client.base_url.port or 0), timeout=10) as slow:
        slow.sendall(head.encode())
        answer = b""
        while chunk := slow.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"OperationOutcome" in answer
    assert b"connection: close" in answer.lower()
    with socket.create_connection((str(client.base_url.host), client.base_url.port or 0), timeout=10) as gone:
        gone.sendall(head.encode())
    assert client.get("/fhir/metadata").status_code == 200


def _scripted(value: Any, name: str) -> Any:
    """A copy in which every string of the elements of that name is a script."""
    if isinstance(value, dict):
        return {
            key: SCRIPT if key == name and isinstance(item, str) else _scripted(item, name)
            for key, item in value.items()
        }
    return [_scripted(item, name) for item in value] if isinstance(value, list) else value


def _names(value: Any) -> set[str]:
    """The elements that hold strings."""
    if isinstance(value, dict):
        return {key for key, item in value.items() if isinstance(item, str)}.union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


def test_a_script_in_any_string_is_neither_said_back_nor_shown(served: Served, sealed: Make) -> None:
    client = served()
    bundle = sealed(cases=1)
    names = sorted(_names(bundle))
    assert len(names) > 20
    for name in names:
        attack = _scripted(bundle, name)
        attack["identifier"]["value"] = submission_digest(attack)
        answer = client.post("/fhir", json=attack, headers=ONE)
        assert answer.status_code in (200, 422), (name, answer.text)
        assert "CANARY" not in answer.text, name
    page = client.get("/", auth=("any", "body"))
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "script-src" in page.headers["content-security-policy"] or "default-src 'none'" in str(page.headers)


def test_a_fault_of_ours_shows_nothing_of_the_code(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("CANARY")

    client = served()
    monkeypatch.setattr(ReceiverStore, "read", broken)
    refused(client.get("/fhir/Patient/1", headers=ONE), 500)


def test_the_description_of_the_interface_names_its_routes(served: Served) -> None:
    paths = json.dumps(served().get("/openapi.json").json()["paths"])
    for path in ("/fhir/Measure/$submit-data", "/fhir/{kind}/{id}/_history/{version}", "/auth/token"):
        assert path in paths
