"""Searches around a patient's session: what a source does not offer is a reason, and nobody else's record is kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.model import Lookup
from io_fhir_adapter.pull.around import fetch_lookups
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore

if TYPE_CHECKING:
    from starlette.requests import Request

    from io_fhir_adapter.pull.around import Lookups

MARCH = Lookup("Observation", ("Patient/a",), "patient", "date", "2025-03-01", "2025-03-31")
CONSENTS = Lookup("Consent", ("Patient/a",))


def observation(name: str, patient: str = "a", day: str = "2025-03-10", code: str = "1-1") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": day,
    }


OBSERVATIONS = [
    observation("in"),
    observation("out", day="2025-05-01"),
    observation("code", code="2-2"),
    observation("other", patient="b"),
]


def look_up(source: dict[str, Any], *lookups: Lookup) -> Lookups:
    config = Config.model_validate({"facility": {"code": "F", "time_zone": "Europe/Berlin"}, "sources": [source]})
    return asyncio.run(fetch_lookups(config, {"s": lookups}))


def server(url: str) -> dict[str, Any]:
    return {"name": "s", "kind": "fhir", "url": url, "retries": 0, "max_retry_wait_s": 0}


def names(found: Lookups, lookup: Lookup = MARCH) -> set[str]:
    return {resource["id"] for resource in found.found["s", lookup]}


def test_a_server_gives_the_patients_resources_in_the_window() -> None:
    with LoopbackServer(create_app(SandboxStore.from_resources(OBSERVATIONS))) as sandbox:
        coded = Lookup("Observation", ("Patient/a",), "patient", "date", "2025-03-01", "2025-03-31", ("2-2",))
        both = Lookup("Observation", ("Patient/a", "Patient/b"))
        found = look_up(server(f"{sandbox.base_url}/fhir"), MARCH, CONSENTS, coded, both)
    assert names(found) == {"in", "code"}
    assert names(found, coded) == {"code"}
    assert names(found, both) == {"in", "out", "code", "other"}
    assert names(found, CONSENTS) == set()
    assert found.absent == {"s": {"Consent": "not offered"}}


def test_files_give_the_same(tmp_path: Path) -> None:
    lines = [json.dumps(resource) for resource in (*OBSERVATIONS, {**OBSERVATIONS[0], "status": "amended"})]
    (tmp_path / "a.ndjson").write_text("\n".join(lines), encoding="utf-8")
    source = {"name": "s", "kind": "files", "paths": [str(tmp_path)]}
    found = look_up(source, MARCH, CONSENTS)
    assert names(found) == {"in", "out", "code"}  # the window is looked at by who asked
    assert found.absent == {"s": {"Consent": "not offered"}}
    assert len(found.resources_of("s")) == 3


def answering(answers: dict[str, tuple[int, dict[str, Any]]], asked: list[str]) -> Starlette:
    """A server that answers by the path, and for a path with a query of that text before."""

    async def answer(request: Request) -> JSONResponse:
        asked.append(request.url.query)
        path = request.path_params["path"]
        status, body = answers.get("windowed" if "date=" in request.url.query else path, answers[path])
        return JSONResponse(body, status, media_type="application/fhir+json")

    return Starlette(routes=[Route("/{path:path}", answer)])


def searchset(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in resources]}


OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-supported"}]}


@pytest.mark.parametrize(
    ("status", "why"), [(404, "not offered"), (405, "not offered"), (403, "refused"), (400, "not searched by patient")]
)
def test_a_refusal_is_a_reason_and_is_heard_once(status: int, why: str) -> None:
    asked: list[str] = []
    answers = {"metadata": (404, OUTCOME), "Observation": (status, OUTCOME)}
    other = Lookup("Observation", ("Patient/b",), "patient", "date", "2025-03-01", "2025-03-31")
    with LoopbackServer(answering(answers, asked)) as theirs:
        found = look_up(server(theirs.base_url), MARCH, other)
    assert found.absent == {"s": {"Observation": why}}
    assert names(found) == names(found, other) == set()
    assert len([query for query in asked if query]) == (2 if status == 400 else 1)


def test_a_server_that_does_not_understand_the_window_is_asked_without_it() -> None:
    asked: list[str] = []
    answers: dict[str, tuple[int, dict[str, Any]]] = {
        "metadata": (200, {"resourceType": "CapabilityStatement"}),
        "windowed": (400, OUTCOME),
        "Observation": (200, searchset(*OBSERVATIONS[:2])),
    }
    with LoopbackServer(answering(answers, asked)) as theirs:
        found = look_up(server(theirs.base_url), MARCH)
    assert names(found) == {"in", "out"}
    assert found.absent == {"s": {}}


def test_a_server_that_ignores_the_patient_is_not_read_on() -> None:
    answers: dict[str, Any] = {"metadata": (404, OUTCOME), "Observation": (200, searchset(*OBSERVATIONS))}
    with LoopbackServer(answering(answers, [])) as theirs:
        found = look_up(server(theirs.base_url), MARCH)
    assert names(found) == set()
    assert found.absent == {"s": {"Observation": "not searched by patient"}}


def test_a_server_that_fails_is_a_failure_and_names_nobody() -> None:
    answers = {"metadata": (404, OUTCOME), "Observation": (500, OUTCOME)}
    who = Lookup("Observation", ("Patient/somebody",), "patient", "date", "2025-03-01", "2025-03-31")
    with LoopbackServer(answering(answers, [])) as theirs, pytest.raises(TransportError) as failed:
        look_up(server(theirs.base_url), who)
    assert "somebody" not in failed.value.sentence
