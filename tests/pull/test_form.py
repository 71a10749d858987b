"""The case-review form of a body, fetched from where it publishes it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import MappingError, TransportError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pull.form import fetch_form
from io_fhir_adapter.review.forms import parse_questionnaire

if TYPE_CHECKING:
    from starlette.requests import Request

FORM = {"resourceType": "Questionnaire", "url": "urn:x", "version": "1", "item": [{"linkId": "1", "type": "string"}]}
BUNDLE = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "OperationOutcome"}}, {"resource": FORM}]}


def body(signed: list[str]) -> Starlette:
    """A body's server: one form by its id, and a search that gives a Bundle."""

    async def answer(request: Request) -> JSONResponse:
        signed.append(request.headers.get("authorization", ""))
        if request.url.query:
            return JSONResponse(BUNDLE, media_type="application/fhir+json")
        status, content = (200, FORM) if request.path_params["name"] == "cases" else (404, {})
        return JSONResponse(content, status, media_type="application/fhir+json")

    return Starlette(routes=[Route("/fhir/Questionnaire/{name:path}", answer), Route("/fhir/{name:path}", answer)])


def facility(submission: str = "") -> Config:
    document: dict[str, Any] = {
        "facility": {"code": "F", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "s", "kind": "fhir", "url": "http://127.0.0.1:9/fhir"}],
    }
    if submission:
        auth = {"kind": "basic", "username": "a", "password": {"env": "FORM_PASSWORD"}}
        document["submission"] = {"url": submission, "auth": auth, "retries": 0}
    return Config.model_validate(document)


def fetched(config: Config, url: str) -> dict[str, Any]:
    return parse_questionnaire(asyncio.run(fetch_form(config, url)), url)


def test_by_its_id_and_by_a_search() -> None:
    with LoopbackServer(body([])) as theirs:
        base = f"{theirs.base_url}/fhir"
        assert fetched(facility(), f"{base}/Questionnaire/cases") == FORM
        assert fetched(facility(), f"{base}/Questionnaire?url=urn:x&version=1") == FORM
        with pytest.raises(TransportError):
            fetched(facility(f"{base}/other"), f"{base}/Questionnaire/unknown")


def test_the_sign_in_goes_to_the_accreditation_system_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORM_PASSWORD", "synthetic")
    signed: list[str] = []
    with LoopbackServer(body(signed)) as theirs:
        base = f"{theirs.base_url}/fhir"
        fetched(facility(base), f"{base}/Questionnaire/cases")
        fetched(facility(f"{base}/elsewhere"), f"{base}/Questionnaire/cases")
    assert [bool(one) for one in signed] == [True, False]


def test_what_is_no_form_is_refused_with_its_address() -> None:
    with pytest.raises(MappingError, match=r"https://body\.example/form"):
        parse_questionnaire(json.dumps({"resourceType": "Bundle"}).encode(), "https://body.example/form")
