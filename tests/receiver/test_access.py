"""Who may talk to the receiver: the registry, SMART Backend Services, scopes, the body's people."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from argon2 import PasswordHasher
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from io_fhir_adapter.client_assertion import ASSERTION_TYPE
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.grants import TABLES, grant, use_once
from io_fhir_adapter.receiver.grants import granted as looked_up
from io_fhir_adapter.receiver.rates import Rate, RateLimiter, neighbourhood
from io_fhir_adapter.receiver.registry import Facility, Operator, Registry, load_registry
from io_fhir_adapter.receiver.scopes import allowed, granted
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import Limits

Make = Callable[..., dict[str, Any]]
Key = ECKey | RSAKey | OKPKey | OctKey

KEYS: dict[str, Key] = {
    "ES384": ECKey.generate_key("P-384", parameters={"kid": "es"}),
    "RS384": RSAKey.generate_key(2048, parameters={"kid": "rs"}),
    "EdDSA": OKPKey.generate_key("Ed25519", parameters={"kid": "ed"}),
}
OTHERS = ECKey.generate_key("P-384", parameters={"kid": "others"})
STRANGER = ECKey.generate_key("P-384", parameters={"kid": "es"})
P256 = ECKey.generate_key("P-256", parameters={"kid": "p256"})
PASSWORD = "a long synthetic password"
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


def public(*keys: Key) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


REGISTRY = Registry(
    (
        Facility("F-001", jwks=public(*KEYS.values(), P256), client_id="client-1"),
        Facility("F-002", jwks=public(OTHERS), client_id="client-2"),
        Facility("F-003", jwks=public(STRANGER), client_id="client-3", active=False),
        Facility("F-004", jwks=public(ECKey.generate_key("P-384", parameters={"kid": "four"})), client_id="client-4"),
    ),
    (Operator("vogt", HASH),),
    {hashlib.sha256(b"a-lasting-token-of-three").hexdigest(): "F-003"},
)


class Moment:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def moment() -> Moment:
    return Moment()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverStore]:
    store = ReceiverStore(f"sqlite:///{tmp_path_factory.mktemp('receiver') / 'r.sqlite'}")
    yield store
    store.close()


@pytest.fixture(scope="module")
def client(kept: ReceiverStore, moment: Moment) -> Iterator[httpx.Client]:
    """A receiver of the registry, which never tires of failures."""
    app = create_app(
        kept, registry=REGISTRY, operator_token="body", clock=moment, limits=Limits(failure_rate=Rate(1, 0))
    )
    with LoopbackServer(app) as server, httpx.Client(base_url=server.base_url, trust_env=False) as opened:
        yield opened


names = count()


def claims_of(client: httpx.Client, moment: Moment, **changes: Any) -> dict[str, Any]:
    usual = {
        "iss": "client-1",
        "sub": "client-1",
        "aud": str(client.base_url.join("/auth/token")),
        "iat": int(moment()),
        "exp": int(moment()) + 240,
        "jti": f"jti-{next(names)}",
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def signed(claims: Any, key: Key = KEYS["ES384"], **header: Any) -> str:
    """A JWT with whatever header an attacker likes."""
    full = {name: value for name, value in {"alg": "ES384", "kid": key.kid, **header}.items() if value is not None}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (full, claims)]
    signature = JWSRegistry.algorithms[full["alg"]].sign(b".".join(parts), key)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def ask(client: httpx.Client, assertion: str, **form: Any) -> httpx.Response:
    fields = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
        **form,
    }
    return client.post("/auth/token", data={name: value for name, value in fields.items() if value is not None})


def bearer(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.mark.parametrize(("name", "algorithm"), [*((name, name) for name in KEYS), ("EdDSA", "Ed25519")])
def test_a_registered_key_gets_a_token_that_opens_for_a_while(
    client: httpx.Client, moment: Moment, name: str, algorithm: str
) -> None:
    discovered = client.get("/fhir/.well-known/smart-configuration").json()
    assert discovered["token_endpoint"] == str(client.base_url.join("/auth/token"))
    answer = ask(client, signed(claims_of(client, moment), KEYS[name], alg=algorithm), scope="system/*.rs")
    assert answer.headers["cache-control"] == "no-store"
    assert {**answer.json(), "access_token": ""} == {
        "access_token": "", "token_type": "bearer", "expires_in": 300, "scope": "system/*.rs",
    }  # fmt: skip
    token = bearer(answer)
    assert client.get("/fhir/Patient/1", headers=token).status_code == 404
    moment.now += 299
    assert client.get("/fhir/Patient/1", headers=token).status_code == 404
    moment.now += 2
    late = client.get("/fhir/Patient/1", headers=token)
    assert (late.status_code, "invalid_token" in late.headers["www-authenticate"]) == (401, True)


def test_what_was_granted_and_used_outlasts_a_restart(
    client: httpx.Client, kept: ReceiverStore, moment: Moment
) -> None:
    assertion = signed(claims_of(client, moment))
    token = bearer(ask(client, assertion))
    address = str(client.base_url).rstrip("/")
    with LoopbackServer(create_app(kept, registry=REGISTRY, clock=moment, base_url=address)) as server:
        again = partial(httpx.Client, base_url=server.base_url, trust_env=False)
        with again() as other:
            assert ask(other, assertion).json() == {"error": "invalid_client"}
            assert other.get("/fhir/Patient/1", headers=token).status_code == 404
    with kept.reading() as connection:
        row = connection.execute(TABLES.tables["access_tokens"].select()).all()[-1]
    assert token["Authorization"].removeprefix("Bearer ") not in str(row)


def _forged(change: dict[str, Any], key: Key = KEYS["ES384"], **header: Any) -> Callable[..., str]:
    return lambda client, moment: signed(claims_of(client, moment, **change), key, **header)


def _unsigned(client: httpx.Client, moment: Moment) -> str:
    parts = ({"alg": "none", "kid": "es"}, claims_of(client, moment))
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def _shared(client: httpx.Client, moment: Moment) -> str:
    """HS256, with the public key, which everybody has, as the shared secret."""
    secret = OctKey.import_key(json.dumps(KEYS["ES384"].as_dict(private=False)), {"kid": "es"})
    return signed(claims_of(client, moment), secret, alg="HS256")


def _at(**seconds: int) -> Callable[..., str]:
    return lambda client, moment: signed(
        claims_of(client, moment, **{name: int(moment()) + after for name, after in seconds.items()})
    )


def _audience(change: Callable[[str], Any]) -> Callable[..., str]:
    return lambda client, moment: signed(
        claims_of(client, moment, aud=change(str(client.base_url.join("/auth/token"))))
    )


FORGED: dict[str, Callable[..., str]] = {
    "no algorithm": _unsigned,
    "the public key as a secret": _shared,
    "an algorithm that is not taken": _forged({}, P256, alg="ES256"),
    "another key under a known kid": _forged({}, STRANGER),
    "another facility's kid": _forged({}, OTHERS),
    "an unknown kid": _forged({}, kid="nobody"),
    "no kid": _forged({}, kid=None),
    "no kid, of a facility with one key": _forged({"iss": "client-2", "sub": "client-2"}, OTHERS, kid=None),
    "a kid that is no text": _forged({}, kid=7),
    "a key that the header brings": _forged({}, STRANGER, kid="new", jwk=STRANGER.as_dict(private=False)),
    "a key that the header points to": _forged({}, STRANGER, kid="new", jku="http://127.0.0.1:9/jwks"),
    "a certificate that the header points to": _forged({}, STRANGER, kid="new", x5u="http://127.0.0.1:9/x"),
    "a critical extension": _forged({}, crit=["exp"], exp=1),
    "unencoded content": _forged({}, b64=False),
    "a key for another algorithm": _forged({}, KEYS["RS384"], alg="RS384", kid="es"),
    "another audience": _audience(lambda _: "https://else.example/auth/token"),
    "an audience with a slash too many": _audience(lambda address: f"{address}/"),
    "an audience by another name": _audience(lambda address: address.replace("127.0.0.1", "localhost")),
    "several audiences": _audience(lambda address: [address, "https://else.example"]),
    "another subject": _forged({"sub": "client-2"}),
    "another issuer": _forged({"iss": "client-2"}),
    "somebody unknown": _forged({"iss": "nobody", "sub": "nobody"}),
    "a facility that is not active": _forged({"iss": "client-3", "sub": "client-3"}, STRANGER),
    "expired": _at(iat=-400, exp=-100),
    "just expired": _at(exp=-5),
    "for longer than five minutes": _at(exp=301),
    "issued in the future": _at(iat=60),
    "not yet to be used": _at(nbf=60),
    "no end": _forged({"exp": None}),
    "an end that is a text": _forged({"exp": "9999999999"}),
    "an end that is a truth": _forged({"exp": True}),
    "an end beyond all numbers": _forged({"exp": 10**400}),
    "an end that is not a number": _forged({"exp": float("nan")}),
    "no name": _forged({"jti": None}),
    "an empty name": _forged({"jti": ""}),
    "a name that is a number": _forged({"jti": 7}),
    "a name without end": _forged({"jti": "j" * 300}),
    "too long": _forged({"more": "m" * 9000}),
    "claims that are a list": lambda *_: signed([]),
    "no JWT": lambda *_: "a.b.c",
    "two parts": lambda *_: "e30.e30",
    "nothing": lambda *_: "",
    "letters of no alphabet": lambda *_: "ä.ö.ü",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_assertion_gets_nothing(client: httpx.Client, kept: ReceiverStore, moment: Moment, name: str) -> None:
    tokens = TABLES.tables["access_tokens"]
    with kept.reading() as connection:
        before = connection.execute(tokens.select()).all()
    answer = ask(client, FORGED[name](client, moment))
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})
    with kept.reading() as connection:
        assert connection.execute(tokens.select()).all() == before


def test_what_the_header_points_to_is_not_looked_at(client: httpx.Client, moment: Moment) -> None:
    assertion = signed(claims_of(client, moment), jku="http://127.0.0.1:9/jwks", x5u="http://127.0.0.1:9/x")
    assert ask(client, assertion).status_code == 200


def test_an_assertion_counts_once_for_each_client(client: httpx.Client, moment: Moment) -> None:
    assertion = signed(claims_of(client, moment, jti="the same"))
    assert [ask(client, assertion).status_code for _ in range(2)] == [200, 401]
    assert ask(client, signed(claims_of(client, moment, jti="the same"), KEYS["RS384"], alg="RS384")).status_code == 401
    mine = claims_of(client, moment, jti="the same", iss="client-2", sub="client-2")
    assert ask(client, signed(mine, OTHERS)).status_code == 200


def test_of_many_at_once_one_is_the_first(tmp_path: Path) -> None:
    stores = [ReceiverStore(f"sqlite:///{tmp_path / 'r.sqlite'}") for _ in range(2)]
    with stores[0].writing() as connection:
        TABLES.create_all(connection)

    def use(number: int) -> bool:
        with stores[number % 2].writing() as connection:
            return use_once(connection, "client-1", "the same", 1e9, 0)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(16))) == 1
    for store in stores:
        store.close()


def test_grants_in_either_database(store: ReceiverStore) -> None:
    with store.writing() as connection:
        TABLES.create_all(connection)
        grant(connection, "a-token", "F-001", ("system/*.rs",), ends=100)
        assert use_once(connection, "client-1", "a", ends=50, now=0)
        assert not use_once(connection, "client-1", "a", ends=50, now=49)
        assert use_once(connection, "client-2", "a", ends=50, now=49)
        assert use_once(connection, "client-1", "a", ends=90, now=50)  # the first one has long ended
    with store.reading() as connection:
        given = looked_up(connection, "a-token", now=99)
        assert (given.facility, given.scopes) == ("F-001", ("system/*.rs",)) if given else False
        assert looked_up(connection, "a-token", now=100) is None
        assert looked_up(connection, "another", now=0) is None


def test_the_audience_is_not_what_the_host_header_says(client: httpx.Client, moment: Moment) -> None:
    claims = claims_of(client, moment, aud="http://evil.example/auth/token")
    form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    for name in ("Host", "X-Forwarded-Host", "Forwarded"):
        answer = client.post(
            "/auth/token", data={**form, "client_assertion": signed(claims)}, headers={name: "evil.example"}
        )
        assert answer.status_code == 401
        configuration = client.get("/.well-known/smart-configuration", headers={name: "evil.example"})
        assert "evil" not in configuration.text


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": None}, 400, "unsupported_grant_type"),
        ({"client_assertion_type": "jwt"}, 400, "invalid_request"),
        ({"client_id": "client-2"}, 401, "invalid_client"),
        ({"client_id": "client-1"}, 200, None),
        ({"scope": "patient/*.rs"}, 400, "invalid_scope"),
        ({"scope": ""}, 400, "invalid_scope"),
        ({"scope": ["system/*.rs", "system/*.cruds"]}, 400, "invalid_request"),
        ({f"field{number}": "x" for number in range(30)}, 400, "invalid_request"),
    ],
)
def test_the_form_of_asking(
    client: httpx.Client, moment: Moment, change: dict[str, Any], status: int, error: str | None
) -> None:
    answer = ask(client, signed(claims_of(client, moment)), **change)
    assert (answer.status_code, answer.json().get("error")) == (status, error)


def test_what_is_no_form_is_refused(client: httpx.Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/auth/token", json={}).status_code == 415
    assert client.post("/auth/token", content=b"a=" + b"x" * 70_000, headers=form).status_code == 413
    assert client.post("/auth/token", content=b"\xff\xfe", headers=form).status_code == 400
    assert client.get("/auth/token").status_code == 405


def test_a_token_does_what_its_scopes_allow_and_no_more(client: httpx.Client, moment: Moment, sealed: Make) -> None:
    reading = bearer(ask(client, signed(claims_of(client, moment)), scope="system/*.rs"))
    tasks = bearer(ask(client, signed(claims_of(client, moment)), scope="system/Task.s"))
    everything = bearer(ask(client, signed(claims_of(client, moment))))
    bundle = sealed()
    fhir = {"Content-Type": "application/fhir+json"}
    refused = client.post("/fhir", json=bundle, headers={**fhir, **reading})
    assert (refused.status_code, refused.json()["issue"][0]["code"]) == (403, "forbidden")
    assert "insufficient_scope" in refused.headers["www-authenticate"]
    assert client.get("/fhir/Task?identifier=a", headers=tasks).status_code == 200
    assert client.get("/fhir/Task/1", headers=tasks).status_code == 403
    assert client.get("/fhir/Patient?identifier=a", headers=tasks).status_code == 403
    assert client.get("/fhir/Patient?identifier=a", headers=everything).status_code == 200


def test_a_facility_that_is_no_longer_active_is_nobody(client: httpx.Client) -> None:
    answer = client.get("/fhir/Patient/1", headers={"Authorization": "Bearer a-lasting-token-of-three"})
    assert answer.status_code == 401


def test_a_grant_ends_with_its_registration(client: httpx.Client, kept: ReceiverStore, moment: Moment) -> None:
    token = bearer(ask(client, signed(claims_of(client, moment))))
    gone = Registry(tuple(replace(one, active=False) for one in REGISTRY.facilities))
    for registry in (gone, Registry(())):
        with LoopbackServer(create_app(kept, registry=registry, clock=moment)) as server:
            assert httpx.get(f"{server.base_url}/fhir/Patient/1", headers=token, trust_env=False).status_code == 401


def test_who_fails_too_often_has_to_wait(moment: Moment) -> None:
    store = ReceiverStore()
    app = create_app(store, registry=REGISTRY, clock=moment, limits=Limits(failure_rate=Rate(3, 0.001)))
    with LoopbackServer(app) as server, httpx.Client(base_url=server.base_url, trust_env=False) as client:
        assert [client.get("/", auth=("vogt", "wrong")).status_code for _ in range(2)] == [401, 401]
        assert ask(client, "a.b.c").status_code == 401
        answers = [client.get("/", auth=("vogt", PASSWORD)), ask(client, signed(claims_of(client, moment)))]
        assert {answer.status_code for answer in answers} == {429}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert client.get("/fhir/metadata").status_code == 200
    store.close()


def test_the_pages_are_for_the_bodys_people(client: httpx.Client, moment: Moment) -> None:
    assert client.get("/").status_code == 401
    assert client.get("/", auth=("vogt", PASSWORD)).status_code == 200
    assert client.get("/", auth=("vogt", PASSWORD)).status_code == 200
    assert client.get("/", auth=("anybody", "body")).status_code == 200
    for auth in (("vogt", "wrong"), ("nobody", PASSWORD), ("vogt", "")):
        assert client.get("/", auth=auth).status_code == 401
    token = bearer(ask(client, signed(claims_of(client, moment))))
    assert client.get("/", headers=token).status_code == 401
    assert client.get("/", headers={"Authorization": "Basic %%%"}).status_code == 401
    moment.now += 400  # by now the password is looked at anew
    assert client.get("/", auth=("vogt", PASSWORD)).status_code == 200


def test_an_open_receiver_grants_nothing() -> None:
    store = ReceiverStore()
    with LoopbackServer(create_app(store)) as server, httpx.Client(base_url=server.base_url, trust_env=False) as client:
        assert client.get("/.well-known/smart-configuration").status_code == 404
        assert ask(client, "a.b.c").status_code == 404
    store.close()


def test_rates() -> None:
    now = [0.0]
    limiter = RateLimiter(Rate(burst=2, per_s=0.5), lambda: now[0])
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 2]
    assert limiter.take("b") == 0
    now[0] += 1
    assert (limiter.wait("a"), limiter.take("a")) == (1, 1)
    now[0] += 1
    assert [limiter.wait("a"), limiter.take("a"), limiter.take("a")] == [0, 0, 2]
    for number in range(10_000):
        limiter.take(str(number))
    assert limiter.take("a") == 0  # forgotten, since so many others came
    assert all(RateLimiter(Rate(0, 0)).take("a") == 0 for _ in range(5))
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::2") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("::ffff:192.0.2.1") == neighbourhood("192.0.2.1") == "192.0.2.1"
    assert neighbourhood("unix") == "unix"


@pytest.mark.parametrize(
    ("scopes", "kind", "deeds", "wanted"),
    [
        (["system/*.cruds"], "Patient", "cu", True),
        (["system/*.rs"], "Patient", "r", True),
        (["system/*.rs"], "Patient", "c", False),
        (["system/Task.rs", "system/Patient.c"], "Patient", "r", False),
        (["system/Patient.c", "system/*.u"], "Patient", "cu", True),
        (["system/Patient.c"], "*", "c", False),
        (["system/*.read"], "Task", "rs", True),
        (["system/*.write"], "Task", "cud", True),
        (["system/*.write"], "Task", "r", False),
        (["system/*.*"], "Task", "cruds", True),
        (["user/*.cruds", "system/*.", "system/*.sr", "system/.r", "system/*.r?status=a"], "Task", "r", False),
    ],
)
def test_scopes(scopes: list[str], kind: str, deeds: str, wanted: bool) -> None:
    assert allowed(scopes, kind, deeds) is wanted


def test_what_is_not_registered_is_not_granted() -> None:
    asked = ["system/*.rs", "system/Task.r", "system/Task.cu", "system/Task.r", "openid"]
    assert granted(asked, ["system/*.rs"]) == ("system/*.rs", "system/Task.r")
    assert granted(["system/*.cruds"], ["system/*.rs", "system/Task.cu"]) == ()


def test_a_registry_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(public(KEYS["ES384"], KEYS["EdDSA"])))
    (tmp_path / "tokens").write_text("token-in-a-file-1\ntoken-in-a-file-2\n")
    hashed = "sha256:" + hashlib.sha256(b"token-that-is-hashed").hexdigest()
    content = {
        "facilities": [
            {"code": "F-001", "name": "Synthetic", "jwks_file": "a.json", "client_id": "c", "tokens": [hashed]},
            {"code": "F-002", "jwks": public(KEYS["RS384"]), "token_file": "tokens", "scopes": ["system/*.rs"]},
            {"code": "F-003", "active": False, "tokens": ["a-token-in-the-file"]},
        ],
        "operators": [{"name": "vogt", "password_hash": HASH}],
    }
    path = tmp_path / "facilities.yaml"
    path.write_text(yaml.safe_dump(content))
    registry = load_registry(path)
    assert [one.code for one in registry.facilities] == ["F-001", "F-002", "F-003"]
    assert [key["kid"] for key in registry.signing_keys("F-001")["keys"]] == ["es", "ed"]
    assert registry.signing_keys("F-009") == {"keys": []}
    found = [registry.bearer(word) for word in ("token-that-is-hashed", "token-in-a-file-2", hashed, "")]
    assert [one.code if one is not None else None for one in found] == ["F-001", "F-002", None, None]
    client, three = registry.client("c"), registry.facility("F-003")
    assert client is not None
    assert client.code == "F-001"
    assert three is not None
    assert not three.active
    assert "a-token-in-the-file" not in repr(registry)


@pytest.mark.parametrize(
    ("facility", "words"),
    [
        ({"code": "a/b"}, "a facility code is"),
        ({"keys": []}, "unknown field"),
        ({"jwks": {"keys": {}}}, "no JWK Set"),
        ({"jwks": {"keys": [KEYS["ES384"].as_dict(private=True)]}}, "private or shared"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}}, "private or shared"),
        ({"jwks": {"keys": [{"kty": "EC", "crv": "P-384", "kid": "a"}]}}, "none of RSA"),
        ({"jwks": {"keys": [{"kty": "LM", "kid": "a"}]}}, "none of RSA"),
        ({"jwks": public(P256, P256)}, "kid is written twice"),
        ({"jwks": {"keys": [{k: v for k, v in public(P256)["keys"][0].items() if k != "kid"}]}}, "no kid"),
        ({"jwks_file": "none.json"}, "jwks_file cannot be read"),
        ({"token_file": "none"}, "token_file cannot be read"),
        ({"tokens": ["short"]}, "shorter than 16"),
        ({"tokens": ["a-token-of-the-other-one"]}, "same token"),
        ({"scopes": ["user/*.rs"]}, "not one of a system"),
        ({"client_id": "F-000"}, "client_id is written twice"),
        ({"code": "F-000"}, "facility code is written twice"),
        ({"active": "perhaps"}, "does not fit"),
    ],
)
def test_a_registry_that_does_not_hold_is_refused(tmp_path: Path, facility: dict[str, Any], words: str) -> None:
    path = tmp_path / "facilities.yaml"
    rows = [{"code": "F-000", "tokens": ["a-token-of-the-other-one"]}, {"code": "F-001", **facility}]
    path.write_text(yaml.safe_dump({"facilities": rows}))
    with pytest.raises(ConfigError, match=words) as refused:
        load_registry(path)
    assert refused.value.code == "IOA-CFG-045"
    assert "other-one" not in refused.value.sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("facilities: [", "no YAML"),
        ("facilities: []\nfacilities: []", "written twice"),
        ("- a", "does not fit"),
        ("facilities: []\noperators: [{name: 'a:b', password_hash: x}]", "colon"),
        ("facilities: []\noperators: [{name: vogt, password_hash: in-the-clear}]", "no argon2id"),
        (
            "facilities: []\noperators: [{name: v, password_hash: $argon2id$}, {name: v, password_hash: $argon2id$}]",
            "operator",
        ),
    ],
)
def test_a_file_that_is_no_registry_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "facilities.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as refused:
        load_registry(path)
    assert "in-the-clear" not in refused.value.sentence
    with pytest.raises(ConfigError, match="cannot be read"):
        load_registry(tmp_path / "none.yaml")
