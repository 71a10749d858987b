"""The reference accreditation endpoint: a narrow, strict FHIR R4 server over HTTP.

It takes submissions (``POST /fhir``), gives the nonce for a frame that is announced (``PUT /fhir/Group?identifier=…``),
gives back what a facility stored, grants access tokens to registered facilities, and shows the body its pages. The
interface is this project's proposal; no accreditation body has published one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from fastapi import APIRouter, Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from io_fhir_adapter.receiver.access import Access
from io_fhir_adapter.receiver.endpoint import Endpoint
from io_fhir_adapter.receiver.faults import ReceiverFaults
from io_fhir_adapter.receiver.grants import TABLES
from io_fhir_adapter.receiver.guard import Guard, wants_json
from io_fhir_adapter.receiver.openapi import openapi_document
from io_fhir_adapter.receiver.pages import PAGE_PATHS, body_pages
from io_fhir_adapter.receiver.programmes import Programme
from io_fhir_adapter.receiver.registry import Registry, registry_of_tokens
from io_fhir_adapter.receiver.responses import PLAIN_HEADERS, fault_answer, http_answer, refusal_answer
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.token_endpoint import TOKEN_PATH, TokenEndpoint
from io_fhir_adapter.receiver.wire import Limits, RefusedError

__all__ = ["Programme", "ReceiverFaults", "create_app"]

_WELL_KNOWN = "/.well-known/smart-configuration"


def create_app(
    store: ReceiverStore,
    *,
    programmes: Mapping[str, Programme] | None = None,
    registry: Registry | None = None,
    tokens: Mapping[str, str] | None = None,
    operator_token: str | None = None,
    require_signature: bool = False,
    texts: bool = False,
    base_url: str = "",
    limits: Limits | None = None,
    faults: ReceiverFaults | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The endpoint as an ASGI application.

    Args:
        store: Where accepted submissions go.
        programmes: Code to programme; others are refused. None accepts any, and knows those that ship.
        registry: Who is registered. None, and no ``tokens``, opens the endpoint to everyone, each being the facility
            that its Bundle names: for demonstrations on one machine only.
        tokens: In place of a registry: bearer token to facility code.
        operator_token: A password (any user name) for the body's pages, beside those of the registry's operators.
        require_signature: Refuse what is not signed also from facilities without registered keys.
        texts: Take texts that people typed into the forms; a body that does not ask for them refuses them.
        base_url: Where it is reached from outside, such as ``https://receiver.example``; where it listens if empty.
        limits: What a request may cost.
        faults: Faults that are to happen, for tests of senders.
        clock: Seconds since 1970, for tokens.
    """
    limits = limits or Limits()
    if registry is None and tokens is not None:
        registry = registry_of_tokens(tokens)
    with store.writing() as connection:
        TABLES.create_all(connection)
    access = Access(store, registry, operator_token, limits, clock)
    faults = faults or ReceiverFaults()
    endpoint = Endpoint(store, access, programmes, limits, faults, base_url, require_signature, texts)
    tokens_endpoint = TokenEndpoint(access, base_url, limits)
    app = FastAPI(title="io-fhir-adapter receiver", openapi_url=None, redirect_slashes=False)
    app.add_api_route("/openapi.json", _description, methods=["GET"])
    for path in (_WELL_KNOWN, f"/fhir{_WELL_KNOWN}"):
        app.add_api_route(path, tokens_endpoint.configuration, methods=["GET"])
    app.include_router(_fhir_routes(endpoint))
    app.add_api_route(TOKEN_PATH, tokens_endpoint.token, methods=["POST"])
    names = {one.code: one.name for one in registry.facilities} if registry is not None else {}
    pages = body_pages(store, access.operator, programmes=programmes, names=names, public_url=base_url)
    for path in PAGE_PATHS:
        app.router.routes.append(Route(path, endpoint=pages, include_in_schema=False))
    app.add_middleware(Guard, limits=limits)
    app.add_exception_handler(RefusedError, refusal_answer)
    app.add_exception_handler(HTTPException, http_answer)
    app.add_exception_handler(Exception, fault_answer)
    return app


def _fhir_routes(endpoint: Endpoint) -> APIRouter:
    router = APIRouter(prefix="/fhir", dependencies=[Depends(wants_json)])
    for path in ("", "/"):
        router.add_api_route(path, endpoint.transaction, methods=["POST"], include_in_schema=not path)
    router.add_api_route("/Measure/$submit-data", endpoint.submit_data, methods=["POST"])
    router.add_api_route("/metadata", endpoint.metadata, methods=["GET"])
    router.add_api_route("/Group", endpoint.announce, methods=["PUT"])
    router.add_api_route("/{kind}", endpoint.search, methods=["GET"])
    router.add_api_route("/{kind}/{id_}", endpoint.read, methods=["GET"])
    router.add_api_route("/{kind}/{id_}/_history/{version}", endpoint.version_read, methods=["GET"])
    return router


async def _description() -> Response:
    """The OpenAPI description."""
    return JSONResponse(openapi_document(), headers=PLAIN_HEADERS)
