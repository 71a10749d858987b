"""Signing in with a local account: who gets in, how long, what is kept of it, and what stands before each request."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from sqlalchemy import select

from io_fhir_adapter.ledger.accounts import Actor, add_account
from io_fhir_adapter.ledger.audit import verify_audit
from io_fhir_adapter.ledger.schema import accounts, sign_ins
from io_fhir_adapter.look.passwords import BusyError, Passwords

Site = Any  # of conftest, which is no module to import from
Make = Callable[..., Site]
PASSWORD = "correct horse battery"
HTTPS = "https://accreditation.hospital.example"


def told(site: Site) -> list[tuple[str, str, str, str]]:
    return [(entry.agent, entry.entity, entry.detail, entry.outcome) for entry in site.audit()]


def test_whoever_is_not_signed_in_is_sent_to_sign_in_and_then_on(site: Make) -> None:
    here = site()
    here.account("weber", "reviewer")
    browser = here.browser()
    answer = browser.get("/cases?draw=3")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fcases%3Fdraw%3D3")
    page = browser.get(answer.headers["location"])
    assert 'value="/cases?draw=3"' in page.text
    answer = browser.fill("/sign-in", {"name": " Weber ", "password": PASSWORD, "next": "/cases?draw=3"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/cases?draw=3")
    assert browser.get("/cases").text == "cases for weber: reviewer"
    assert told(here)[-1] == ("weber", "Account/weber", "sign-in", "0")


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "evil", ""]
)
def test_after_signing_in_one_stays_on_these_pages(elsewhere: str, site: Make) -> None:
    here = site()
    here.account("weber", "reviewer")
    browser = here.browser()
    answer = browser.fill("/sign-in", {"name": "weber", "password": PASSWORD, "next": elsewhere})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert browser.get("/language/de", params={"next": elsewhere}).headers["location"] == "/"


def test_a_script_is_told_in_json(site: Make) -> None:
    here = site()
    here.account("schulz", "viewer")
    browser = here.browser()
    answer = browser.get("/cases", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (401, "sign-in")
    browser.sign_in("schulz")
    answer = browser.get("/cases", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (403, "role")


def test_a_role_is_needed_and_the_page_says_so(site: Make) -> None:
    here = site()
    here.account("schulz", "viewer", "administrator")
    here.account("nobody")
    browser = here.browser()
    browser.sign_in("schulz")
    answer = browser.get("/cases")
    assert answer.status_code == 403
    assert "Your roles do not include it" in answer.text
    other = here.browser()
    other.sign_in("nobody")
    answer = other.get("/")
    assert answer.status_code == 403
    assert "You have no role here yet" in answer.text


def test_the_session_cookie_is_new_secret_and_kept_as_a_hash(site: Make) -> None:
    here = site(public_url=HTTPS)
    here.account("weber", "reviewer")
    browser = here.browser()
    browser.cookies.set("__Host-io-session", "planted", domain="accreditation.hospital.example", path="/")
    answer = browser.sign_in()
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("__Host-io-session="))
    assert {part.strip() for part in cookie.split(";")[1:]} == {"HttpOnly", "Path=/", "SameSite=lax", "Secure"}
    secret = cookie.partition("=")[2].partition(";")[0]
    assert len(secret) >= 43  # 256 bits
    with here.ledger.read() as connection:
        kept = connection.execute(select(sign_ins)).all()
    assert [row.id for row in kept] == [hashlib.sha256(secret.encode()).hexdigest()]
    assert secret not in str(kept)
    first = secret
    browser.post("/sign-out", {"csrf": browser.token("/")})
    browser.sign_in()
    assert browser.cookies["__Host-io-session"] != first


@pytest.mark.parametrize(
    ("host", "public_url", "secure"),
    [
        ("127.0.0.1", None, False),
        ("0.0.0.0", None, True),  # noqa: S104
        ("127.0.0.1", HTTPS, True),
        ("0.0.0.0", "http://localhost:8080", False),  # noqa: S104
    ],
)
def test_cookies_are_secure_but_on_this_machine_alone(
    host: str, public_url: str | None, secure: bool, site: Make
) -> None:
    browser = site(host=host, **({"public_url": public_url} if public_url else {})).browser()
    cookie = browser.get("/sign-in").headers["set-cookie"]
    assert ("Secure" in cookie, cookie.startswith("__Host-")) == (secure, secure)


@pytest.mark.parametrize(("minutes", "still"), [(14, True), (16, False)])
def test_a_session_ends_when_it_is_idle(minutes: int, still: bool, site: Make) -> None:
    here = site()
    here.account("weber", "reviewer")
    browser = here.browser()
    browser.sign_in()
    here.clock.turn(minutes=minutes)
    assert (browser.get("/cases").status_code == 200) is still


def test_a_session_ends_after_hours_however_busy(site: Make) -> None:
    here = site(session_hours=2)
    here.account("weber", "reviewer")
    browser = here.browser()
    browser.sign_in()
    for _ in range(11):
        here.clock.turn(minutes=10)
        assert browser.get("/cases").status_code == 200
    here.clock.turn(minutes=10)
    assert browser.get("/cases").status_code == 303
    browser.sign_in()
    with here.ledger.read() as connection:
        assert len(connection.execute(select(sign_ins)).all()) == 1  # the old one is cleared away


def test_signing_out_ends_it_for_good(site: Make) -> None:
    here = site()
    here.account("weber", "reviewer")
    browser = here.browser()
    browser.sign_in()
    secret = browser.cookies["io-session"]
    answer = browser.post("/sign-out", {"csrf": browser.token("/")})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert "io-session" not in browser.cookies
    browser.cookies.set("io-session", secret)
    assert browser.get("/cases").status_code == 303
    assert told(here)[-1] == ("weber", "Account/weber", "sign-out", "0")


def test_wrong_passwords_lock_an_account_longer_each_time(site: Make) -> None:
    here = site()
    here.account("weber", "reviewer")
    browser = here.browser()
    for _ in range(5):
        answer = browser.sign_in(password="wrong wrong wrong")
        assert answer.status_code == 401
    assert browser.sign_in().status_code == 401  # the right one, but locked
    here.clock.turn(seconds=59)
    assert browser.sign_in().status_code == 401
    here.clock.turn(seconds=1)
    assert browser.sign_in(password="wrong wrong wrong").status_code == 401
    here.clock.turn(seconds=61)
    assert browser.sign_in().status_code == 401  # two minutes by now
    here.clock.turn(seconds=60)
    assert browser.sign_in().status_code == 303
    details = [detail for _, _, detail, _ in told(here)]
    assert details[1:7] == [*["sign-in failed"] * 4, "sign-in failed, locked now", "sign-in locked"]
    with here.ledger.read() as connection:
        row = connection.execute(select(accounts)).one()
    assert (row.failures, row.locked_until) == (0, "")


def test_a_name_without_an_account_is_like_a_wrong_password(site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = site()
    here.account("weber", "reviewer")
    here.account("gone", "reviewer")
    with here.ledger.begin() as connection:
        connection.execute(accounts.update().where(accounts.c.name == "gone").values(disabled=True))
    verified: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, hashed: str, password: str) -> bool:
        verified.append(hashed)
        return verify(self, hashed, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    pages = []
    for name, password in (("weber", "wrong wrong wrong"), ("secret-canary", PASSWORD), ("gone", PASSWORD)):
        answer = here.browser().sign_in(name, password)
        pages.append((answer.status_code, re.sub(r'value="[0-9a-f]{64}"', "", answer.text)))
    assert len(set(pages)) == 1
    assert len(verified) == 3  # the same work for each
    assert len({str(extract_parameters(hashed)) for hashed in verified}) == 1
    assert [detail for _, _, detail, _ in told(here)[2:]] == ["sign-in failed", "sign-in failed", "sign-in disabled"]
    assert "secret-canary" not in str(told(here))  # what was typed as a name may be a password
    assert told(here)[3][:2] == ("unknown", "Account/unknown")


def test_no_password_and_no_secret_is_ever_noted(site: Make) -> None:
    here = site()
    here.account("weber", "administrator")
    browser = here.browser()
    browser.sign_in(password="canary wrong pw")
    browser.sign_in()
    browser.fill("/password", {"old": PASSWORD, "new": "canary new password", "again": "canary new password"})
    text = json.dumps([entry.to_json() for entry in here.audit()])
    assert "canary" not in text
    assert PASSWORD not in text
    assert browser.cookies["io-session"] not in text
    with here.ledger.read() as connection:
        assert verify_audit(connection)[0] == len(here.audit())


def test_too_many_at_once_are_asked_to_wait(site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = site()
    here.account("weber", "reviewer")

    def busy(self: Passwords, hashed: str | None, password: str) -> bool:
        raise BusyError

    monkeypatch.setattr(Passwords, "verify", busy)
    answer = here.browser().sign_in()
    assert answer.status_code == 429
    assert "Please wait a moment" in answer.text


def test_a_one_time_password_must_be_changed_before_anything_else(site: Make) -> None:
    here = site()
    here.account("weber", "reviewer", one_time=True)
    browser = here.browser()
    assert browser.sign_in().headers["location"] == "/password"
    answer = browser.get("/cases")
    assert (answer.status_code, answer.headers["location"]) == (303, "/password")
    assert "/report" not in browser.get("/password").text  # nothing to go to yet
    fresh = "eleven blue elephants"
    for fields, words in (
        ({"old": PASSWORD, "new": fresh, "again": fresh + "x"}, "differ"),
        ({"old": PASSWORD, "new": "short", "again": "short"}, "needs at least 12"),
        ({"old": PASSWORD, "new": "my name is weber!", "again": "my name is weber!"}, "must not hold your name"),
        ({"old": "wrong wrong wrong", "new": fresh, "again": fresh}, "so far is not right"),
        ({"old": PASSWORD, "new": PASSWORD, "again": PASSWORD}, "is the old one"),
    ):
        answer = browser.fill("/password", fields)
        assert answer.status_code == 422
        assert words in answer.text
    before = browser.cookies["io-session"]
    answer = browser.fill("/password", {"old": PASSWORD, "new": fresh, "again": fresh})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert browser.cookies["io-session"] != before
    assert browser.get("/cases").status_code == 200
    assert here.browser().sign_in().status_code == 401
    assert here.browser().sign_in(password=fresh).status_code == 303


def test_a_new_password_ends_the_other_sessions(site: Make) -> None:
    here = site()
    here.account("weber", "reviewer")
    one, other = here.browser(), here.browser()
    one.sign_in()
    other.sign_in()
    fresh = "eleven blue elephants"
    one.fill("/password", {"old": PASSWORD, "new": fresh, "again": fresh})
    assert one.get("/cases").status_code == 200
    assert other.get("/cases").status_code == 303


def test_an_old_hash_is_renewed_at_signing_in(site: Make) -> None:
    here = site()
    strong = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    with here.ledger.begin() as connection:
        hashed = strong.hash(PASSWORD)
        add_account(connection, "weber", "", hashed, ["viewer"], one_time=False, by=Actor("c", ""), at=here.clock())
    assert here.browser().sign_in().status_code == 303
    with here.ledger.read() as connection:
        kept = connection.execute(select(accounts.c.hash)).scalar_one()
    assert "m=8,t=1,p=1" in kept
    assert here.browser().sign_in().status_code == 303
