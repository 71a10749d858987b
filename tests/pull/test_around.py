"""Searches around a patient's session: what a source does not offer is a reason, and nobody else's record is kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import PullError, TransportError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.model import Lookup
from io_fhir_adapter.pull.around import fetch_lookups
from io_fhir_adapter.sandbox.faults import Faults, PageFault
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


def of(*patients: str) -> Lookup:
    """The search of March for the records of one patient."""
    return msgspec.structs.replace(MARCH, patients=tuple(f"Patient/{name}" for name in patients))


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


CODED = msgspec.structs.replace(MARCH, codes=("http://loinc.org|1-1", "http://loinc.org|2-2"))


@pytest.mark.parametrize("lookup", [MARCH, CODED, msgspec.structs.replace(CODED, patients=of("a", "former").patients)])
@pytest.mark.parametrize("faults", [{}, {"bare_ids": True}, {"no_lists": True}, {"bare_ids": True, "no_lists": True}])
def test_what_finds_nothing_is_asked_for_in_another_way(lookup: Lookup, faults: dict[str, Any]) -> None:
    store = SandboxStore.from_resources(OBSERVATIONS)
    with LoopbackServer(create_app(store, faults=Faults(**faults))) as sandbox:
        found = look_up(server(f"{sandbox.base_url}/fhir"), lookup)
    assert names(found, lookup) == {"in", "code"}
    assert found.absent == {"s": {}}


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
def test_a_refusal_is_a_reason_and_is_heard_twice_at_most(status: int, why: str) -> None:
    asked: list[str] = []
    answers = {"metadata": (404, OUTCOME), "Observation": (status, OUTCOME)}
    lookups = [of(name) for name in "abc"]
    with LoopbackServer(answering(answers, asked)) as theirs:
        found = look_up(server(theirs.base_url), *lookups)
    assert found.absent == {"s": {"Observation": why}}
    assert [names(found, lookup) for lookup in lookups] == [set()] * 3
    assert len([query for query in asked if query]) == (4 if status == 400 else 2)


@pytest.mark.parametrize("refused", ["a", "former", "b"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 501])
def test_a_record_that_is_refused_is_nobody_elses_matter(status: int, refused: str) -> None:
    async def answer(request: Request) -> JSONResponse:
        name = request.query_params.get("patient", "").removeprefix("Patient/")
        is_refused = name in {"", refused}  # the statement too
        body = OUTCOME if is_refused else searchset(observation(f"of-{name}", name))
        return JSONResponse(body, status if is_refused else 200, media_type="application/fhir+json")

    lookups = [of("a", "former"), of("b"), of("c")]
    with LoopbackServer(Starlette(routes=[Route("/{path:path}", answer)])) as theirs:
        found = look_up(server(theirs.base_url), *lookups)
    assert found.absent == {"s": {}}
    assert {one for lookup in lookups for one in names(found, lookup)} == {
        f"of-{name}" for name in ("a", "former", "b", "c") if name != refused
    }


def test_the_only_record_that_is_asked_for_is_refused_once() -> None:
    asked: list[str] = []
    answers = {"metadata": (404, OUTCOME), "Observation": (403, OUTCOME)}
    with LoopbackServer(answering(answers, asked)) as theirs:
        found = look_up(server(theirs.base_url), MARCH, msgspec.structs.replace(MARCH, first="2025-02-01"))
    assert found.absent == {"s": {"Observation": "refused"}}
    assert len([query for query in asked if query]) == 1


@pytest.mark.parametrize(
    "fault",
    [
        PageFault("gone", page=2, times=2),
        PageFault("error", page=2, status=404),
        PageFault("error", page=2, status=400),
    ],
    ids=["410", "404", "400"],
)
def test_a_search_that_is_forgotten_half_way_is_started_again(fault: PageFault) -> None:
    store = SandboxStore.from_resources(OBSERVATIONS)
    with LoopbackServer(create_app(store, faults=Faults(max_page_size=1, page_faults=(fault,)))) as sandbox:
        found = look_up(server(f"{sandbox.base_url}/fhir"), MARCH)
    assert names(found) == {"in", "code"}
    assert found.absent == {"s": {}}


@pytest.mark.parametrize(
    "fault",
    [
        PageFault("gone", page=2, times=3),
        PageFault("error", page=2, status=403),
        PageFault("error", page=2, status=501),
    ],
    ids=["410", "403", "501"],
)
def test_the_beginning_of_a_search_is_never_all_of_it(fault: PageFault) -> None:
    store = SandboxStore.from_resources(OBSERVATIONS)
    with (
        LoopbackServer(create_app(store, faults=Faults(max_page_size=1, page_faults=(fault,)))) as sandbox,
        pytest.raises(PullError) as failed,
    ):
        look_up(server(f"{sandbox.base_url}/fhir"), MARCH)
    assert failed.value.code == "IOA-PUL-037"


def test_one_code_that_is_found_says_nothing_of_lists() -> None:
    single = msgspec.structs.replace(CODED, codes=("2-2",), first="2025-02-01")  # it is asked for first
    with LoopbackServer(create_app(SandboxStore.from_resources(OBSERVATIONS), faults=Faults(no_lists=True))) as sandbox:
        found = look_up(server(f"{sandbox.base_url}/fhir"), single, CODED)
    assert (names(found, single), names(found, CODED)) == ({"code"}, {"in", "code"})


def test_what_is_given_for_every_record_of_a_patient_is_taken_once() -> None:
    merged = of("a", "former")
    answers = {"metadata": (404, OUTCOME), "Observation": (200, searchset(*OBSERVATIONS[:2]))}
    with LoopbackServer(answering(answers, [])) as theirs:
        found = look_up(server(theirs.base_url), merged)
    assert [resource["id"] for resource in found.found["s", merged]] == ["in", "out"]


def test_finding_nothing_is_doubted_a_few_times_and_no_more() -> None:
    asked: list[str] = []
    answers = {"metadata": (404, OUTCOME), "Observation": (200, searchset())}
    lookups = [msgspec.structs.replace(CODED, patients=of(str(number)).patients) for number in range(20)]
    with LoopbackServer(answering(answers, asked)) as theirs:
        look_up(server(theirs.base_url), *lookups)
    assert len([query for query in asked if query]) == 20 + 3 * 3


def test_what_is_asked_for_in_another_way_may_be_refused() -> None:
    async def answer(request: Request) -> JSONResponse:
        named = request.query_params.get("patient", "Patient/")
        status, body = (200, searchset()) if named.startswith("Patient/") else (400, OUTCOME)
        return JSONResponse(body, status, media_type="application/fhir+json")

    with LoopbackServer(Starlette(routes=[Route("/{path:path}", answer)])) as theirs:
        found = look_up(server(theirs.base_url), CODED)
    assert names(found, CODED) == set()
    assert found.absent == {"s": {}}


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
