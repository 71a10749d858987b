"""The body's pages as one application: its routes, the walls before them, refusals in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.logs import log
from io_fhir_adapter.look.walls import RefusedError as RefusedPageError
from io_fhir_adapter.look.walls import Walls
from io_fhir_adapter.receiver.pages.case import case_router
from io_fhir_adapter.receiver.pages.exports import export_router
from io_fhir_adapter.receiver.pages.facility import facility_router
from io_fhir_adapter.receiver.pages.overview import overview_router
from io_fhir_adapter.receiver.pages.shell import Body, SignInFirstError
from io_fhir_adapter.receiver.pages.submission import submission_router
from io_fhir_adapter.receiver.programmes import Programme, published_programmes
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import RefusedError

__all__ = ["PAGE_PATHS", "body_pages"]

PAGE_PATHS: Final = (
    "/",
    "/facilities/{rest:path}",
    "/submissions",
    "/submissions/{rest:path}",
    "/exports",
    "/exports/{rest:path}",
    "/language/{rest:path}",
    "/assets/{rest:path}",
)
"""The paths that the application answers, as routes of the one that it stands in."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="accreditation", charset="UTF-8"'}


def body_pages(
    store: ReceiverStore,
    operator: Callable[[Request], str | None],
    *,
    programmes: Mapping[str, Programme] | None = None,
    names: Mapping[str, str] | None = None,
    public_url: str = "",
) -> FastAPI:
    """The pages as an ASGI application.

    Args:
        store: What facilities submitted.
        operator: Who asks, by name, out of the request; None for nobody that may look. It may raise the receiver's
            :class:`~io_fhir_adapter.receiver.wire.RefusedError`.
        programmes: Code to programme; those that ship with this project where none are given.
        names: Facility code to name.
        public_url: Where the pages are reached from outside, such as ``https://receiver.example``.
    """
    body = Body(store, published_programmes() if programmes is None else programmes, operator, names or {}, public_url)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for make in (overview_router, facility_router, submission_router, case_router, export_router):
        app.include_router(make(body))
    app.add_api_route("/assets/{digest}/{name:path}", body.shell.assets.answer, methods=["GET"])
    app.add_api_route("/language/{code}", _language_switch(body), methods=["GET"])

    def refusal(request: Request, exc: Exception) -> Response:
        return _refusal(body, request, exc)

    app.add_middleware(Walls, cookies=body.cookies, origin=body.origin, refuse=refusal)
    for kind in (SignInFirstError, RefusedPageError, RefusedError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, refusal)
    return app


def _language_switch(body: Body) -> Callable[..., Response]:
    def language(code: str, next: str = "/") -> Response:  # noqa: A002 - as it stands in the address
        return body.shell.switch_language(code, next)

    return language


def _refusal(body: Body, request: Request, exc: Exception) -> Response:
    """What is shown instead of a page that was refused or failed."""
    status, reason, headers = _told(exc)
    response = body.render(request, "error.html", status, reason=reason, code="", person="", navigation=[])
    response.headers.update(headers)
    return response


def _told(exc: Exception) -> tuple[int, str, Mapping[str, str]]:
    if isinstance(exc, SignInFirstError):
        return int(HTTPStatus.UNAUTHORIZED), "operator", _CHALLENGE
    if isinstance(exc, RefusedPageError):
        return exc.status, exc.reason, {}
    if isinstance(exc, RefusedError):
        return exc.status, "", exc.headers
    if isinstance(exc, HTTPException):
        return exc.status_code, "", {}
    if isinstance(exc, RequestValidationError):
        return int(HTTPStatus.BAD_REQUEST), "", {}
    log.error("page failed", exception=type(exc).__name__)
    return int(HTTPStatus.INTERNAL_SERVER_ERROR), "", {}
