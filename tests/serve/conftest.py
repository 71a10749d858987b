"""The service's pages in this process, with a browser that keeps cookies and a clock that can be turned."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.config import Config, LedgerConfig, Role
from io_fhir_adapter.ledger.accounts import Actor, add_account
from io_fhir_adapter.ledger.audit import AuditEntry, entries
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.serve.people import Person
from io_fhir_adapter.serve.web import Web

PASSWORD = "correct horse battery"
CONSOLE = Actor("console", "")


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **much: float) -> None:
        self.now += timedelta(**much)


class Browser:
    """Keeps cookies, follows no redirect by itself, fills forms with the token of the page it saw last."""

    def __init__(self, app: FastAPI, runner: asyncio.Runner, origin: str) -> None:
        self.origin = origin
        self._runner = runner
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url=origin,
            headers={"Accept": "text/html", "Accept-Language": "en"},
        )

    @property
    def cookies(self) -> httpx.Cookies:
        return self._client.cookies

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, fields: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """Posts a form without its token unless it is given."""
        return self.ask("POST", path, data=fields or {}, **more)

    def token(self, path: str) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get(path).text)
        assert found is not None, path
        return found[1]

    def fill(self, page: str, fields: dict[str, Any], action: str = "") -> httpx.Response:
        """Opens a page and posts its form."""
        return self.post(action or page, {"csrf": self.token(page), **fields})

    def sign_in(self, name: str = "weber", password: str = PASSWORD) -> httpx.Response:
        return self.fill("/sign-in", {"name": name, "password": password})

    def close(self) -> None:
        self._runner.run(self._client.aclose())


class Site:
    """A facility with pages."""

    def __init__(self, ledger: Path, sign_in: dict[str, Any], host: str, hasher: PasswordHasher) -> None:
        document = {
            "facility": {"code": "S-001", "name": "Synthetic Hospital <Radiology>", "time_zone": "Europe/Berlin"},
            "sources": [{"name": "export", "kind": "files", "paths": ["none.ndjson"]}],
            "sign_in": sign_in,
        }
        self.config = Config.model_validate(document)
        self.clock = Clock()
        self.passwords = Passwords(hasher)
        self.ledger: Ledger = open_ledger(LedgerConfig(path=ledger))
        self.web = Web(self.config, self.ledger, host=host, passwords=self.passwords, clock=self.clock)
        self.app = FastAPI(openapi_url=None)
        self.web.install(self.app)
        self._add_pages()
        self._runner = asyncio.Runner()
        self._browsers: list[Browser] = []
        self._origin = self.config.sign_in.origin if self.config.sign_in is not None else ""

    def _add_pages(self) -> None:
        reviewers, anybody = Depends(self.web.person("reviewer")), Depends(self.web.person())

        @self.app.get("/")
        def first(request: Request, person: Person = anybody) -> Response:
            return self.web.render(request, "password.html", person, problem="", shortest=12)

        @self.app.get("/cases")
        def cases(person: Person = reviewers) -> Response:
            return Response(f"cases for {person.account}: {person.role_text}")

        @self.app.post("/cases")
        async def save(request: Request, person: Person = reviewers) -> Response:
            return Response(await request.body())

        @self.app.get("/loose")
        def loose(request: Request) -> Response:
            return self.web.render(request, "password.html", Person("a", "b", frozenset()), problem="", shortest=12,
                                   csp={"style-src": "'self' 'nonce-{nonce}'"})  # fmt: skip

        @self.app.get("/broken")
        def broken() -> Response:
            raise ValueError("Erika Mustermann")

    def account(self, name: str, *roles: Role, password: str = PASSWORD, one_time: bool = False) -> None:
        hashed = self.passwords.hash(password)
        with self.ledger.begin() as connection:
            add_account(
                connection, name, f"Dr. {name.title()}", hashed, roles, one_time=one_time, by=CONSOLE, at=self.clock()
            )

    def browser(self, origin: str = "") -> Browser:
        self._browsers.append(Browser(self.app, self._runner, origin or self._origin or "http://localhost"))
        return self._browsers[-1]

    def audit(self) -> list[AuditEntry]:
        with self.ledger.read() as connection:
            return list(entries(connection))

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()
        self._runner.close()
        self.ledger.close()


@pytest.fixture(scope="session")
def hasher() -> PasswordHasher:
    """As weak as argon2 can be made: tests hash often."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, to be copied: making one takes longer than most of what is tried on it."""
    path = tmp_path_factory.mktemp("blank") / "ledger.sqlite"
    open_ledger(LedgerConfig(path=path)).close()
    return path


@pytest.fixture(scope="module")
def site(
    blank: Path, hasher: PasswordHasher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Site]]:
    """Makes a site: ``site(host="0.0.0.0", public_url="https://…")``; local accounts unless ``oidc`` is given."""
    made: list[Site] = []

    def make(host: str = "127.0.0.1", **sign_in: Any) -> Site:
        settings = sign_in if "oidc" in sign_in else {"accounts": True, **sign_in}
        ledger = Path(shutil.copy(blank, tmp_path_factory.mktemp("site") / "ledger.sqlite"))
        made.append(Site(ledger, settings, host, hasher))
        return made[-1]

    yield make
    for one in made:
        one.close()
