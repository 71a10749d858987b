"""The signature of a submission: what is signed, by whom, and everything that is no such signature."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from io_fhir_adapter.canonical_urls import FACILITY_SYSTEM
from io_fhir_adapter.trust.approver import approver_agent, approver_token, with_approver
from io_fhir_adapter.trust.canonical import canonical_json
from io_fhir_adapter.trust.keys import key_pairs, new_signature_key, public_set, signature_key
from io_fhir_adapter.trust.signature import ALGORITHMS, SignatureKey, check_signature, sign_bundle
from io_fhir_adapter.trust.submission import submission_digest
from io_fhir_adapter.trust.verify import signature_finding

Json = dict[str, Any]
NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
KEYS = {name: new_signature_key(name) for name in ALGORITHMS}
KEY = KEYS["ES256"]


def bundle(facility: str = "F-001") -> Json:
    owner = {"type": "Organization", "identifier": {"system": FACILITY_SYSTEM, "value": facility}}
    statement = {"resourceType": "Provenance", "agent": [{"who": {"display": "software"}, "onBehalfOf": owner}]}
    report = {"resourceType": "MeasureReport", "group": [{"measureScore": {"value": 0.5}, "title": "Überblick"}]}
    entries = [{"fullUrl": "urn:uuid:1", "resource": report}, {"fullUrl": "urn:uuid:2", "resource": statement}]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def header_of(signed: Json) -> Json:
    protected = base64.b64decode(signed["signature"]["data"]).split(b".")[0]
    return json.loads(base64.urlsafe_b64decode(protected + b"=" * (-len(protected) % 4)))  # type: ignore[no-any-return]


def forged(header: Json, key: Any = KEY, *, payload: bytes | None = None, when: datetime = NOW) -> Json:
    """A signed Bundle whose JWS has another header; ``key`` makes a signature that is right for it."""
    signed = sign_bundle(bundle(), KEY, when=when)
    segments = [_url64(json.dumps(header).encode()), _url64(canonical_json(bundle()))]
    private = key.private_key if isinstance(key, ECKey) else None
    made = jws.JWSRegistry.algorithms["ES256"].sign(b".".join(segments), key) if private is not None else b""
    return with_data(signed, b".".join([segments[0], payload or b"", _url64(made)]))


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def with_data(signed: Json, compact: bytes) -> Json:
    return {**signed, "signature": {**signed["signature"], "data": base64.b64encode(compact).decode()}}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_signed_is_known_again_also_after_a_server_wrote_it_anew(name: str) -> None:
    key = KEYS[name]
    signed = sign_bundle(bundle(), key, when=NOW)
    assert check_signature(signed, public_set(key)) == key.kid
    anew = json.loads(json.dumps(dict(reversed(signed.items())), indent=3))
    assert check_signature(anew, public_set(key)) == key.kid
    assert header_of(signed) == {"alg": name, "kid": key.kid, "iat": int(NOW.timestamp())}
    assert signed["signature"]["when"] == "2026-01-05T03:00:00+00:00"
    assert sign_bundle(signed, key, when=NOW)["signature"].keys() == signed["signature"].keys()
    assert "signature" not in bundle()


def test_any_change_is_seen() -> None:
    signed = sign_bundle(bundle(), KEY, when=NOW)
    text = json.dumps(signed["entry"])
    for old, new in (("0.5", "0.25"), ("Überblick", "Uberblick"), ("urn:uuid:1", "urn:uuid:3"), ("software", "")):
        assert old in json.loads(f'"{old}"')
        changed = json.dumps(json.loads(text), ensure_ascii=False).replace(old, new)
        with pytest.raises(ValueError, match="one of them was changed"):
            check_signature({**signed, "entry": json.loads(changed)}, public_set(KEY))
    with pytest.raises(ValueError, match="one of them was changed"):
        check_signature({**signed, "timestamp": "2026"}, public_set(KEY))


ELEMENTS: dict[str, Callable[[Json], Json]] = {
    "when": lambda s: {**s, "when": "2026-01-05T03:00:01+00:00"},
    "no zone": lambda s: {**s, "when": "2026-01-05T03:00:00"},
    "another type": lambda s: {**s, "type": [{"system": "urn:x", "code": "1"}]},
    "another target": lambda s: {**s, "targetFormat": "application/fhir+json"},
    "another form": lambda s: {**s, "sigFormat": "application/pkcs7"},
    "more": lambda s: {**s, "onBehalfOf": {"display": "x"}},
    "less": lambda s: {name: value for name, value in s.items() if name != "who"},
    "another facility": lambda s: {**s, "who": {**s["who"], "identifier": {"system": FACILITY_SYSTEM, "value": "B"}}},
    "no base64": lambda s: {**s, "data": s["data"] + "*"},
    "no text": lambda s: {**s, "data": 1},
    "too long": lambda s: {**s, "data": "A" * 4_000},
}


@pytest.mark.parametrize("change", ELEMENTS.values(), ids=ELEMENTS)
def test_the_elements_of_a_signature_are_as_they_have_to_be(change: Callable[[Json], Json]) -> None:
    signed = sign_bundle(bundle(), KEY, when=NOW)
    with pytest.raises(ValueError, match="signature"):
        check_signature({**signed, "signature": change(signed["signature"])}, public_set(KEY))


RIGHT: Json = {"alg": "ES256", "kid": KEY.kid, "iat": int(NOW.timestamp())}
HEADERS: dict[str, Json] = {
    "none": {**RIGHT, "alg": "none"},
    "a shared secret": {**RIGHT, "alg": "HS256"},
    "another curve": {**RIGHT, "alg": "ES384"},
    "the other algorithm": {**RIGHT, "alg": "EdDSA"},
    "a number": {**RIGHT, "alg": 256},
    "another key": {**RIGHT, "kid": "other"},
    "no kid": {name: value for name, value in RIGHT.items() if name != "kid"},
    "no time": {name: value for name, value in RIGHT.items() if name != "iat"},
    "another time": {**RIGHT, "iat": RIGHT["iat"] + 1},
    "payload as it is": {**RIGHT, "b64": False, "crit": ["b64"]},
    "its own key": {**RIGHT, "jwk": public_set(KEY)["keys"][0]},
    "an address": {**RIGHT, "jku": "https://evil.example/jwks.json"},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_asks_for_anything_else_is_refused(header: Json) -> None:
    with pytest.raises(ValueError, match=r"signature|another algorithm"):
        check_signature(forged(header), public_set(KEY))
    assert check_signature(forged(RIGHT), public_set(KEY)) == KEY.kid  # so that it is the header that is refused


def test_only_the_one_form_of_a_detached_jws_is_taken() -> None:
    signed = sign_bundle(bundle(), KEY, when=NOW)
    compact = base64.b64decode(signed["signature"]["data"])
    protected, _, value = compact.split(b".")
    twice = _url64(json.dumps(RIGHT)[:-1].encode() + b', "kid": "other"}')
    other = value[:-1] + bytes([value[-1] + 1])  # the same bytes with bits that mean nothing
    for wrong in (
        b".".join([protected, _url64(canonical_json(bundle())), value]),
        b".".join([protected, value]),
        b".".join([protected + b"=", b"", value]),
        b".".join([twice, b"", value]),
        b".".join([protected, b"", other]),
        b"..",
    ):
        with pytest.raises(ValueError, match=r"detached JWS|one of them was changed"):
            check_signature(with_data(signed, wrong), public_set(KEY))


def test_a_key_is_taken_for_what_it_is_registered_for_alone() -> None:
    signed, known = sign_bundle(bundle(), KEY, when=NOW), public_set(KEY)["keys"][0]
    other = public_set(KEYS["EdDSA"])["keys"][0]
    wrong: list[Json] = [
        {"keys": []},
        {},
        {"keys": [known, known]},
        {"keys": [{**known, "use": "enc"}]},
        {"keys": [{**known, "alg": "ES384"}]},
        {"keys": [{**known, "x": "AA"}]},
        {"keys": [{**other, "kid": KEY.kid}]},
        {"keys": [{**OctKey.import_key("a secret of sixteen bytes").as_dict(), "kid": KEY.kid}]},
    ]
    for jwks in wrong:
        with pytest.raises(ValueError, match="facility's key"):
            check_signature(signed, jwks)
    stranger = {"keys": [{**public_set(new_signature_key("ES256"))["keys"][0], "kid": KEY.kid}]}
    with pytest.raises(ValueError, match="one of them was changed"):
        check_signature(signed, stranger)


def test_a_facility_does_not_sign_for_another() -> None:
    mine = sign_bundle(bundle("A"), KEY, when=NOW)
    with pytest.raises(ValueError, match="one of them was changed"):
        check_signature({**bundle("B"), "signature": mine["signature"]}, public_set(KEY))
    nobody = {**bundle(), "entry": bundle()["entry"][:1]}
    with pytest.raises(ValueError, match="for which one facility"):
        sign_bundle(nobody, KEY, when=NOW)


def test_what_cannot_sign_says_so() -> None:
    public = key_pairs(json.dumps(public_set(KEY)))[0]
    for key in (public, ECKey.generate_key("P-256", auto_kid=False), ECKey.generate_key("P-384", auto_kid=True)):
        with pytest.raises(ValueError, match="key"):
            sign_bundle(bundle(), key, when=NOW)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time zone"):
        sign_bundle(bundle(), KEY, when=NOW.replace(tzinfo=None))


def test_the_finding_says_in_words_whether_it_is_signed() -> None:
    signed = sign_bundle(bundle(), KEY, when=NOW)
    jwks = public_set(KEY)
    assert signature_finding(bundle(), None).words == "not signed"
    assert signature_finding(signed, None).words == "signed, not checked: no keys given"
    assert signature_finding(signed, jwks).words == f"signed by kid {KEY.kid}"
    unsigned, moved = signature_finding(bundle(), jwks), signature_finding({**signed, "type": "batch"}, jwks)
    assert (unsigned.holds, unsigned.words, moved.holds) == (False, "the Bundle is not signed", False)


def test_a_key_is_read_from_what_people_have() -> None:
    whole = KEY.as_dict(private=True)
    secret = ECKey.import_key(whole).as_pem(private=True, password="pass")
    for text, password, kid in (
        (json.dumps(whole), None, KEY.kid),
        (json.dumps({"keys": [whole, RSAKey.generate_key(2048).as_dict(private=True)]}), None, KEY.kid),
        (KEYS["EdDSA"].as_pem(private=True).decode(), None, KEYS["EdDSA"].thumbprint()),
        (secret.decode(), "pass", KEY.thumbprint()),
    ):
        assert signature_key(text, password).kid == kid
    assert signature_key(json.dumps(whole), kid="theirs").kid == "theirs"
    both = json.dumps({"keys": [one.as_dict(private=True) for one in KEYS.values()]})
    assert signature_key(both, kid=KEY.kid).key_type == "EC"
    for text, why in (
        (both, "several keys"),
        (json.dumps(public_set(KEY)), "no private"),
        (json.dumps(ECKey.generate_key("P-384").as_dict(private=True)), "no private"),
        (secret.decode(), "no PEM, JWK or JWKS"),
        ("-----BEGIN NONSENSE-----", "no PEM, JWK or JWKS"),
        ('{"keys": 1}', "no PEM, JWK or JWKS"),
    ):
        with pytest.raises(ValueError, match=why):
            signature_key(text)


def approved(made: Json, key: SignatureKey | None = None, display: str = "") -> Json:
    done = with_approver(made, approver_agent(approver_token(b"k" * 32, "F-001", "chief"), display))
    return done if key is None else sign_bundle(done, key, when=NOW + timedelta(days=1))


def test_who_approved_is_signed_and_changes_nothing_of_what_is_said() -> None:
    made = bundle()
    known = submission_digest(made)
    done = approved(made, KEY, "Prof. Jonas Lang")
    assert submission_digest(done) == submission_digest(approved(made)) == known
    assert len(approved(approved(made, display="Somebody Else"))["entry"][1]["resource"]["agent"]) == 2
    assert check_signature(done, public_set(KEY)) == KEY.kid
    done["entry"][1]["resource"]["agent"].pop()
    with pytest.raises(ValueError, match="one of them was changed"):
        check_signature(done, public_set(KEY))


@pytest.mark.parametrize(
    "more",
    [
        {"onBehalfOf": {"display": "somebody"}},
        {"extension": [{"url": "urn:x", "valueString": "x"}]},
        {"who": {"type": "Practitioner", "display": "x"}},
        {"who": None},
        {"who": {"type": "PractitionerRole", "identifier": {"value": 1}}},
    ],
)
def test_an_approver_that_says_more_is_part_of_what_is_said(more: Json) -> None:
    made = bundle()
    agent = {**approver_agent("0" * 64), **more}
    assert submission_digest(with_approver(made, agent)) != submission_digest(made)


def test_the_token_of_an_approver_is_the_keys_and_the_facilitys() -> None:
    token = approver_token(b"k" * 32, "F-001", "chief")
    others = {approver_token(b"l" * 32, "F-001", "chief"), approver_token(b"k" * 32, "F-002", "chief"),
              approver_token(b"k" * 32, "F-001", "weber")}  # fmt: skip
    assert len({token, *others}) == 4
    assert "chief" not in token
