"""The sandbox's Bulk Data export, seen from a client over a real socket."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.faults import Faults, faults_from_json, faults_to_json
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore

THEN, LATER = "2025-01-01T00:00:00.000Z", "2025-06-01T00:00:00.000Z"
ASYNC = {"Prefer": "respond-async"}


def resources() -> list[dict[str, Any]]:
    """Two patients with two Procedures each, and one organisation."""
    made: list[dict[str, Any]] = []
    for name in "ab":
        made.append({"resourceType": "Patient", "id": name, "meta": {"lastUpdated": THEN}})
        made += [
            {
                "resourceType": "Procedure", "id": f"{name}{number}", "subject": {"reference": f"Patient/{name}"},
                "meta": {"lastUpdated": LATER if number else THEN}, "performedDateTime": f"202{number + 4}-01-01",
            }
            for number in range(2)
        ]  # fmt: skip
    made.append({"resourceType": "Organization", "id": "o", "meta": {"lastUpdated": THEN}})
    member = [{"entity": {"reference": "Patient/b"}}]
    made.append({"resourceType": "Group", "id": "g", "meta": {"lastUpdated": THEN}, "member": member})
    return made


class Server:
    """A running sandbox and a client for it."""

    def __init__(self, store: SandboxStore, client: httpx.Client, url: str) -> None:
        self.store = store
        self.client = client
        self.url = url

    def kick_off(self, path: str = "$export", **parameters: str) -> httpx.Response:
        """A kick-off by GET."""
        return self.client.get(f"/fhir/{path}", params=parameters, headers=ASYNC)

    def manifest(self, answer: httpx.Response) -> dict[str, Any]:
        """The manifest of a job that is ready at once."""
        assert answer.status_code == 202, answer.text
        found = self.client.get(answer.headers["content-location"])
        assert found.status_code == 200
        return dict(found.json())

    def ids(self, manifest: dict[str, Any]) -> dict[str, list[str]]:
        """Ids by type, as the files hold them."""
        found: dict[str, list[str]] = {}
        for file in manifest["output"]:
            for line in self.client.get(file["url"]).text.splitlines():
                resource = json.loads(line)
                found.setdefault(resource["resourceType"], []).append(resource.get("id", ""))
        return found


Start = Callable[[BulkFaults], Server]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server."""
    with ExitStack() as stack:

        def run(bulk: BulkFaults) -> Server:
            store = SandboxStore.from_resources(resources())
            server = stack.enter_context(LoopbackServer(create_app(store, Faults(bulk=bulk))))
            client = stack.enter_context(httpx.Client(base_url=server.base_url))
            return Server(store, client, server.base_url)

        yield run


@pytest.fixture
def ready(start: Start) -> Server:
    """A server whose exports are ready at once."""
    return start(BulkFaults(polls=0))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (
            "$export",
            {"Patient": ["a", "b"], "Procedure": ["a0", "a1", "b0", "b1"], "Organization": ["o"], "Group": ["g"]},
        ),
        ("Patient/$export", {"Patient": ["a", "b"], "Procedure": ["a0", "a1", "b0", "b1"]}),
        ("Group/everyone/$export", {"Patient": ["a", "b"], "Procedure": ["a0", "a1", "b0", "b1"]}),
        ("Group/g/$export", {"Patient": ["b"], "Procedure": ["b0", "b1"]}),
    ],
)
def test_levels(ready: Server, path: str, found: dict[str, list[str]]) -> None:
    assert ready.ids(ready.manifest(ready.kick_off(path))) == found


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"_type": "Procedure"}, {"Procedure": ["a0", "a1", "b0", "b1"]}),
        ({"_type": "Procedure,Patient", "_since": "2025-03-01T00:00:00Z"}, {"Procedure": ["a1", "b1"]}),
        ({"_type": "Procedure", "_typeFilter": "Procedure?date=ge2025"}, {"Procedure": ["a1", "b1"]}),
        ({"_type": "Procedure", "_typeFilter": "Procedure?patient=Patient/a"}, {"Procedure": ["a0", "a1"]}),
    ],
)
def test_parameters_by_both_methods(ready: Server, parameters: dict[str, str], found: dict[str, list[str]]) -> None:
    assert ready.ids(ready.manifest(ready.kick_off(**parameters))) == found
    body = {"resourceType": "Parameters", "parameter": [{"name": k, "valueString": v} for k, v in parameters.items()]}
    assert ready.ids(ready.manifest(ready.client.post("/fhir/$export", json=body, headers=ASYNC))) == found


def test_looks_at_the_status_until_it_is_done_and_gone(start: Start) -> None:
    server = start(BulkFaults(polls=2))
    where = server.kick_off().headers["content-location"]
    looks = [server.client.get(where) for _ in range(3)]
    assert [look.status_code for look in looks] == [202, 202, 200]
    assert [look.headers.get("x-progress") for look in looks] == ["1 to go", "0 to go", None]
    assert looks[0].headers["retry-after"] == "1"
    assert server.client.delete(where).status_code == 202
    assert server.client.get(where).status_code == 404
    assert server.client.get(looks[2].json()["output"][0]["url"]).status_code == 404


def test_an_export_shows_the_moment_of_its_kick_off(ready: Server) -> None:
    answer = ready.kick_off(_type="Patient")
    ready.store.put({"resourceType": "Patient", "id": "c"})
    assert ready.ids(ready.manifest(answer)) == {"Patient": ["a", "b"]}
    ready.store.delete("Patient", "a")
    assert "a" not in ready.ids(ready.manifest(ready.kick_off(_type="Patient")))["Patient"]


def test_deleted_resources_are_named_to_whom_asks_what_changed(ready: Server) -> None:
    ready.store.delete("Procedure", "a0")
    assert ready.manifest(ready.kick_off())["deleted"] == []
    (file,) = ready.manifest(ready.kick_off(_since=LATER))["deleted"]
    bundle = json.loads(ready.client.get(file["url"]).text)
    assert bundle["entry"] == [{"request": {"method": "DELETE", "url": "Procedure/a0"}}]
    ready.store.put({"resourceType": "Procedure", "id": "a0"})
    assert ready.manifest(ready.kick_off(_since=LATER))["deleted"] == []


def test_manifest_pages_files_and_counts(start: Start) -> None:
    server = start(BulkFaults(polls=0, per_file=3, per_manifest=1, count_off_by=1))
    page = server.manifest(server.kick_off(_type="Procedure"))
    assert [file["count"] for file in page["output"]] == [4]
    following = server.client.get(page["link"][0]["url"]).json()
    assert ([file["count"] for file in following["output"]], "link" in following) == ([2], False)


def test_mixed_files_say_whose_resources_follow(start: Start) -> None:
    server = start(BulkFaults(polls=0, by_patient=True, per_file=1))
    manifest = server.manifest(server.kick_off(_type="Patient,Procedure"))
    assert manifest["outputOrganizedBy"] == "Patient"
    assert [("type" in file, file["count"]) for file in manifest["output"]] == [(False, 3), (False, 3)]
    lines = [json.loads(line) for line in server.client.get(manifest["output"][1]["url"]).text.splitlines()]
    assert lines[0]["parameter"][0]["valueReference"] == {"reference": "Patient/b"}
    assert [line["id"] for line in lines[1:]] == ["b", "b0", "b1"]


def test_files_by_themselves_compressed(start: Start) -> None:
    server = start(BulkFaults(polls=0, gzip_files=True, final_newline=False))
    file = server.manifest(server.kick_off(_type="Patient"))["output"][0]
    assert not gzip.decompress(server.client.get(file["url"]).content).endswith(b"\n")


def test_credentials_are_refused_where_none_belong(start: Start) -> None:
    server = start(BulkFaults(polls=0, requires_token=False))
    file = server.manifest(server.kick_off(_type="Patient"))["output"][0]
    assert server.client.get(file["url"]).status_code == 200
    assert server.client.get(file["url"], headers={"Authorization": "Bearer x"}).status_code == 400


def test_redirects_to_another_origin(start: Start) -> None:
    server = start(BulkFaults(polls=0, redirect_to="https://files.example"))
    file = server.manifest(server.kick_off(_type="Patient"))["output"][0]
    answer = server.client.get(file["url"])
    assert answer.status_code == 307
    assert answer.headers["location"].startswith("https://files.example/fhir/bulk-file/")
    granted = f"{file['url']}?granted=1"
    assert server.client.get(granted, headers={"Authorization": "Bearer x"}).status_code == 400
    assert server.client.get(granted).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "$export", {}, 400),
        ("GET", "$export?_since=yesterday", ASYNC, 400),
        ("GET", "$export?_since=2025-01-01T00:00:00", ASYNC, 400),
        ("GET", "$export?_outputFormat=text/csv", ASYNC, 400),
        ("POST", "$export", ASYNC, 400),
        ("GET", "Group/nobody/$export", ASYNC, 404),
        ("GET", "Encounter/$export", ASYNC, 404),
        ("GET", "bulk-status/none", {}, 404),
        ("GET", "bulk-file/none/0.ndjson", {}, 404),
    ],
)
def test_refusals(ready: Server, method: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = ready.client.request(method, f"/fhir/{path}", headers=headers)
    assert (answer.status_code, answer.json()["resourceType"]) == (status, "OperationOutcome")


def test_the_capability_statement_names_the_export(ready: Server) -> None:
    rest = ready.client.get("/fhir/metadata").json()["rest"][0]
    assert [one["name"] for one in rest["operation"]] == ["export"]
    by_type = {one["type"]: [each["name"] for each in one.get("operation", [])] for one in rest["resource"]}
    assert (by_type["Patient"], by_type["Group"], by_type["Procedure"]) == (["export"], ["export"], [])


def test_its_faults_are_switched_like_the_others() -> None:
    switched = faults_from_json(b'{"bulk": {"polls": 3, "issues": ["error"]}}')
    assert switched.bulk == BulkFaults(polls=3, issues=("error",))
    assert faults_to_json(switched)["bulk"]["polls"] == 3
    with pytest.raises(ValueError, match="unknown: pols"):
        faults_from_json(b'{"bulk": {"pols": 3}}')
