"""The whole service with sign-in: what needs one, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from io_fhir_adapter.pipeline import rules_for
from io_fhir_adapter.serve import app as service
from io_fhir_adapter.serve import web
from io_fhir_adapter.serve.web import Web

Site = Any  # of conftest, which is no module to import from
Make = Callable[..., Site]
PASSWORD = "correct horse battery"


@pytest.fixture
def here(site: Make, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose pages are those of the service itself."""
    made = site()
    made.account("weber", "reviewer")
    monkeypatch.setattr(web, "Web", lambda config, ledger, host: weak(config, ledger, host, made))
    made.app = service.create_app(made.config, made.ledger, rules_for(made.config))
    return made


def weak(config: Any, ledger: Any, host: str, site: Site) -> Web:
    return Web(config, ledger, host=host, passwords=site.passwords, clock=site.clock)


def test_pages_need_a_sign_in_and_health_does_not(here: Site) -> None:
    browser = here.browser()
    for path in ("/health/live", "/health/ready", "/metrics"):
        answer = browser.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for path in ("/", "/report"):
        assert browser.get(path).status_code == 303
    browser.sign_in()
    assert "Welcome, Dr. Weber" in browser.get("/").text
    report = browser.get("/report")
    assert "No night has run yet" in report.text
    assert "style-src 'unsafe-inline'" in report.headers["content-security-policy"]
    assert "script-src" not in report.headers["content-security-policy"]


def test_every_page_asks_who_is_there(here: Site) -> None:
    """No route is forgotten: but for these, each sends a stranger away."""
    open_to_all = {"/health/live", "/health/ready", "/metrics", "/sign-in", "/language/{code}"}
    paths = set(_paths(here.app.routes))
    assert {"/", "/report", "/accounts", "/audit", "/audit.ndjson", "/password"} <= paths
    stranger = here.browser()
    for path in sorted(paths - open_to_all):
        if path.startswith("/assets/"):
            continue
        answer = stranger.get(_filled(path))
        assert answer.status_code in {303, 404, 405}, path
        if answer.status_code == 303:
            assert answer.headers["location"].startswith("/sign-in?next="), path


def _paths(routes: Any) -> list[str]:
    found: list[str] = []
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            found += _paths(inner.routes)
        elif "GET" in (getattr(route, "methods", None) or ()):
            found.append(route.path)
    return found


def _filled(path: str) -> str:
    """A path with a number in place of each of its parameters."""
    return "/".join("1" if part.startswith("{") else part for part in path.split("/"))
