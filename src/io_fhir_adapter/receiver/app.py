"""The reference accreditation endpoint: a narrow, strict FHIR R4 server over HTTP.

It takes submissions (``POST /fhir``), gives the nonce for a frame that is announced (``PUT /fhir/Group?identifier=…``),
gives back what a facility stored, and shows the body one page. The interface is this project's proposal; no
accreditation body has published one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from io_fhir_adapter.receiver.capability import capability_statement
from io_fhir_adapter.receiver.checks import RESOURCE_TYPES, check_submission, parse_token
from io_fhir_adapter.receiver.draws import check_announcement
from io_fhir_adapter.receiver.faults import CutResponse, Fault, ReceiverFaults, half_refused
from io_fhir_adapter.receiver.pages import PAGE_HEADERS, Programme, overview
from io_fhir_adapter.receiver.store import EntryResult, ReceiverStore, StoredResource
from io_fhir_adapter.receiver.wire import (
    FHIR_JSON,
    Issue,
    Limits,
    RefusedError,
    operation_outcome,
    parse_json,
    read_body,
)

__all__ = ["Programme", "ReceiverFaults", "create_app"]

_SEARCH_LIMIT = 100
_LOGIN_PAGE = "<!doctype html><html><head><title>Sign in</title></head><body><form>Sign in</form></body></html>"
_ISSUE_OF_STATUS = {404: "not-found", 405: "not-supported"}


def create_app(
    store: ReceiverStore,
    *,
    programmes: Mapping[str, Programme] | None = None,
    tokens: Mapping[str, str] | None = None,
    operator_token: str | None = None,
    limits: Limits | None = None,
    faults: ReceiverFaults | None = None,
) -> FastAPI:
    """The endpoint as an ASGI application.

    Args:
        store: Where accepted submissions go.
        programmes: Code to programme; others are refused. None accepts any and knows no threshold.
        tokens: Bearer token to facility code. None opens the endpoint to everyone, each being the facility that its
            Bundle names: for demonstrations on one machine only.
        operator_token: The password (any user name) for the page where ``tokens`` are given; without it there is none.
        limits: What a request may cost.
        faults: Faults that are to happen, for tests of senders.
    """
    receiver = _Receiver(store, programmes, tokens, operator_token, limits or Limits(), faults or ReceiverFaults())
    app = FastAPI(title="io-fhir-adapter receiver", docs_url=None, redoc_url=None)
    for path in ("/fhir", "/fhir/"):
        app.add_api_route(path, receiver.transaction, methods=["POST"], include_in_schema=path == "/fhir")
    app.add_api_route("/fhir/metadata", receiver.metadata, methods=["GET"])
    app.add_api_route("/fhir/Group", receiver.announce, methods=["PUT"])
    app.add_api_route("/fhir/{kind}", receiver.search, methods=["GET"])
    app.add_api_route("/fhir/{kind}/{id_}", receiver.read, methods=["GET"])
    app.add_api_route("/fhir/{kind}/{id_}/_history/{version}", receiver.version_read, methods=["GET"])
    app.add_api_route("/", receiver.page, methods=["GET"], response_class=HTMLResponse)
    app.add_exception_handler(RefusedError, _refusal)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)
    return app


@dataclass(frozen=True)
class _Receiver:
    store: ReceiverStore
    programmes: Mapping[str, Programme] | None
    tokens: Mapping[str, str] | None
    operator_token: str | None
    limits: Limits
    faults: ReceiverFaults

    async def transaction(self, request: Request) -> Response:
        """Take one submission."""
        facility = self._facility(request)
        body = await self._body(request)
        fault = self.faults.take()
        if fault == "cut-before-storing":
            return CutResponse(b"{}", media_type=FHIR_JSON)
        early = self._early_fault(fault)
        if early is not None:
            return early
        answer = await run_in_threadpool(self._accept, body, facility, fault == "entry-errors")
        if fault == "cut-after-storing":
            return CutResponse(_bytes(answer), media_type=FHIR_JSON)
        return _fhir(answer)

    async def _body(self, request: Request) -> bytes:
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > self.limits.body_bytes:
            raise RefusedError(413, Issue("too-long", f"the body is larger than {self.limits.body_bytes} bytes"))
        return await read_body(
            request.stream(),
            request.headers.get("content-type", ""),
            request.headers.get("content-encoding", ""),
            self.limits,
        )

    async def announce(self, request: Request) -> Response:
        """Take note of a frame, and give the nonce for it."""
        facility = self._facility(request)
        group = parse_json(await self._body(request), self.limits)
        announcement = check_announcement(group, request.url.query, self.programmes)
        if facility is not None and announcement.facility != facility:
            raise RefusedError(
                403, Issue("forbidden", "the Group names another facility than the token", "Group.managingEntity")
            )
        stored, new = await run_in_threadpool(self.store.announce, announcement)
        base = f"{str(request.base_url).rstrip('/')}/fhir"
        headers = {"ETag": f'W/"{stored.version}"', "Location": f"{base}/Group/{stored.id}/_history/{stored.version}"}
        return _fhir(stored.content, 201 if new else 200, headers)

    def _early_fault(self, fault: Fault | None) -> Response | None:
        if fault == "too-many":
            raise RefusedError(
                429, Issue("throttled", "too many requests"), headers={"Retry-After": self.faults.retry_after}
            )
        if fault == "server-error":
            raise RefusedError(500, Issue("exception", "a fault by order of a test"))
        return HTMLResponse(_LOGIN_PAGE) if fault == "login-page" else None

    def _accept(self, body: bytes, facility: str | None, refuse_last: bool) -> dict[str, Any]:
        bundle = parse_json(body, self.limits)
        submission = check_submission(bundle, limits=self.limits, programmes=self.programmes)
        if facility is not None and submission.facility != facility:
            raise RefusedError(
                403, Issue("forbidden", "the submission names another facility than the token", "Bundle.entry")
            )
        if refuse_last:
            return half_refused(bundle)
        results = self.store.accept(submission)
        return {
            "resourceType": "Bundle",
            "type": "transaction-response",
            "entry": [{"response": _entry_response(result)} for result in results],
        }

    async def metadata(self) -> Response:
        """The CapabilityStatement; open to all."""
        return _fhir(capability_statement(self.store.now(), self.tokens is not None))

    def search(self, request: Request, kind: str) -> Response:
        """Find by ``identifier``, ``url`` or ``_id``: exactly one of them."""
        facility = self._facility(request)
        _known_type(kind)
        parameters = request.query_params.multi_items()
        if len(parameters) != 1 or parameters[0][0] not in ("identifier", "url", "_id") or not parameters[0][1]:
            raise RefusedError(400, Issue("not-supported", "search by identifier, url or _id, by one of them"))
        name, text = parameters[0]
        if name == "_id":
            one = self.store.read(kind, text, facility)
            found = [] if one is None else [one]
        else:
            system, value = parse_token(text) if name == "identifier" else ("", text)
            found = self.store.search(kind, name, system, value, facility, limit=_SEARCH_LIMIT + 1)
        if len(found) > _SEARCH_LIMIT:
            raise RefusedError(400, Issue("too-costly", "more matches than are given at once; name the system"))
        base = f"{str(request.base_url).rstrip('/')}/fhir"
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
        bundle["link"] = [{"relation": "self", "url": str(request.url)}]
        if found:
            bundle["entry"] = [
                {"fullUrl": f"{base}/{kind}/{item.id}", "resource": item.content, "search": {"mode": "match"}}
                for item in found
            ]
        return _fhir(bundle)

    def read(self, request: Request, kind: str, id_: str) -> Response:
        """The newest version of one resource."""
        facility = self._facility(request)
        _known_type(kind)
        return _resource(self.store.read(kind, id_, facility), request)

    def version_read(self, request: Request, kind: str, id_: str, version: str) -> Response:
        """One version of one resource."""
        facility = self._facility(request)
        _known_type(kind)
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
        return _resource(self.store.read(kind, id_, facility, number), request)

    def page(self, request: Request) -> Response:
        """The overview for the accreditation body."""
        if self.tokens is not None and not self._is_operator(request):
            return Response(
                status_code=401, headers={"WWW-Authenticate": 'Basic realm="accreditation"', **PAGE_HEADERS}
            )
        return HTMLResponse(overview(self.store.submissions(), self.programmes or {}), headers=PAGE_HEADERS)

    def _facility(self, request: Request) -> str | None:
        """The facility that the bearer token names; None where the endpoint is open."""
        if self.tokens is None:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        facility = None
        for token, owner in self.tokens.items():
            if hmac.compare_digest(token.encode(), given.strip().encode()):
                facility = owner
        if scheme.lower() != "bearer" or facility is None:
            headers = {"WWW-Authenticate": 'Bearer realm="accreditation"'}
            raise RefusedError(401, Issue("login", "send the bearer token of a registered facility"), headers=headers)
        return facility

    def _is_operator(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            _, _, password = base64.b64decode(given, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        expected = self.operator_token
        return bool(expected) and scheme.lower() == "basic" and hmac.compare_digest(password, str(expected).encode())


def _known_type(kind: str) -> None:
    if kind not in RESOURCE_TYPES and kind != "Task":
        raise RefusedError(404, Issue("not-supported", "this resource type is not kept here"))


def _entry_response(result: EntryResult) -> dict[str, Any]:
    return {
        "status": f"{result.status} {HTTPStatus(result.status).phrase}",
        "location": f"{result.kind}/{result.id}/_history/{result.version}",
        "etag": f'W/"{result.version}"',
        "lastModified": result.updated,
    }


def _resource(stored: StoredResource | None, request: Request) -> Response:
    if stored is None:
        raise RefusedError(404, Issue("not-found", "there is no such resource"))
    etag = f'W/"{stored.version}"'
    if request.headers.get("if-none-match", "").strip() == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return _fhir(stored.content, headers={"ETag": etag})


def _bytes(resource: dict[str, Any]) -> bytes:
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode()


def _fhir(resource: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # Nobody may take what was sent for a page of ours, nor keep it in a cache.
    own = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **(headers or {})}
    return Response(_bytes(resource), status_code=status, media_type=FHIR_JSON, headers=own)


def _refusal(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, RefusedError):
        raise exc
    return _fhir(operation_outcome(exc.issues), exc.status, exc.headers)


def _http_error(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    issue = Issue(_ISSUE_OF_STATUS.get(exc.status_code, "processing"), HTTPStatus(exc.status_code).phrase)
    return _fhir(operation_outcome((issue,)), exc.status_code, exc.headers)


def _fault(_request: Request, _exc: Exception) -> Response:
    """A fault of ours: said so, without its trace. The server logs the exception."""
    return _fhir(operation_outcome((Issue("exception", "the endpoint has a fault; send again later"),)), 500)
