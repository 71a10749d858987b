from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationoutcome import OperationOutcome

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import Programme, ReceiverFaults, create_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import Limits
from io_fhir_adapter.submit.receipts import judge

Make = Callable[..., dict[str, Any]]
FHIR = "application/fhir+json"
PROGRAMMES = {"iasios": Programme("IASIOS", 150)}


@pytest.fixture
def memory() -> Iterator[ReceiverStore]:
    store = ReceiverStore()
    yield store
    store.close()


@pytest.fixture
def serve(memory: ReceiverStore) -> Iterator[Callable[..., httpx.Client]]:
    """Starts the endpoint over real HTTP and gives a client: ``serve(faults=…)``."""
    opened: list[tuple[LoopbackServer, httpx.Client]] = []

    def start(**options: Any) -> httpx.Client:
        server = LoopbackServer(create_app(memory, **({"programmes": PROGRAMMES} | options)))
        server.__enter__()
        client = httpx.Client(base_url=server.base_url, headers={"Accept": FHIR}, trust_env=False)
        opened.append((server, client))
        return client

    yield start
    for server, client in opened:
        client.close()
        server.__exit__(None, None, None)


def post(client: httpx.Client, bundle: dict[str, Any], **options: Any) -> httpx.Response:
    headers = {"Content-Type": FHIR} | options.pop("headers", {})
    return client.post("/fhir", content=json.dumps(bundle).encode(), headers=headers, **options)


def verdict_of(response: httpx.Response, bundle: dict[str, Any]) -> Any:
    return judge(response.status_code, response.headers.get("content-type", ""), response.content, bundle)


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith(FHIR)
    OperationOutcome.model_validate_json(response.content)
    assert "Traceback" not in response.text
    body: dict[str, Any] = response.json()
    return body


def test_a_submission_gets_a_receipt_and_again_the_same(
    serve: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    client = serve()
    bundle = sealed()
    first, second = post(client, bundle), post(client, bundle)
    Bundle.model_validate_json(first.content)
    one, two = verdict_of(first, bundle), verdict_of(second, bundle)
    assert (one.kind, two.kind) == ("accepted", "accepted")
    assert {entry.status for entry in one.entries} == {201}
    assert {entry.status for entry in two.entries} == {200}
    assert [entry.location for entry in one.entries] == [entry.location for entry in two.entries]
    assert len(memory.submissions()) == 1


def test_what_was_stored_can_be_read_and_found(serve: Callable[..., httpx.Client], sealed: Make) -> None:
    client = serve()
    bundle = sealed()
    answer = post(client, bundle).json()
    for entry, sent in zip(answer["entry"], bundle["entry"], strict=True):
        version = client.get(f"/fhir/{entry['response']['location']}")
        path = entry["response"]["location"].partition("/_history")[0]
        newest = client.get(f"/fhir/{path}")
        assert version.status_code == newest.status_code == 200
        assert version.content == newest.content
        assert newest.headers["etag"] == entry["response"]["etag"] == 'W/"1"'
        assert newest.headers["content-type"].startswith(FHIR)
        assert newest.json()["meta"]["lastUpdated"] == entry["response"]["lastModified"]
        assert client.get(f"/fhir/{path}", headers={"If-None-Match": 'W/"1"'}).status_code == 304
        if "?" in sent["request"]["url"]:
            found = client.get(f"/fhir/{sent['request']['url']}")
            Bundle.model_validate_json(found.content)
            assert found.json()["total"] == 1
            assert found.json()["entry"][0]["resource"] == newest.json()
    assert client.get("/fhir/Patient?identifier=nobody").json()["total"] == 0


def test_one_bad_entry_stores_nothing(
    serve: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make, altered: Make
) -> None:
    def spoil(bundle: dict[str, Any]) -> None:
        bundle["entry"][-2]["resource"]["status"] = "CANARY"

    client = serve()
    bundle = altered(spoil)
    response = post(client, bundle)
    issue = refused(response, 422)["issue"][0]
    assert issue["expression"] == [f"Bundle.entry[{len(bundle['entry']) - 2}].resource.status"]
    assert "CANARY" not in response.text
    assert verdict_of(response, bundle).kind == "rejected"
    assert memory.submissions() == []
    for entry in sealed()["entry"][:-1]:
        assert client.get(f"/fhir/{entry['request']['url']}").json()["total"] == 0


def test_cut_after_storing_and_sent_again_is_stored_once(
    serve: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    client = serve(faults=ReceiverFaults(cut_after_storing=1))
    bundle = sealed()
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, bundle)
    stored = memory.submissions()
    assert [item.times for item in stored] == [1]
    again = post(client, bundle)
    assert verdict_of(again, bundle).kind == "accepted"
    (kept,) = memory.submissions()
    assert (kept.received, kept.times) == (stored[0].received, 2)
    assert client.get(f"/fhir/{bundle['entry'][0]['request']['url']}").json()["total"] == 1


def test_faults_happen_in_order_and_store_nothing(
    serve: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    faults = ReceiverFaults(too_many=1, server_error=1, login_page=1, entry_errors=1, cut_before_storing=1)
    client = serve(faults=faults)
    bundle = sealed()
    slow = post(client, bundle)
    assert (slow.status_code, slow.headers["retry-after"]) == (429, "1")
    assert verdict_of(slow, bundle).kind == "transient"
    assert verdict_of(post(client, bundle), bundle).kind == "transient"
    page = post(client, bundle)
    assert (page.status_code, verdict_of(page, bundle).kind) == (200, "transient")
    half = post(client, bundle)
    assert (half.status_code, verdict_of(half, bundle).kind) == (200, "rejected")
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, bundle)
    assert memory.submissions() == []
    assert verdict_of(post(client, bundle), bundle).kind == "accepted"


def test_refusals_before_the_content_is_looked_at(serve: Callable[..., httpx.Client], sealed: Make) -> None:
    client = serve(limits=Limits(body_bytes=5000, entries=2))
    refused(post(client, {}, headers={"Content-Type": "text/plain"}), 415)
    refused(post(client, {}, headers={"Content-Encoding": "br"}), 415)
    refused(post(client, sealed()), 413)
    bomb = gzip.compress(b" " * 10_000_000, mtime=0)[:4000]
    refused(client.post("/fhir", content=bomb, headers={"Content-Type": FHIR, "Content-Encoding": "gzip"}), 413)
    refused(client.post("/fhir", content=b"{", headers={"Content-Type": FHIR}), 400)
    refused(client.post("/fhir", content=b"{}", headers={"Content-Type": FHIR}), 422)
    many = {"resourceType": "Bundle", "type": "transaction", "entry": [{}, {}, {}]}
    refused(post(client, many), 413)


def test_a_gzipped_submission_is_taken(serve: Callable[..., httpx.Client], sealed: Make) -> None:
    bundle = sealed()
    body = gzip.compress(json.dumps(bundle).encode(), mtime=0)
    headers = {"Content-Type": FHIR, "Content-Encoding": "gzip"}
    assert verdict_of(serve().post("/fhir", content=body, headers=headers), bundle).kind == "accepted"


def test_what_is_not_there_is_an_outcome(serve: Callable[..., httpx.Client]) -> None:
    client = serve()
    refused(client.get("/fhir/Patient/none"), 404)
    refused(client.get("/fhir/Patient/none/_history/x"), 404)
    refused(client.get("/fhir/Observation/1"), 404)
    refused(client.get("/fhir/Observation?identifier=a"), 404)
    refused(client.get("/fhir/Patient"), 400)
    refused(client.get("/fhir/Patient?name=x"), 400)
    refused(client.get("/fhir/Patient?identifier=a&identifier=b"), 400)
    refused(client.delete("/fhir/Patient/1"), 405)
    refused(client.get("/nothing"), 404)


def test_metadata_is_a_capability_statement(serve: Callable[..., httpx.Client]) -> None:
    statement = serve(tokens={"t": "F-001"}).get("/fhir/metadata")
    CapabilityStatement.model_validate_json(statement.content)
    assert statement.json()["fhirVersion"] == "4.0.1"


def test_a_token_is_its_facility_and_no_other(serve: Callable[..., httpx.Client], sealed: Make) -> None:
    client = serve(tokens={"one": "F-001", "two": "F-002"}, operator_token="body")
    bundle = sealed()
    assert "Bearer" in post(client, bundle).headers["www-authenticate"]
    refused(post(client, bundle), 401)
    refused(post(client, bundle, headers={"Authorization": "Bearer wrong"}), 401)
    refused(post(client, bundle, headers={"Authorization": "Basic one"}), 401)
    refused(post(client, bundle, headers={"Authorization": "Bearer two"}), 403)
    answer = post(client, bundle, headers={"Authorization": "Bearer one"}).json()
    path = f"/fhir/{answer['entry'][0]['response']['location']}"
    assert client.get(path, headers={"Authorization": "Bearer one"}).status_code == 200
    refused(client.get(path, headers={"Authorization": "Bearer two"}), 404)
    refused(client.get(path), 401)
    search = f"/fhir/{bundle['entry'][0]['request']['url']}"
    assert client.get(search, headers={"Authorization": "Bearer two"}).json()["total"] == 0
    assert client.get("/").status_code == 401
    assert client.get("/", headers={"Authorization": "Bearer one"}).status_code == 401
    assert client.get("/", auth=("any", "wrong")).status_code == 401
    assert "F-001" in client.get("/", auth=("any", "body")).text


def test_another_programme_is_refused(serve: Callable[..., httpx.Client], sealed: Make) -> None:
    client = serve(programmes={"degir": Programme("DeGIR", 100)})
    assert refused(post(client, sealed()), 422)["issue"][0]["expression"] == ["Bundle.meta.tag"]


def test_the_page_shows_the_newest_volume_against_the_threshold(
    serve: Callable[..., httpx.Client], sealed: Make
) -> None:
    client = serve()
    assert "Nothing has been submitted yet" in client.get("/").text
    post(client, sealed(counted=140))
    assert "not reached" in client.get("/").text
    post(client, sealed(counted=163))
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "not reached" not in page.text
    assert ">163<" in page.text
    assert "2025-01-01 – 2025-12-31" in page.text


def test_the_page_escapes_what_facilities_send(memory: ReceiverStore, serve: Callable[..., httpx.Client]) -> None:
    client = serve(programmes={"iasios": Programme("<script>alert(1)</script>", 150)})
    assert "<script>" not in client.get("/").text


def test_a_fault_of_the_endpoint_shows_no_trace(
    serve: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CANARY")

    monkeypatch.setattr(memory, "accept", fail)
    response = post(serve(), sealed())
    assert "CANARY" not in response.text
    refused(response, 500)


def test_raw_rubbish_on_the_socket_does_not_stop_it(serve: Callable[..., httpx.Client], sealed: Make) -> None:
    client = serve()
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(b"POST /fhir HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
    assert post(client, sealed()).status_code == 200
