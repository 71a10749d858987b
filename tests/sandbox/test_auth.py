"""The sandbox's authorisation server: what it grants, what it refuses, and that it is as strict as it says."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.auth_plan import AuthPlan
from io_fhir_adapter.sandbox.faults import Faults, faults_from_json, faults_to_json
from io_fhir_adapter.sandbox.server import SandboxApp, create_app
from io_fhir_adapter.sandbox.store import SandboxStore

KEY = ECKey.generate_key("P-384", parameters={"kid": "one"})
PLAN = AuthPlan(required=True, client_secret="word", keys=(KEY.as_dict(private=False),))  # type: ignore[arg-type]
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture
def served() -> Iterator[tuple[SandboxApp, httpx.Client]]:
    app = create_app(SandboxStore.from_resources([]), Faults(auth=PLAN))
    with LoopbackServer(app) as server, httpx.Client(base_url=server.base_url) as client:
        yield app, client


def asserted(client: httpx.Client, shifts: dict[str, int] | None = None, **claims: Any) -> tuple[int, dict[str, Any]]:
    """What the token endpoint answers to an assertion with these claims, or with times so many seconds from now."""
    now = int(time.time())
    claims |= {name: now + seconds for name, seconds in (shifts or {}).items()}
    usual = {
        "iss": "io-fhir-adapter", "sub": "io-fhir-adapter",
        "aud": str(client.base_url.join("/auth/token")),
        "exp": now + 300, "iat": now, "jti": secrets.token_hex(8),
    }  # fmt: skip
    text = jwt.encode({"alg": "ES384", "kid": "one"}, {**usual, **claims}, KEY, algorithms=["ES384"])
    form = {"grant_type": "client_credentials", "client_assertion_type": TYPE, "client_assertion": text}
    answer = client.post("/auth/token", data=form)
    return answer.status_code, answer.json()


def test_an_assertion_gets_a_token_that_opens_the_server(served: tuple[SandboxApp, httpx.Client]) -> None:
    _, client = served
    status, content = asserted(client)
    assert (status, content["token_type"], content["expires_in"]) == (200, "bearer", 300)
    assert client.get("/fhir/Procedure").status_code == 401
    assert client.get("/fhir/metadata").status_code == 200
    found = client.get("/fhir/Procedure", headers={"Authorization": f"Bearer {content['access_token']}"})
    assert found.status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "someone"},
        {"sub": "someone"},
        {"aud": "http://else.invalid/auth/token"},
        {"exp": "soon"},
        {"jti": 7},
    ],
)
def test_a_wrong_assertion_gets_none(served: tuple[SandboxApp, httpx.Client], claims: dict[str, Any]) -> None:
    assert asserted(served[1], **claims) == (401, {"error": "invalid_client"})


@pytest.mark.parametrize("shifts", [{"exp": -60}, {"exp": 3600}, {"iat": 600}])
def test_an_assertion_of_another_time_gets_none(
    served: tuple[SandboxApp, httpx.Client], shifts: dict[str, int]
) -> None:
    assert asserted(served[1], shifts) == (401, {"error": "invalid_client"})


def test_an_assertion_counts_once(served: tuple[SandboxApp, httpx.Client]) -> None:
    assert asserted(served[1], jti="same")[0] == 200
    assert asserted(served[1], jti="same")[0] == 401


@pytest.mark.parametrize(
    ("form", "headers", "status", "error"),
    [
        ({"client_id": "io-fhir-adapter", "client_secret": "word"}, {}, 200, None),
        ({}, {"Authorization": "Basic aW8tZmhpci1hZGFwdGVyOndvcmQ="}, 200, None),
        ({}, {"Authorization": "Basic %"}, 400, "invalid_request"),
        ({"client_id": "io-fhir-adapter", "client_secret": "wrong"}, {}, 401, "invalid_client"),
        ({"client_id": "io-fhir-adapter", "client_secret": "word", "scope": "system/*.rs"}, {}, 400, "invalid_scope"),
        ({"grant_type": "password"}, {}, 400, "unsupported_grant_type"),
    ],
)
def test_secrets(
    served: tuple[SandboxApp, httpx.Client], form: dict[str, str], headers: dict[str, str], status: int, error: str
) -> None:
    answer = served[1].post("/auth/token", data={"grant_type": "client_credentials", **form}, headers=headers)
    assert (answer.status_code, answer.json().get("error")) == (status, error)


def test_faults_count_anew_when_the_plan_changes(served: tuple[SandboxApp, httpx.Client]) -> None:
    app, client = served
    for _ in range(2):
        app.planner.switch(Faults(auth=AuthPlan(client_secret="word", token_status=503, token_status_times=1)))
        form = {"grant_type": "client_credentials", "client_id": "io-fhir-adapter", "client_secret": "word"}
        assert [client.post("/auth/token", data=form).status_code for _ in range(3)] == [503, 200, 200]


def test_the_discovery_names_the_endpoint_and_the_ways(served: tuple[SandboxApp, httpx.Client]) -> None:
    content = served[1].get("/fhir/.well-known/smart-configuration", headers={"Accept": "application/json"}).json()
    assert content["token_endpoint"].endswith("/auth/token")
    assert "private_key_jwt" in content["token_endpoint_auth_methods_supported"]


def test_the_plan_is_switched_as_json_and_its_secret_is_not_shown() -> None:
    faults = faults_from_json(b'{"auth": {"required": true, "client_secret": "word", "lifetime_s": 5}}')
    assert faults.auth == AuthPlan(required=True, client_secret="word", lifetime_s=5)
    assert faults_to_json(faults)["auth"]["client_secret"] == "***"
    with pytest.raises(ValueError, match="lifetime"):
        faults_from_json(b'{"auth": {"lifetime": 5}}')


def test_a_token_may_be_good_for_so_many_requests(served: tuple[SandboxApp, httpx.Client]) -> None:
    app, client = served
    app.planner.switch(replace(app.planner.faults, auth=replace(app.planner.faults.auth, uses=2)))
    for _ in range(2):
        headers = {"Authorization": f"Bearer {asserted(client)[1]['access_token']}"}
        assert [client.get("/fhir/Procedure", headers=headers).status_code for _ in range(3)] == [200, 200, 401]
