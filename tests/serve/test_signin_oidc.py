"""Signing in at an OpenID provider: a fake one over real HTTP, true and lying in every way that matters."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from io_fhir_adapter.loopback import LoopbackServer

Site = Any  # of conftest, which is no module to import from
Make = Callable[..., Site]
pytestmark = pytest.mark.xdist_group("signin_oidc")
SECRET = "a shared secret: of the client"
CLIENT = "io-fhir-adapter"
BACK = "http://localhost:8080"


class FakeProvider:
    """Says who signed in as a provider does; ``claims`` and the others can be bent."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.origin = ""
        self.now = 0
        self.reset()
        self.app = FastAPI()
        self.app.get("/realm/.well-known/openid-configuration")(self._described)
        self.app.get("/realm/keys")(self._keys)
        self.app.post("/realm/token")(self._token)

    def reset(self) -> None:
        self.description: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.left_out: set[str] = set()
        self.nonce = ""
        self.challenge = ""
        self.signed: Callable[[dict[str, Any]], str] = self.sign
        self.published: list[Any] = [self.key]
        self.forms: list[dict[str, str]] = []
        self.authorisations: list[str] = []
        self.answer: dict[str, Any] = {}

    @property
    def issuer(self) -> str:
        return f"{self.origin}/realm"

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)

    def _described(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorise?tenant=1",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            **self.description,
        }

    def _keys(self) -> Any:
        return KeySet(self.published).as_dict()

    async def _token(self, request: Request) -> JSONResponse:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.forms.append(form)
        self.authorisations.append(request.headers.get("authorization", ""))
        verified = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if form["code"] != "the-code" or verified.decode() != self.challenge:
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        claims = {
            "iss": self.issuer,
            "sub": "4711-abc",
            "aud": CLIENT,
            "iat": self.now,
            "exp": self.now + 300,
            "nonce": self.nonce,
            "name": "Dr. A. Weber",
            "realm_access": {"roles": ["io-review", "offline"]},
            **self.claims,
        }
        kept = {name: value for name, value in claims.items() if name not in self.left_out}
        return JSONResponse({"access_token": "t", "token_type": "Bearer", "id_token": self.signed(kept), **self.answer})


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProvider]:
    provider = FakeProvider()
    with LoopbackServer(provider.app) as server:
        provider.origin = server.base_url
        yield provider


@pytest.fixture
def provider(running: FakeProvider) -> FakeProvider:
    running.reset()
    return running


@pytest.fixture
def here(site: Make, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> Site:
    return made(site, provider, monkeypatch)


def made(site: Make, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Site:
    monkeypatch.setenv("IO_TEST_OIDC_SECRET", SECRET)
    oidc = {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret": {"env": "IO_TEST_OIDC_SECRET"},
        "roles_claim": "realm_access.roles",
        "roles": {"reviewer": ["io-review"], "administrator": ["io-admin", "it"]},
    }
    one = site(oidc={**oidc, **more}, public_url=BACK)
    provider.now = int(one.clock().timestamp())
    return one


def depart(browser: Any, provider: FakeProvider, path: str = "/cases") -> dict[str, str]:
    """Sets out to the provider; gives what stands in the address there."""
    answer = browser.get(f"/sign-in/oidc?next={path}")
    assert answer.status_code == 303
    address = urlsplit(answer.headers["location"])
    assert address._replace(query="").geturl() == f"{provider.issuer}/authorise"
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    provider.nonce, provider.challenge = asked["nonce"], asked["code_challenge"]
    return asked


def arrive(browser: Any, asked: dict[str, str], **more: str) -> Any:
    return browser.get("/sign-in/provider", params={"code": "the-code", "state": asked["state"], **more})


def test_who_the_provider_vouches_for_is_in_with_the_roles_of_the_claim(here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    assert 'href="/sign-in/oidc?next=/cases"' in browser.get("/sign-in?next=/cases").text
    asked = depart(browser, provider)
    assert asked["tenant"] == "1"
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT, "openid profile")
    assert (asked["redirect_uri"], asked["code_challenge_method"]) == (f"{BACK}/sign-in/provider", "S256")
    answer = arrive(browser, asked)
    assert (answer.status_code, answer.headers["location"]) == (303, "/cases")
    assert browser.get("/cases").text == "cases for oidc:4711-abc: reviewer"
    assert "Dr. A. Weber" in browser.get("/").text
    assert provider.forms[-1]["grant_type"] == "authorization_code"
    assert "client_secret" not in provider.forms[-1]
    sent = base64.b64decode(provider.authorisations[-1].removeprefix("Basic ")).decode()
    assert sent == f"{CLIENT}:a+shared+secret%3A+of+the+client"
    entry = here.audit()[-1]
    assert (entry.agent, entry.role, entry.detail, entry.outcome) == ("oidc:4711-abc", "reviewer", "sign-in", "0")
    assert browser.get("/password").status_code == 404


def test_a_provider_that_wants_the_secret_in_the_form_gets_it_there(here: Site, provider: FakeProvider) -> None:
    provider.description = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    browser = here.browser()
    assert arrive(browser, depart(browser, provider)).status_code == 303
    assert (provider.forms[-1]["client_id"], provider.forms[-1]["client_secret"]) == (CLIENT, SECRET)
    assert provider.authorisations[-1] == ""


def test_two_journeys_have_nothing_in_common(here: Site, provider: FakeProvider) -> None:
    one, other = (depart(here.browser(), provider) for _ in range(2))
    assert all(one[name] != other[name] for name in ("state", "nonce", "code_challenge"))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(claims: dict[str, Any]) -> str:
    return f"{encoded(json.dumps({'alg': 'none'}).encode())}.{encoded(json.dumps(claims).encode())}."


def with_secret(secret: bytes) -> Callable[[dict[str, Any]], str]:
    def sign(claims: dict[str, Any]) -> str:
        parts = ({"alg": "HS256", "kid": "one"}, claims)
        signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"

    return sign


LIES: dict[str, Callable[[FakeProvider], None]] = {
    "another nonce": lambda p: p.claims.update(nonce="another"),
    "no nonce": lambda p: p.left_out.add("nonce"),
    "another audience": lambda p: p.claims.update(aud="another-client"),
    "another audience with our name beside it": lambda p: p.claims.update(aud="another-client", azp=CLIENT),
    "no audience": lambda p: p.left_out.add("aud"),
    "several audiences without azp": lambda p: p.claims.update(aud=[CLIENT, "another"]),
    "another authorised party": lambda p: p.claims.update(azp="another"),
    "another issuer": lambda p: p.claims.update(iss="https://evil.example"),
    "expired": lambda p: p.claims.update(exp=p.now - 61),
    "no end": lambda p: p.left_out.add("exp"),
    "from the future": lambda p: p.claims.update(iat=p.now + 61, nbf=p.now + 61),
    "no subject": lambda p: p.left_out.add("sub"),
    "an empty subject": lambda p: p.claims.update(sub=""),
    "a subject that is no text": lambda p: p.claims.update(sub=7),
    "another access token": lambda p: p.claims.update(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "not signed": lambda p: setattr(p, "signed", unsigned),
    "signed with the public key as a secret": lambda p: setattr(p, "signed", with_secret(p.key.as_pem(private=False))),
    "signed with the client's secret": lambda p: setattr(p, "signed", with_secret(SECRET.encode())),
    "signed by another": lambda p: setattr(
        p, "signed", lambda c: jwt.encode({"alg": "RS256", "kid": "one"}, c, RSAKey.generate_key(2048))
    ),
    "an unknown key": lambda p: setattr(
        p, "signed", lambda c: jwt.encode({"alg": "ES256", "kid": "x"}, c, ECKey.generate_key("P-256"))
    ),
    "no token": lambda p: p.answer.update(id_token=None),
    "no token at all": lambda p: p.answer.update(id_token="x.y.z"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_does_not_fit_lets_nobody_in(lie: str, here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    asked = depart(browser, provider)
    LIES[lie](provider)
    answer = arrive(browser, asked)
    assert answer.status_code == 401
    assert "did not end as it should" in answer.text
    assert browser.get("/cases").status_code == 303
    entry = here.audit()[-1]
    assert (entry.agent, entry.outcome, entry.detail) == ("unknown", "4", "sign-in failed: token")


@pytest.mark.parametrize(("seconds", "in_"), [(50, True), (-50, True), (70, False), (-400, False)])
def test_clocks_may_differ_by_a_minute(seconds: int, in_: bool, here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    asked = depart(browser, provider)
    now = provider.now + seconds
    provider.claims = {"iat": now, "nbf": now, "exp": now + 300}
    assert (arrive(browser, asked).status_code == 303) is in_


def test_what_comes_back_must_belong_to_what_set_out(here: Site, provider: FakeProvider) -> None:
    browser, stranger = here.browser(), here.browser()
    asked = depart(browser, provider)
    refusals = []
    refusals.append(stranger.get("/sign-in/provider", params={"code": "the-code", "state": asked["state"]}))
    depart(stranger, provider)
    refusals.append(arrive(stranger, asked))  # another browser's state
    for state in ("", "ü", asked["state"][:-1]):
        asked = depart(browser, provider)
        refusals.append(browser.get("/sign-in/provider", params={"code": "the-code", "state": state}))
    asked = depart(browser, provider)
    here.clock.turn(minutes=11)
    refusals.append(arrive(browser, asked))
    asked = depart(browser, provider)
    cookie = browser.cookies["io-provider"]
    browser.cookies.delete("io-provider")
    browser.cookies.set("io-provider", "A" + cookie[1:])
    refusals.append(arrive(browser, asked))
    assert [answer.status_code for answer in refusals] == [401] * 7
    assert {entry.detail for entry in here.audit()} == {"sign-in failed: state"}
    assert provider.forms == []  # no code was redeemed


def test_a_journey_ends_once(here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    asked = depart(browser, provider)
    assert arrive(browser, asked).status_code == 303
    assert arrive(browser, asked).status_code == 401


def test_an_old_code_or_no_code_lets_nobody_in(here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    assert arrive(browser, depart(browser, provider), code="old").status_code == 401
    assert arrive(browser, depart(browser, provider), code="").status_code == 401
    assert {entry.detail for entry in here.audit()} == {"sign-in failed: code"}


def test_a_provider_that_says_no_is_quoted_without_its_words(here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    answer = arrive(browser, depart(browser, provider), error="access_denied", error_description="<b>canary</b>")
    assert answer.status_code == 401
    assert "said no" in answer.text
    assert "canary" not in answer.text + str(here.audit())


def test_the_answer_of_another_provider_is_refused(here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    assert arrive(browser, depart(browser, provider), iss="https://evil.example").status_code == 401
    assert arrive(browser, depart(browser, provider), iss=provider.issuer).status_code == 303


def test_a_provider_that_promises_its_name_must_give_it(
    site: Make, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.description = {"authorization_response_iss_parameter_supported": True}
    here = made(site, provider, monkeypatch)
    browser = here.browser()
    assert arrive(browser, depart(browser, provider)).status_code == 401
    assert arrive(browser, depart(browser, provider), iss=provider.issuer).status_code == 303


@pytest.mark.parametrize(
    ("roles", "given"),
    [
        ({"realm_access": {"roles": ["io-review", "it"]}}, "reviewer,administrator"),
        ({"realm_access": {"roles": "io-review"}}, "reviewer"),
        ({"realm_access.roles": ["io-admin"]}, "administrator"),
    ],
)
def test_roles_come_from_the_claim(roles: dict[str, Any], given: str, here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    asked = depart(browser, provider)
    provider.claims = roles
    arrive(browser, asked)
    assert here.audit()[-1].role == given


@pytest.mark.parametrize("roles", [[], ["offline"], None, 7, [["io-review"]], {"io-review": True}])
def test_without_a_role_a_page_says_so_and_nobody_is_in(roles: Any, here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    asked = depart(browser, provider)
    provider.claims = {"realm_access": {"roles": roles}}
    answer = arrive(browser, asked)
    assert answer.status_code == 403
    assert "You have no role here yet" in answer.text
    assert "io-session" not in browser.cookies
    assert here.audit()[-1].detail == "sign-in refused: no roles"


def test_a_new_key_of_the_provider_is_learnt(here: Site, provider: FakeProvider) -> None:
    browser = here.browser()
    assert arrive(browser, depart(browser, provider)).status_code == 303
    fresh = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})
    provider.published = [provider.key, fresh]
    provider.signed = lambda claims: jwt.encode({"alg": "ES256", "kid": "two"}, claims, fresh)
    assert arrive(browser, depart(browser, provider)).status_code == 401  # asked for a moment ago
    here.clock.turn(minutes=2)
    provider.now = int(here.clock().timestamp())
    assert arrive(browser, depart(browser, provider)).status_code == 303


@pytest.mark.parametrize(
    "description",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"authorization_endpoint": "/relative"},
    ],
)
def test_a_description_that_cannot_be_used_is_a_page_with_a_code(
    description: dict[str, Any], here: Site, provider: FakeProvider
) -> None:
    provider.description = description
    answer = here.browser().get("/sign-in/oidc")
    assert answer.status_code == 500
    assert "IOA-NET-040" in answer.text


def test_no_code_and_no_secret_goes_to_a_place_that_is_not_trusted(here: Site, provider: FakeProvider) -> None:
    provider.description = {"token_endpoint": "http://127.0.0.2:9/token"}
    browser = here.browser()
    answer = arrive(browser, depart(browser, provider))
    assert answer.status_code == 500
    assert provider.forms == []


def test_local_accounts_are_not_served_where_they_are_not_configured(here: Site) -> None:
    browser = here.browser()
    assert 'name="password"' not in browser.get("/sign-in").text
    token = {"X-CSRF-Token": ""}
    page = browser.get("/sign-in")
    assert page.status_code == 200
    assert browser.post("/sign-in", {"name": "a"}, headers=token).status_code == 403
    assert browser.get("/accounts").status_code == 404
