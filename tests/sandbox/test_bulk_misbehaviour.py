"""Exports of the sandbox that are not what they should be, seen from a client over a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.faults import Faults, PageFault
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore

ASYNC = {"Prefer": "respond-async"}
Start = Callable[[Faults], httpx.Client]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server with five patients and gives a client for it."""
    with ExitStack() as stack:

        def run(faults: Faults) -> httpx.Client:
            store = SandboxStore.from_resources({"resourceType": "Patient", "id": name} for name in "abcde")
            server = stack.enter_context(LoopbackServer(create_app(store, faults)))
            return stack.enter_context(httpx.Client(base_url=server.base_url))

        yield run


def status(client: httpx.Client, **headers: str) -> str:
    """Where the status of a new export is."""
    return str(client.get("/fhir/$export", headers={**ASYNC, **headers}).headers["content-location"])


def manifest(client: httpx.Client) -> dict[str, Any]:
    """The manifest of a new export."""
    return dict(client.get(status(client)).json())


def test_a_job_is_handed_out_again_unless_a_new_one_is_wanted(start: Start) -> None:
    client = start(Faults(bulk=BulkFaults(reuses_jobs=True)))
    first = status(client)
    assert status(client) == first
    assert status(client, **{"Cache-Control": "no-cache"}) != first
    plain = start(Faults())
    assert status(plain) != status(plain)


def test_a_time_that_is_not_the_right_one(start: Start) -> None:
    client = start(Faults(bulk=BulkFaults(polls=0, transaction_time="then")))
    assert manifest(client)["transactionTime"] == "then"


def test_types_that_are_lacking_and_lines_that_do_not_belong_there(start: Start) -> None:
    assert manifest(start(Faults(bulk=BulkFaults(polls=0, lacking_types=("Patient",)))))["output"] == []
    client = start(Faults(bulk=BulkFaults(polls=0, foreign_lines=('{"resourceType":"Basic"}',))))
    (file,) = manifest(client)["output"]
    lines = [json.loads(line) for line in client.get(file["url"]).text.splitlines()]
    assert file["count"] == len(lines) == 6
    assert lines[-1] == {"resourceType": "Basic"}


@pytest.mark.parametrize(("kind", "names"), [("no-length", "abcde"), ("cut-lines", "ab")])
def test_a_body_of_which_nothing_says_where_it_ends(start: Start, kind: Any, names: str) -> None:
    client = start(Faults(bulk=BulkFaults(polls=0), page_faults=(PageFault(kind, token="bulk-file"),)))
    url = manifest(client)["output"][0]["url"]
    answer = client.get(url)
    assert answer.http_version == "HTTP/1.0"
    assert not {"content-length", "transfer-encoding"} & set(answer.headers)
    assert [json.loads(line)["id"] for line in answer.text.splitlines()] == list(names)
    assert len(client.get(url).text.splitlines()) == 5
