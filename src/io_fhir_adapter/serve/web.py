"""The pages' shell: templates with the words of the request's language, who is signed in, assets, refusals in words.

Every router of the pages is given one :class:`Web`. A page asks it for the person (``person``), and has it make the
answer (``render``)::

    reader = Depends(web.person("viewer", "reviewer"))

    @router.get("/cases")
    def cases(request: Request, person: Person = reader) -> HTMLResponse:
        return web.render(request, "cases.html", person, rows=rows)

(as a default and not inside ``Annotated``, for FastAPI does not see the variables around a function there). A template
has ``person`` and what :mod:`io_fhir_adapter.look.shell` gives to all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.config import Config
from io_fhir_adapter.config.http import is_loopback_host
from io_fhir_adapter.errors import AdapterError, ConfigError, UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.sign_ins import Limits, find_sign_in, touch_sign_in
from io_fhir_adapter.logs import log
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.look.shell import Shell, came_from
from io_fhir_adapter.look.walls import Cookies, RefusedError, Walls
from io_fhir_adapter.serve.administration import administration_router
from io_fhir_adapter.serve.oidc import CALLBACK
from io_fhir_adapter.serve.people import Person, Role
from io_fhir_adapter.serve.signin import sign_in_router

__all__ = ["NavItem", "Web"]

_HERE: Final = Path(__file__).parent
_NOTED_EVERY: Final = timedelta(seconds=30)  # a request is noted at most so often: noting one is a write


@dataclass(frozen=True, slots=True)
class NavItem:
    """An entry of the navigation.

    Attributes:
        key: The text, below ``nav`` in the words.
        path: Where it leads.
        roles: Who sees it; everybody with any role where it is empty.
    """

    key: str
    path: str
    roles: tuple[Role, ...] = ()


class _SignInFirstError(Exception):
    """Nobody is signed in, or not any more."""


class _NewPasswordFirstError(Exception):
    """The person signed in with a one-time password."""


_REFUSALS: Final[tuple[type[Exception], ...]] = (
    HTTPException, RequestValidationError, RefusedError, _SignInFirstError, _NewPasswordFirstError, AdapterError,
)  # fmt: skip


class Web:
    """The shell of the pages.

    Args:
        config: The facility's configuration, with ``sign_in``.
        ledger: Its ledger.
        host: The address that the service listens on: decides on the cookies where ``public_url`` does not.
        passwords: Another hashing of passwords, for tests.
        clock: What time it is, for tests.

    Attributes:
        sign_in: The section of the configuration.
        shell: Templates, words and assets.
        navigation: The entries of the navigation, in their order; a router puts its own among them.

    Raises:
        ConfigError: The configuration has no ``sign_in``, or the provider's secret cannot be read.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        *,
        host: str = "127.0.0.1",
        passwords: Passwords | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.now = clock
        self._passwords = passwords or Passwords()
        if config.sign_in is None:
            raise ConfigError("nobody could sign in", where="sign_in", do="add the section", number=40)
        self.sign_in = config.sign_in
        public = self.sign_in.public_url
        self.cookies = Cookies(public.scheme == "https" if public is not None else not is_loopback_host(host))
        self.limits = Limits(
            timedelta(minutes=self.sign_in.session_idle_minutes), timedelta(hours=self.sign_in.session_hours)
        )
        self.navigation = [
            NavItem("report", "/report"),
            NavItem("accounts", "/accounts", ("administrator",)),
            NavItem("audit", "/audit", ("administrator",)),
        ]
        self.shell = Shell(_HERE, self.cookies)
        self.shell.environment.globals.update(
            facility=config.facility.name or config.facility.code,
            programme=load_programme(config.programme).title,
        )
        self._zone = zone(config.facility.time_zone)
        self.shell.environment.filters["moment"] = self._moment

    def install(self, app: FastAPI) -> None:
        """Puts the shell around an application: the walls, the assets, the pages for signing in, refusals in words."""
        app.include_router(sign_in_router(self, self._passwords))
        app.include_router(administration_router(self, self._passwords))
        app.add_middleware(Walls, cookies=self.cookies, origin=self.sign_in.origin, refuse=self.refusal)
        for kind in _REFUSALS:
            app.add_exception_handler(kind, self.refusal)
        app.add_api_route("/assets/{digest}/{name:path}", self.shell.assets.answer, methods=["GET"])

    def person(self, *roles: Role) -> Callable[[Request], Person]:
        """A dependency that gives who is signed in and has at least one of the roles (any role where none is named).

        Whoever is not signed in is sent to the sign-in page, whoever has none of the roles sees a page that says so.
        """

        def dependency(request: Request) -> Person:
            person = self.someone(request)
            if person.one_time:
                raise _NewPasswordFirstError
            if not person.has(*roles):
                raise RefusedError(HTTPStatus.FORBIDDEN, "role" if person.roles else "no_roles")
            return person

        return dependency

    def someone(self, request: Request) -> Person:
        """Who is signed in, even with a one-time password that is to be changed; else the sign-in page."""
        person = self.who(request)
        if person is None:
            raise _SignInFirstError
        return person

    def who(self, request: Request) -> Person | None:
        """Who is signed in, whatever they may do; the request is noted, so that the session goes on."""
        secret = request.cookies.get(self.cookies.session, "")
        if not secret:
            return None
        now = self.now()
        with self.ledger.read() as connection:
            found = find_sign_in(connection, secret, now, self.limits)
        if found is None:
            return None
        if now - found.seen >= _NOTED_EVERY:
            with self.ledger.begin() as connection:
                touch_sign_in(connection, secret, now)
        return Person(found.account, found.display, found.roles, found.one_time)

    def render(
        self,
        request: Request,
        template: str,
        person: Person | None = None,
        status: int = 200,
        *,
        csp: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """A page.

        Args:
            request: What is answered.
            template: Its file under ``templates``.
            person: Who is signed in.
            status: The HTTP status.
            csp: Directives of the Content-Security-Policy in place of the strict ones, such as
                ``{"style-src": "'self' 'unsafe-inline'"}``.
            values: What the template shows.
        """
        # the switch of languages never leads back to the code that a provider sent
        here = {"here": quote("/sign-in")} if request.url.path == CALLBACK else {}
        own = {"person": person, "navigation": self._navigation_of(person), **here}
        return self.shell.render(request, template, status, csp=csp, **own, **values)

    def _navigation_of(self, person: Person | None) -> list[NavItem]:
        if person is None or person.one_time:
            return []
        return [item for item in self.navigation if person.has(*item.roles)]

    def refusal(self, request: Request, exc: Exception) -> Response:
        """What is shown instead of a page that was refused or failed; JSON where a script asked."""
        if isinstance(exc, _SignInFirstError):
            return self._sent_to(request, f"/sign-in?next={quote(_path_to_come_back_to(request), safe='')}")
        if isinstance(exc, _NewPasswordFirstError):
            return self._sent_to(request, "/password")
        status, reason, code = _told(exc)
        if _wants_json(request):
            return JSONResponse({"error": reason or str(status), "code": code}, status_code=status)
        return self.render(request, "error.html", self._who_if_known(request, status), status, reason=reason, code=code)

    def _moment(self, text: str) -> str:
        """A time of the ledger as people here read it: local, to the second."""
        return datetime.fromisoformat(text).astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def _who_if_known(self, request: Request, status: int) -> Person | None:
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return None  # the ledger may be what failed
        return self.who(request)

    def _sent_to(self, request: Request, path: str) -> Response:
        if _wants_json(request):
            return JSONResponse({"error": "sign-in", "location": path}, status_code=HTTPStatus.UNAUTHORIZED)
        return RedirectResponse(path, HTTPStatus.SEE_OTHER)


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "text/html" not in accept and ("json" in accept or "x-csrf-token" in request.headers)


def _path_to_come_back_to(request: Request) -> str:
    """The page that was asked for; a form that was posted is gone, so its page's own address is not gone back to."""
    return came_from(request) if request.method == "GET" else "/"


def _told(exc: Exception) -> tuple[int, str, str]:
    """Status, reason and stable code of what is refused."""
    if isinstance(exc, RefusedError):
        return exc.status, exc.reason, ""
    if isinstance(exc, HTTPException):
        return exc.status_code, "", ""
    if isinstance(exc, RequestValidationError):
        return int(HTTPStatus.BAD_REQUEST), "", ""
    if isinstance(exc, UsageError):
        return int(HTTPStatus.BAD_REQUEST), "", exc.code
    if isinstance(exc, AdapterError):
        log.error("page failed", code=exc.code)
        return int(HTTPStatus.INTERNAL_SERVER_ERROR), "", exc.code
    log.error("page failed", exception=type(exc).__name__)
    return int(HTTPStatus.INTERNAL_SERVER_ERROR), "", ""
