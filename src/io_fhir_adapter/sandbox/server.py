"""The sandbox's FHIR R4 server: read and search over HTTP, with its faults on a switch.

It speaks FHIR like anyone else and is the test double of the whole project, so it must be right where it is not told
to be wrong. Beside the FHIR base it has endpoints of its own:

- ``GET``/``POST /_sandbox/faults``: what is switched on (a JSON object of ``Faults``);
- ``GET /_sandbox/truth``: the ground truth of the data it serves;
- ``POST /_sandbox/advance``: apply the later changes;
- ``GET /_sandbox/stats``: requests by path and status, the last requests, the most at a time;
- ``POST /auth/token``: the token endpoint, which ``.well-known/smart-configuration`` below the FHIR base names.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from io_fhir_adapter.sandbox.auth import TOKEN_PATH, WELL_KNOWN, TokenDesk
from io_fhir_adapter.sandbox.bulk import BulkExports
from io_fhir_adapter.sandbox.capability import capability_statement
from io_fhir_adapter.sandbox.faults import (
    FaultPlanner,
    Faults,
    Refusal,
    faults_from_json,
    faults_to_json,
    refuse_search,
)
from io_fhir_adapter.sandbox.paging import Cursor, Pages, Search, bundle
from io_fhir_adapter.sandbox.replies import FHIR_JSON, Reply, deliver, fhir_reply, json_reply, refused, struck
from io_fhir_adapter.sandbox.search import PARAMETERS, Query, QueryError, parse_query
from io_fhir_adapter.sandbox.store import SandboxStore, instant

__all__ = ["SandboxApp", "create_app"]

_DEFAULT_COUNT = 50
_MAX_COUNT = 1_000
_KEPT_REQUESTS = 500
_FORM = "application/x-www-form-urlencoded"
_JSON_NAMES = ("json", "application/json", "application/fhir+json", "application/fhir json")
_ACCEPTED = ("*/*", "application/*", "application/json", "application/fhir+json", "application/json+fhir")


class _Refused(Exception):  # noqa: N818 - it carries an answer, not a failure
    def __init__(self, status: int, code: str, diagnostics: str, **headers: str) -> None:
        super().__init__(diagnostics)
        self.refusal = Refusal(status, code, diagnostics, tuple(headers.items()))


class _Stats:
    """What was asked of the server and how it answered."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self.last: deque[dict[str, Any]] = deque(maxlen=_KEPT_REQUESTS)
        self.in_flight = 0
        self.most_in_flight = 0

    def enter(self) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def leave(self, request: Request, path: str, status: int, fault: str) -> None:
        self.in_flight -= 1
        self.counts[path, status] += 1
        self.last.append(
            {
                "method": request.method,
                "path": request.url.path,
                "query": request.url.query,
                "status": status,
                "fault": fault,
                "authorization": "authorization" in request.headers,
                "gzip": "gzip" in request.headers.get("accept-encoding", ""),
            }
        )

    def as_json(self) -> dict[str, Any]:
        by_path: dict[str, dict[str, int]] = {}
        for (path, status), count in sorted(self.counts.items()):
            by_path.setdefault(path, {})[str(status)] = count
        requests = {"total": sum(self.counts.values()), "by_path": by_path, "last": list(self.last)}
        return {"requests": requests, "most_in_flight": self.most_in_flight}


class SandboxApp:
    """The ASGI application; ``planner.switch`` and ``store`` change it while it runs.

    Args:
        store: The data.
        faults: What is switched on from the start.
        base_path: Where the FHIR base lies.
        truth: What ``/_sandbox/truth`` shows.
        truth_later: What it shows after ``/_sandbox/advance``.
    """

    def __init__(
        self,
        store: SandboxStore,
        faults: Faults,
        *,
        base_path: str,
        truth: Mapping[str, Any] | None,
        truth_later: Mapping[str, Any] | None,
    ) -> None:
        self.store = store
        self.planner = FaultPlanner(faults)
        self._base_path = "/" + base_path.strip("/")
        self._truth = truth
        self._truth_later = truth_later
        self._pages = Pages()
        self._bulk = BulkExports(self.planner, lambda: self.store, self._base_path)
        self._stats = _Stats()
        self.desk = TokenDesk(lambda: self.planner.faults.auth)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive)
            path = request.url.path
            if path == self._base_path or path.startswith(f"{self._base_path}/"):
                await self._serve_fhir(request, send)
            else:
                is_token = path == TOKEN_PATH
                reply = await (self.desk.token(request, _origin(request)) if is_token else self._sandbox(request))
                await deliver(reply, receive, send, accept_gzip=False, fault=None)

    async def _serve_fhir(self, request: Request, send: Send) -> None:
        parts = [part for part in request.url.path.removeprefix(self._base_path).split("/") if part]
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        status, struck_by = 0, ""
        self._stats.enter()
        try:
            is_open = parts in (["metadata"], WELL_KNOWN) or self._bulk.is_open(request, parts)
            authorization = request.headers.get("authorization", "")
            refusal = self.planner.before(
                target=target,
                authorization=authorization,
                is_metadata=is_open,
                in_flight=self._stats.in_flight,
            )
            if refusal is None and not is_open:
                refusal = self.desk.refusal(authorization)
            fault = None
            if refusal is not None:
                reply = refused(refusal)
            else:
                await asyncio.sleep(self.planner.faults.latency_s)
                reply = await self._answer(request, parts)
                fault = self.planner.after(page=reply.page, resource_type=reply.resource_type, target=target)
            if fault is not None:
                struck_by = fault.kind
                if fault.kind == "gone":
                    self._pages.forget(reply.search)
                reply = refused(self.planner.error(fault.status)) if fault.kind == "error" else struck(reply, fault)
            status = reply.status
            gzip = "gzip" in request.headers.get("accept-encoding", "")
            await deliver(reply, request.receive, send, accept_gzip=gzip, fault=fault)
        finally:
            self._stats.leave(request, _pattern(self._base_path, parts), status, struck_by)

    async def _answer(self, request: Request, parts: list[str]) -> Reply:
        if parts == WELL_KNOWN:
            return self.desk.configuration(_origin(request))
        if self._bulk.is_meant(parts):
            return await self._bulk.answer(request, parts, _origin(request))
        try:
            _negotiate(request)
            return await self._route(request, parts)
        except _Refused as exc:
            return refused(exc.refusal)

    async def _route(self, request: Request, parts: list[str]) -> Reply:
        if request.method == "GET" and (not parts or "_getpages" in request.query_params):
            return self._page(request)
        match parts, request.method:
            case ["metadata"], "GET":
                return self._metadata(request)
            case [resource_type], "GET":
                return self._search(request, self._known(resource_type), _pairs(request.url.query))
            case [resource_type, "_search"], "POST":
                return await self._post_search(request, self._known(resource_type))
            case [resource_type, resource_id], "GET" if resource_id != "_search":
                return self._read(self._known(resource_type), resource_id)
        if len(parts) > 2:
            raise _Refused(404, "not-found", "there is nothing at this path")
        allow = "POST" if parts[1:] == ["_search"] else "GET"
        raise _Refused(405, "not-supported", f"{request.method} is not supported here", Allow=allow)

    def _known(self, resource_type: str) -> str:
        if resource_type not in PARAMETERS and resource_type not in self.store.types:
            raise _Refused(404, "not-supported", f"the type or operation {resource_type!r} is not known here")
        return resource_type

    def _metadata(self, request: Request) -> Reply:
        base = _origin(request) + self._base_path
        unsupported = self.planner.faults.unsupported_parameters
        return fhir_reply(200, capability_statement(self.store.types, base, instant(self.store.now()), unsupported))

    def _read(self, resource_type: str, resource_id: str) -> Reply:
        row = self.store.read(resource_type, resource_id)
        if row is None:
            if self.store.is_gone(resource_type, resource_id):
                raise _Refused(410, "deleted", f"this {resource_type} was deleted")
            raise _Refused(404, "not-found", f"there is no {resource_type} with this id")
        headers = {"Content-Type": FHIR_JSON, "ETag": f'W/"{row.version}"'}
        if row.updated is not None:
            moment = datetime.fromtimestamp(row.updated // 1_000_000, UTC)
            headers["Last-Modified"] = format_datetime(moment, usegmt=True)
        return Reply(200, row.body, headers, resource_type=resource_type)

    async def _post_search(self, request: Request, resource_type: str) -> Reply:
        if self.planner.faults.posted_searches == "refused":
            raise _Refused(405, "not-supported", "searches are taken by GET alone", Allow="GET")
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != _FORM:
            raise _Refused(415, "not-supported", f"_search takes {_FORM}")
        try:
            text = (await request.body()).decode()
        except UnicodeDecodeError as exc:
            raise _Refused(400, "invalid", "the form is not UTF-8") from exc
        form = [] if self.planner.faults.posted_searches == "ignored" else _pairs(text)
        return self._search(request, resource_type, _pairs(request.url.query) + form)

    def _search(self, request: Request, resource_type: str, pairs: list[tuple[str, str]]) -> Reply:
        faults = self.planner.faults
        origin = _origin(request)
        heeded = [(name, value) for name, value in pairs if name.partition(":")[0] not in faults.ignored_parameters]
        read = [(name, _of_nobody(value)) for name, value in heeded] if faults.bare_ids else heeded
        try:
            query = parse_query(
                resource_type,
                read,
                base=origin + self._base_path,
                zone=self.store.zone,
                unsupported=faults.unsupported_parameters,
                lists=not faults.no_lists,
                most=faults.max_list,
            )
        except QueryError as exc:
            raise _Refused(400, exc.code, str(exc)) from exc
        strict = "handling=strict" in request.headers.get("prefer", "").replace(" ", "")
        refusal = refuse_search(faults, resource_type, heeded, query.unknown, strict=strict)
        if refusal is not None:
            return refused(refusal)
        if faults.ignored_in_self:
            query = replace(query, used=tuple(pairs))
        rows = self.store.select(query, unparseable=faults.broken_json_pages)
        warning = f"not understood and left out: {', '.join(sorted(set(query.unknown)))}" if query.unknown else ""
        search = Search(query, rows, _page_size(query, faults), warning)
        reply = bundle(search, Cursor(), self.store, faults, origin=origin, base_path=self._base_path)
        if search.cursors:
            self._pages.keep(search)
        return reply

    def _page(self, request: Request) -> Reply:
        token = request.query_params.get("_getpages", "")
        if not token:
            raise _Refused(400, "not-supported", "searches over all types are not supported; name a type")
        found = self._pages.find(token)
        if found is None:
            raise _Refused(410, "expired", "the search has expired, start it again")
        search, cursor = found
        origin = _origin(request)
        return bundle(search, cursor, self.store, self.planner.faults, origin=origin, base_path=self._base_path)

    async def _sandbox(self, request: Request) -> Reply:
        status = 200
        content: dict[str, Any]
        match request.url.path, request.method:
            case "/_sandbox/faults", "GET":
                content = faults_to_json(self.planner.faults)
            case "/_sandbox/faults", "POST":
                try:
                    self.planner.switch(faults_from_json(await request.body()))
                    content = faults_to_json(self.planner.faults)
                except ValueError as exc:
                    status, content = 400, {"error": str(exc)}
            case "/_sandbox/truth", "GET" if self._truth is not None:
                content = dict(self._truth)
            case "/_sandbox/advance", "POST":
                content = {"applied": self.store.apply_later()}
                self._truth = self._truth if self._truth_later is None else self._truth_later
            case "/_sandbox/stats", "GET":
                content = self._stats.as_json()
            case _:
                status, content = 404, {"error": f"there is nothing here; the FHIR base is at {self._base_path}"}
        return json_reply(status, content)


async def _lifespan(receive: Receive, send: Send) -> None:
    for expected in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{expected}.complete"})


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}"


def _of_nobody(value: str) -> str:
    """A list of values without the patients who are named with their type."""
    return ",".join("nobody" if part.startswith("Patient/") else part for part in value.split(","))


def _pairs(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True)


def _pattern(base_path: str, parts: list[str]) -> str:
    shown = [*parts[:1], "{id}", *parts[2:]] if len(parts) > 1 and parts[1] != "_search" else parts
    return "/".join([base_path, *shown])


def _negotiate(request: Request) -> None:
    """Refuse a client that wants something else than JSON.

    Raises:
        _Refused: 406.
    """
    wanted = request.query_params.get("_format")
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")]
    fits = wanted in _JSON_NAMES if wanted else any(one in _ACCEPTED for one in accepted)
    if not fits:
        raise _Refused(406, "not-supported", "this server speaks application/fhir+json alone")


def _page_size(query: Query, faults: Faults) -> int:
    asked = _DEFAULT_COUNT if query.count is None else query.count
    return min(asked, faults.max_page_size or _MAX_COUNT)


def create_app(
    store: SandboxStore,
    faults: Faults | None = None,
    *,
    base_path: str = "/fhir",
    truth: Mapping[str, Any] | None = None,
    truth_later: Mapping[str, Any] | None = None,
) -> SandboxApp:
    """The sandbox server as an ASGI application, to be the outermost one under uvicorn.

    Args:
        store: The data.
        faults: What is switched on from the start; nothing when omitted.
        base_path: Where the FHIR base lies.
        truth: The ground truth, shown at ``/_sandbox/truth``.
        truth_later: The ground truth after ``/_sandbox/advance``.
    """
    return SandboxApp(store, faults or Faults(), base_path=base_path, truth=truth, truth_later=truth_later)
