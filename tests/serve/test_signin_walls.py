"""What stands before and around every page: the form token, the origin, the headers, refusals in words, languages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.look.static_files import SHARED_ASSETS
from io_fhir_adapter.serve.language import LANGUAGES, texts

Site = Any  # of conftest, which is no module to import from
Make = Callable[..., Site]
PASSWORD = "correct horse battery"
pytestmark = pytest.mark.xdist_group("signin_walls")
HTTPS = "https://accreditation.hospital.example"
SERVE = Path(__file__).resolve().parents[2] / "src" / "io_fhir_adapter" / "serve"
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest.fixture(scope="module")
def here(site: Make) -> Site:
    made = site()
    made.account("weber", "reviewer", "administrator")
    return made


@pytest.fixture(scope="module")
def browser(here: Site) -> Any:
    made = here.browser()
    made.sign_in()
    return made


def test_a_form_with_its_token_is_taken(browser: Any) -> None:
    token = browser.token("/")
    assert browser.post("/cases", {"csrf": token, "a": "ä"}).text == f"csrf={token}&a=%C3%A4"
    answer = browser.ask("POST", "/cases", json={"a": 1}, headers={"X-CSRF-Token": token})
    assert answer.json() == {"a": 1}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("token", ["", "0" * 64, "ünlike", None])
def test_without_its_token_a_request_changes_nothing(method: str, token: str | None, browser: Any) -> None:
    answer = browser.ask(method, "/cases", data={} if token is None else {"csrf": token})
    assert answer.status_code == 403
    assert "This form is out of date" in answer.text


def test_the_token_of_another_session_is_none(here: Site, browser: Any) -> None:
    stranger = here.browser()
    answer = browser.post("/cases", {"csrf": stranger.token("/sign-in")})
    assert answer.status_code == 403
    stranger.sign_in()
    assert browser.post("/cases", {"csrf": stranger.token("/")}).status_code == 403


def test_signing_in_needs_a_token_too(here: Site) -> None:
    stranger = here.browser()
    fields = {"name": "weber", "password": PASSWORD}
    assert stranger.post("/sign-in", fields).status_code == 403
    token = here.browser().token("/sign-in")  # somebody else's page
    assert stranger.post("/sign-in", {"csrf": token, **fields}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:81"},
    ],
)
def test_a_request_from_another_page_is_refused_even_with_the_token(headers: dict[str, str], browser: Any) -> None:
    answer = browser.post("/cases", {"csrf": browser.token("/")}, headers=headers)
    assert answer.status_code == 403
    assert "came from another page" in answer.text


def test_a_request_from_these_pages_is_taken(browser: Any) -> None:
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert browser.post("/cases", {"csrf": browser.token("/")}, headers=own).status_code == 200


def test_behind_a_proxy_the_public_address_is_the_origin(site: Make) -> None:
    here = site(public_url=HTTPS)
    here.account("weber", "reviewer")
    browser = here.browser(HTTPS)
    browser.sign_in()
    inside = {"Host": "10.0.0.7:8080"}
    token = browser.token("/")
    assert browser.post("/cases", {"csrf": token}, headers={"Origin": HTTPS, **inside}).status_code == 200
    answer = browser.post("/cases", {"csrf": token}, headers={"Origin": "https://10.0.0.7:8080", **inside})
    assert answer.status_code == 403


def test_a_body_that_is_too_large_is_refused(browser: Any) -> None:
    answer = browser.ask("POST", "/cases", content=b"x" * ((4 << 20) + 1), headers={"X-CSRF-Token": browser.token("/")})
    assert answer.status_code == 413


def test_every_answer_carries_the_headers(browser: Any, here: Site) -> None:
    for path in ("/", "/sign-in", "/absent", "/assets/0/style.css", "/accounts"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"] == STRICT, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers


def test_over_https_browsers_are_told_to_stay_there(site: Make) -> None:
    answer = site(public_url=HTTPS).browser().get("/sign-in")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_a_page_may_loosen_one_directive(browser: Any) -> None:
    policy = browser.get("/loose").headers["content-security-policy"]
    nonce = re.search(r"style-src 'self' 'nonce-([A-Za-z0-9_-]{22})'", policy)
    assert nonce is not None
    assert policy.replace(f" 'nonce-{nonce[1]}'", "") == STRICT
    assert browser.get("/loose").headers["content-security-policy"] != policy


def test_assets_are_kept_for_long_under_their_digest(browser: Any) -> None:
    found = re.search(r'href="(/assets/[0-9a-f]{16}/style\.css)"', browser.get("/").text)
    assert found is not None
    answer = browser.get(found[1])
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    for other in ("/assets/0000000000000000/style.css", found[1].replace("style.css", "..%2Fweb.py"), found[1] + "x"):
        assert browser.get(other).status_code == 404


def test_the_pages_fetch_nothing_from_elsewhere(browser: Any, here: Site) -> None:
    pages = [browser.get(path).text for path in ("/", "/accounts", "/audit", "/password", "/absent")]
    pages.append(here.browser().get("/sign-in").text)
    for text in pages:
        addresses = re.findall(r'(?:src|href|action)="([^"]*)"', text)
        assert addresses
        assert [one for one in addresses if not re.match(r"/(?!/)|#|data:,$", one)] == []
        assert "<script>" not in text
        assert "style=" not in text
    assert not re.search(r"url\(|@import", (SHARED_ASSETS / "style.css").read_text(encoding="utf-8"))


def test_what_a_facility_is_called_is_text(browser: Any) -> None:
    text = browser.get("/").text
    assert "Synthetic Hospital &lt;Radiology&gt;" in text
    assert "<Radiology>" not in text


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [("/absent", 404, "There is no such page"), ("/sign-out", 405, "cannot be used that way")],
)
def test_a_refusal_is_in_words(path: str, status: int, words: str, browser: Any) -> None:
    answer = browser.get(path)
    assert answer.status_code == status
    assert words in answer.text


def test_an_unforeseen_error_says_nothing_of_itself(browser: Any, capfd: pytest.CaptureFixture[str]) -> None:
    answer = browser.get("/broken")
    assert answer.status_code == 500
    assert "Something went wrong" in answer.text
    assert "Mustermann" not in answer.text + "".join(capfd.readouterr())


def test_a_ledger_that_fails_is_a_page_with_a_code(site: Make) -> None:
    here = site()
    here.account("weber", "reviewer")
    browser = here.browser()
    browser.sign_in()
    with here.ledger.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE sign_ins RENAME TO lost")
    answer = browser.get("/")
    assert answer.status_code == 500
    assert "IOA-LED-002" in answer.text


def test_the_language_is_the_browsers_until_one_is_chosen(here: Site) -> None:
    browser = here.browser()
    german = {"Accept-Language": "fr, de-DE;q=0.8, en;q=0.5"}
    assert '<html lang="de">' in browser.get("/sign-in", headers=german).text
    answer = browser.get("/language/en?next=/sign-in%3Fnext%3D/cases")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/cases")
    assert '<html lang="en">' in browser.get("/sign-in", headers=german).text
    browser.get("/language/de")
    assert "Anmelden" in browser.get("/sign-in").text
    assert browser.get("/language/fr").status_code == 404


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    holes = [{key: sorted(re.findall(r"\{\w+\}", text)) for key, text in texts(one).items()} for one in LANGUAGES]
    assert holes[0] == holes[1]


def test_no_text_is_empty_or_a_word_that_yaml_took_for_something_else() -> None:
    for language in LANGUAGES:
        raw = yaml.safe_load((SERVE / "words" / f"{language}.yaml").read_text(encoding="utf-8"))
        assert {type(value) for value in _leaves(raw)} == {str}
        assert all(text.strip() for text in texts(language).values())


def _leaves(part: Any) -> list[Any]:
    return [leaf for value in part.values() for leaf in _leaves(value)] if isinstance(part, dict) else [part]


def test_every_text_that_a_template_names_is_there() -> None:
    known = texts("en")
    for path in (SERVE / "templates").glob("*.html"):
        named = re.findall(r"""\bt\(["']([a-z_.]+)["']\s*[,)]""", path.read_text(encoding="utf-8"))
        assert [key for key in named if key not in known] == [], path.name


def _channel(value: str) -> float:
    share = int(value, 16) / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def _contrast(one: str, other: str) -> float:
    light, dark = sorted(
        (sum(w * _channel(c[i : i + 2]) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5))) for c in (one, other)),
        reverse=True,
    )
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_its_ground(scheme: int) -> None:
    css = (SHARED_ASSETS / "style.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in ("surface", "page", "wash", "ghost")]
    pairs += [(name, f"{name}-wash") for name in ("good", "warn", "bad")]
    pairs += [("on-accent", "accent"), ("on-accent", "accent-strong"), ("bad", "surface"), ("faint", "surface")]
    poor = {pair: round(_contrast(colour[pair[0]], colour[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}
    assert _contrast(colour["edge"], colour["surface"]) >= 3  # the line around a field
