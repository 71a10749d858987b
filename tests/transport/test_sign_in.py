"""Signing in with the sandbox's token endpoint, over real sockets: what is proved, renewed, refused and kept quiet."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, KeySet, RSAKey

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, ConfigError, TransportError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.auth_plan import AuthPlan
from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.sandbox.server import SandboxApp, create_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.transport.auth import Grant, TokenSignIn
from io_fhir_adapter.transport.client import FhirClient

SECRET = "s3cret:with/odd+signs&ü"
RSA = RSAKey.generate_key(2048, parameters={"kid": "rsa-1"})
EC = ECKey.generate_key("P-384", parameters={"kid": "ec-1"})
PUBLIC = tuple(key.as_dict(private=False) for key in (RSA, EC))


def pem(key: RSAKey | ECKey, password: str | None = None) -> str:
    return key.as_pem(private=True, password=password).decode()


class Site:
    """The sandbox behind a token endpoint, and a client's configuration for it."""

    def __init__(self, app: SandboxApp, base_url: str, folder: Path) -> None:
        self.app = app
        self.base_url = base_url
        self.folder = folder
        self.waits: list[float] = []
        self.allow()

    def allow(self, **plan: Any) -> None:
        """Another plan; both ways to sign in are open unless it says otherwise."""
        keys = {"required": True, "client_secret": SECRET, "keys": PUBLIC, **plan}
        self.app.planner.switch(Faults(auth=AuthPlan(**keys)))

    def secret(self, **keys: Any) -> dict[str, Any]:
        path = self.folder / "client-secret"
        path.write_text(SECRET, encoding="utf-8")
        token_url = f"{self.base_url}/auth/token"
        return {
            "kind": "client-credentials", "client_id": "io-fhir-adapter", "client_secret": {"file": str(path)},
            "token_url": token_url, **keys,
        }  # fmt: skip

    def key(self, text: str, **keys: Any) -> dict[str, Any]:
        path = self.folder / "key"
        path.write_text(text, encoding="utf-8")
        return {"kind": "smart-backend", "client_id": "io-fhir-adapter", "key": {"file": str(path)}, **keys}

    def client(self, auth: dict[str, Any], clock: Callable[[], float] = time.time, **config: Any) -> FhirClient:
        async def wait(seconds: float) -> None:
            self.waits.append(seconds)

        source = FhirSourceConfig.model_validate(
            {"name": "s", "url": f"{self.base_url}/fhir", "auth": auth, "retries": 2, "concurrency": 8, **config}
        )
        return FhirClient(source, "sources.s", wait=wait, clock=clock)

    def read(self, auth: dict[str, Any], times: int = 1, **more: Any) -> FhirClient:
        """So many searches at once, each of which has to be answered."""

        async def go() -> FhirClient:
            async with self.client(auth, **more) as client:
                answers = await asyncio.gather(*(client.get("Procedure") for _ in range(times)))
                assert {answer.status for answer in answers} == {200}
                return client

        return asyncio.run(go())

    def failure(self, auth: dict[str, Any], **more: Any) -> TransportError:
        with pytest.raises(TransportError) as caught:
            self.read(auth, **more)
        return caught.value


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    app = create_app(SandboxStore.from_resources([]))
    with LoopbackServer(app) as server:
        yield Site(app, server.base_url, tmp_path)


# --- proving who one is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_auth", ["header", "form"])
def test_a_client_secret_in_either_place(site: Site, client_auth: str) -> None:
    client = site.read(site.secret(client_auth=client_auth, scopes=["system/Procedure.rs"]), times=5)
    assert site.app.desk.issued == 1
    assert client.granted_scopes == ("system/Procedure.rs",)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        pytest.param(pem(RSA), {"key_id": "rsa-1"}, id="RSA"),
        pytest.param(pem(RSA), {}, id="RSA without kid"),
        pytest.param(pem(EC), {"key_id": "ec-1", "algorithm": "ES384"}, id="P-384"),
        pytest.param(json.dumps(EC.as_dict(private=True)), {}, id="JWK"),
        pytest.param(json.dumps(KeySet([RSA, EC]).as_dict(private=True)), {"key_id": "ec-1"}, id="JWKS by kid"),
        pytest.param(json.dumps(KeySet([RSA, EC]).as_dict(private=True)), {"algorithm": "RS384"}, id="JWKS by alg"),
    ],
)
def test_a_private_key_in_every_form(site: Site, text: str, more: dict[str, Any]) -> None:
    if text == pem(RSA):
        site.allow(keys=PUBLIC[:1])  # without a kid the server takes the only key it has
    client = site.read(site.key(text, **more), times=5)
    assert site.app.desk.issued == 1
    assert "system/Procedure.rs" in client.granted_scopes


def test_an_encrypted_key(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_WORD", "open sesame")
    site.read(site.key(pem(EC, "open sesame"), key_id="ec-1", key_password={"env": "KEY_WORD"}))
    monkeypatch.setenv("KEY_WORD", "wrong")
    with pytest.raises(ConfigError, match="its password is wrong"):
        site.client(site.key(pem(EC, "open sesame"), key_password={"env": "KEY_WORD"}))


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("nonsense", {}, "no PEM, JWK or JWKS"),
        ("{", {}, "no PEM, JWK or JWKS"),
        ('{"kty": "RSA"}', {}, "no PEM, JWK or JWKS"),
        (RSA.as_pem(private=False).decode(), {}, "no private RSA or P-384 key"),
        (pem(ECKey.generate_key("P-256")), {}, "no private RSA or P-384 key"),
        (pem(RSA), {"algorithm": "ES384"}, "no private RSA or P-384 key"),
        (json.dumps(KeySet([RSA, EC]).as_dict(private=True)), {}, "several fit"),
        (json.dumps(KeySet([RSA, EC]).as_dict(private=True)), {"key_id": "other"}, "no private RSA or P-384 key"),
    ],
    ids=["text", "brace", "no key", "public", "P-256", "other algorithm", "two that fit", "none by that id"],
)
def test_a_key_that_does_not_fit_is_a_configuration_error(
    site: Site, text: str, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        site.client(site.key(text, **more))
    assert caught.value.sentence.startswith("sources.s.auth.key: ")


def test_the_audience_is_the_advertised_one_to_the_letter(site: Site) -> None:
    loud = f"http://LOCALHOST:{site.base_url.rpartition(':')[2]}/auth/token?tenant=A%2fb"
    auth = site.key(pem(EC), key_id="ec-1")
    site.allow(advertised=loud)
    site.read(auth)
    site.allow(advertised=loud, audience=loud.lower())
    refused = site.failure(auth)
    assert (refused.code, refused.transient) == ("IOA-NET-013", False)
    assert "(HTTP 401, invalid_client)" in refused.sentence
    assert "auth.audience" in refused.sentence
    site.read({**auth, "audience": loud.lower()})


def test_a_configured_token_endpoint_needs_no_discovery(site: Site) -> None:
    token_url = f"{site.base_url}/auth/token"
    site.allow(advertised="https://nowhere.invalid/token", audience=token_url)
    site.read(site.key(pem(EC), key_id="ec-1", token_url=token_url))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"advertised": "http://auth.invalid/token"}, "is not encrypted"),
        ({"advertised": "no address"}, "names no token endpoint"),
        ({"scopes": ("system/Patient.rs",)}, "invalid_scope"),
        ({"client_id": "someone-else"}, "invalid_client"),
        ({"keys": (ECKey.generate_key("P-384", parameters={"kid": "ec-1"}).as_dict(private=False),)}, "invalid_client"),
    ],
)
def test_what_the_server_refuses_or_should_not_be_believed(site: Site, plan: dict[str, Any], words: str) -> None:
    site.allow(**plan)
    error = site.failure(site.key(pem(EC), key_id="ec-1"))
    assert words in error.sentence
    assert not error.transient
    assert site.waits == []


def test_a_server_without_encryption_is_not_believed(site: Site) -> None:
    """Its answer could be anyone's; no request goes to the place that it names."""
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"token_endpoint": "https://evil.example/token"})

    source = FhirSourceConfig.model_validate(
        {"name": "s", "url": "http://fhir.example/r4", "auth": site.key(pem(EC), key_id="ec-1")}
    )

    async def go() -> None:
        async with FhirClient(source, "sources.s", transport=httpx.MockTransport(handle)) as client:
            await client.get("Procedure")

    with pytest.raises(TransportError, match="not encrypted"):
        asyncio.run(go())
    assert [str(request.url) for request in sent] == ["http://fhir.example/r4/.well-known/smart-configuration"]


@pytest.mark.parametrize("inside", ["169.254.169.254", "10.1.2.3", "127.0.0.1", "::1"])
def test_an_advertised_token_endpoint_inside_a_network_gets_nothing(site: Site, inside: str) -> None:
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"token_endpoint": "https://auth.example/token"})

    async def lookup(host: str, port: int) -> list[str]:
        assert (host, port) == ("auth.example", 443)
        return ["93.184.215.14", inside]

    def config(**more: Any) -> FhirSourceConfig:
        auth = site.key(pem(EC), key_id="ec-1")
        return FhirSourceConfig.model_validate({"name": "s", "url": "https://fhir.example/r4", "auth": auth, **more})

    async def go(source: FhirSourceConfig) -> None:
        mock = httpx.MockTransport(handle)
        async with FhirClient(source, "sources.s", transport=mock, lookup=lookup) as client:
            await client.get("Procedure")

    with pytest.raises(TransportError, match=r"inside a network \(https://auth\.example:443\)"):
        asyncio.run(go(config()))
    assert len(sent) == 1
    with pytest.raises(TransportError, match="no bearer token"):
        asyncio.run(go(config(trusted_origins=["https://auth.example"])))
    assert sent[-1].url.host == "auth.example"


# --- the clock ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [-7200, -240, -20, 20, 240, 7200])
def test_a_clock_that_is_off_follows_the_servers(site: Site, off_s: float) -> None:
    client = site.read(site.key(pem(EC), key_id="ec-1"), clock=lambda: time.time() + off_s)
    assert client.clock_skew_s == pytest.approx(-off_s, abs=3)
    assert site.app.desk.issued == 1
    assert site.app.desk.asked <= 2


def test_a_server_that_contradicts_its_own_clock_is_asked_once(site: Site) -> None:
    site.allow(clock_ahead_s=7200)
    assert "invalid_client" in site.failure(site.key(pem(EC), key_id="ec-1")).sentence
    assert site.app.desk.asked == 1


# --- renewing -------------------------------------------------------------------------------------------------------


def test_a_token_that_became_void_is_replaced_once_for_all(site: Site) -> None:
    async def go() -> None:
        async with site.client(site.secret()) as client:
            await client.get("Procedure")
            for rounds in (1, 2, 3):
                site.app.desk.revoke()
                await asyncio.gather(*(client.get("Procedure") for _ in range(8)))
                assert site.app.desk.issued == 1 + rounds

    asyncio.run(go())


def test_one_401_too_many_does_no_harm(site: Site) -> None:
    site.allow(refused_times=1)
    site.read(site.secret())
    assert site.app.desk.issued == 2


def test_a_server_that_refuses_every_token_is_not_stormed(site: Site) -> None:
    site.allow(refused_times=None)

    async def go() -> None:
        async with site.client(site.secret()) as client:
            asked = (client.get("Procedure") for _ in range(40))
            errors = await asyncio.gather(*asked, return_exceptions=True)
            assert {error.code for error in errors if isinstance(error, AdapterError)} == {"IOA-NET-003"}
            assert len(errors) == 40

    asyncio.run(go())
    assert site.app.desk.asked == 2
    assert site.waits == []


def test_a_token_that_lasts_shorter_than_it_says(site: Site) -> None:
    site.allow(lifetime_s=-1)
    assert site.failure(site.secret()).code == "IOA-NET-003"
    assert site.app.desk.asked == 2


@pytest.mark.parametrize(("status", "more"), [(503, {}), (500, {}), (429, {})])
def test_a_token_endpoint_that_fails_for_a_while(site: Site, status: int, more: dict[str, Any]) -> None:
    site.allow(token_status=status, token_status_times=2)
    site.read(site.secret(), times=8)
    assert site.app.desk.asked == 3
    assert len(site.waits) == 2


def test_a_token_endpoint_that_is_down(site: Site) -> None:
    site.allow(token_status=503)
    error = site.failure(site.secret())
    assert (error.code, error.transient, error.status) == ("IOA-NET-012", False, 503)
    assert error.sentence.startswith(f"{site.base_url}/auth/token: there is no access token to be had")
    assert site.app.desk.asked == 3


def test_a_token_endpoint_that_is_not_there(site: Site) -> None:
    with LoopbackServer(site.app) as gone:
        address = gone.base_url
    error = site.failure(site.secret(token_url=f"{address}/auth/token"))
    assert error.code == "IOA-NET-012"
    assert "the connection failed" in error.sentence


@pytest.mark.parametrize(
    "content",
    [
        b"<html>sign in</html>",
        b"[]",
        b"{}",
        b'{"access_token": 7}',
        b'{"access_token": "a b"}',
        b'{"access_token": "a\\r\\nX-Evil: 1"}',
        b'{"access_token": "a", "token_type": "DPoP"}',
    ],
)
def test_an_answer_without_a_usable_token(site: Site, content: bytes) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=content)

    source = FhirSourceConfig.model_validate({"name": "s", "url": f"{site.base_url}/fhir", "auth": site.secret()})

    async def go() -> None:
        async with FhirClient(source, "sources.s", transport=httpx.MockTransport(handle)) as client:
            await client.get("Procedure")

    with pytest.raises(TransportError, match="holds no bearer token"):
        asyncio.run(go())


def test_tokens_are_renewed_before_they_end() -> None:
    """Three minutes before the end of an hour there is no need; a minute before, there is."""
    now = 0.0
    fetched: list[float] = []

    async def fetch() -> Grant:
        fetched.append(now)
        return Grant(f"Bearer {len(fetched)}", 3600)

    async def go() -> None:
        nonlocal now
        sign_in = TokenSignIn(fetch, lambda: now)
        assert sign_in.ready is None
        assert await sign_in.header() == "Bearer 1"
        now = 3600 - 180
        assert sign_in.ready == "Bearer 1"
        now = 3600 - 59
        assert sign_in.ready is None
        assert await asyncio.gather(*(sign_in.header() for _ in range(5))) == ["Bearer 2"] * 5

    asyncio.run(go())
    assert fetched == [0, 3541]


def test_who_gives_up_waiting_does_not_take_the_token_from_the_others() -> None:
    async def go() -> None:
        gate = asyncio.Event()
        fetched = 0

        async def fetch() -> Grant:
            nonlocal fetched
            fetched += 1
            await gate.wait()
            return Grant("Bearer x", 60)

        sign_in = TokenSignIn(fetch)
        impatient, patient = asyncio.create_task(sign_in.header()), asyncio.create_task(sign_in.header())
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        gate.set()
        assert await patient == "Bearer x"
        assert (impatient.cancelled(), fetched) == (True, 1)

    asyncio.run(go())


def test_a_token_without_a_life_lasts_long_enough_to_be_used(site: Site) -> None:
    site.allow(told_lifetime_s=0)
    site.read(site.secret(), times=8)
    assert site.app.desk.issued == 1


def test_a_lasting_token_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        path.write_text("new")
        return httpx.Response(401 if seen[-1] == "Bearer old" else 200, json={})

    auth = {"kind": "bearer", "token": {"file": str(path)}}
    source = FhirSourceConfig.model_validate({"name": "s", "url": "https://fhir.example", "auth": auth})

    async def go() -> None:
        async with FhirClient(source, "sources.s", transport=httpx.MockTransport(handle)) as client:
            await client.get("Procedure")

    asyncio.run(go())
    assert seen == ["Bearer old", "Bearer new"]


def test_other_credentials_than_the_sources(site: Site) -> None:
    """An export may need another sign-in than reading."""
    source = FhirSourceConfig.model_validate({"name": "s", "url": f"{site.base_url}/fhir", "auth": site.secret()})
    other = FhirSourceConfig.model_validate(
        {"name": "s", "url": "http://x.example", "auth": site.key(pem(EC), key_id="ec-1", scopes=["system/Patient.rs"])}
    )

    async def go() -> tuple[str, ...]:
        async with FhirClient(source, "sources.s.bulk", auth=other.auth) as client:
            await client.get("Patient")
            return client.granted_scopes

    assert asyncio.run(go()) == ("system/Patient.rs",)


def test_nothing_secret_is_logged_or_said(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    site.read(site.secret())
    site.read(site.key(pem(EC), key_id="ec-1"))
    site.allow(refused_times=None)
    said = [site.failure(site.secret()).sentence]
    site.allow(client_secret="another")
    said.append(site.failure(site.secret()).sentence)
    text = caplog.text + " ".join(said) + repr(Grant("Bearer x-y-z", 1))
    tokens = site.app.desk.tokens
    assert len(tokens) == 4
    for hidden in (*tokens, SECRET, "client_assertion", "x-y-z"):
        assert hidden not in text
