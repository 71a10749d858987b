"""The FHIR interface over HTTP: submissions in, what a facility stored out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from io_fhir_adapter.receiver.access import Access, Caller
from io_fhir_adapter.receiver.capability import capability_statement
from io_fhir_adapter.receiver.checks import RESOURCE_TYPES, Rules, check_transaction, parse_token
from io_fhir_adapter.receiver.draws import check_announcement
from io_fhir_adapter.receiver.faults import CutResponse, Fault, ReceiverFaults, half_refused
from io_fhir_adapter.receiver.programmes import Programme
from io_fhir_adapter.receiver.responses import fhir_answer, json_bytes, resource_answer, transaction_response
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.submit_data import submitted_bundle
from io_fhir_adapter.receiver.wire import FHIR_JSON, Issue, Limits, RefusedError, base_of, parse_json, read_request

__all__ = ["Endpoint"]

Json = dict[str, Any]

_SEARCH_LIMIT: Final = 100
_SEARCHED_BY: Final = ("identifier", "url", "_id")
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LOGIN_PAGE: Final = "<!doctype html><html><head><title>Sign in</title></head><body><form>Sign in</form></body></html>"


@dataclass(frozen=True)
class Endpoint:
    """The requests that it answers.

    Attributes:
        store: Where accepted submissions go.
        access: Knows who is asking.
        programmes: Code to programme; others are refused. None accepts any.
        limits: What a request may cost.
        faults: Faults that are to happen.
        base_url: Where the receiver is reached from outside; empty for where it listens.
        require_signature: Whether what is not signed is refused also from facilities without registered keys.
        texts: Whether texts that people typed into the forms are taken.
    """

    store: ReceiverStore
    access: Access
    programmes: Mapping[str, Programme] | None
    limits: Limits
    faults: ReceiverFaults
    base_url: str
    require_signature: bool = False
    texts: bool = False

    async def transaction(self, request: Request) -> Response:
        """Take one submission, or the withdrawal of one."""
        return await self._taken(request, lambda body: body)

    async def submit_data(self, request: Request) -> Response:
        """Take one submission by the operation ``$submit-data``."""
        return await self._taken(request, submitted_bundle)

    async def _taken(self, request: Request, unwrapped: Callable[[Json], Json]) -> Response:
        caller = await self._caller(request)
        body = await read_request(request, self.limits)
        fault = self.faults.take()
        if fault == "cut-before-storing":
            return CutResponse(b"{}", media_type=FHIR_JSON)
        early = self._early_fault(fault)
        if early is not None:
            return early
        answer = await run_in_threadpool(self._accept, body, caller, unwrapped, fault == "entry-errors")
        if fault == "cut-after-storing":
            return CutResponse(json_bytes(answer), media_type=FHIR_JSON)
        return fhir_answer(answer)

    def _early_fault(self, fault: Fault | None) -> Response | None:
        if fault == "too-many":
            raise RefusedError(
                429, Issue("throttled", "too many requests"), headers={"Retry-After": self.faults.retry_after}
            )
        if fault == "server-error":
            raise RefusedError(500, Issue("exception", "a fault by order of a test"))
        return HTMLResponse(_LOGIN_PAGE) if fault == "login-page" else None

    def _accept(
        self, body: bytes, caller: Caller, unwrapped: Callable[[Json], Json], refuse_last: bool
    ) -> dict[str, Any]:
        bundle = unwrapped(parse_json(body, self.limits))
        caller.need(_kinds(bundle), "cu")
        registry = self.access.registry
        keys = registry.signing_keys if registry is not None else None
        rules = Rules(self.limits, self.programmes, keys, self.require_signature, self.texts)
        submission = check_transaction(bundle, rules)
        if caller.facility is not None and submission.facility != caller.facility:
            raise RefusedError(
                403, Issue("forbidden", "the submission names another facility than the token", "Bundle.entry")
            )
        if refuse_last:
            return half_refused(bundle)
        return transaction_response(self.store.accept(submission))

    async def announce(self, request: Request) -> Response:
        """Take note of a frame, and give the nonce for it."""
        caller = await self._caller(request)
        body = await read_request(request, self.limits)
        return await run_in_threadpool(self._announced, body, caller, request)

    def _announced(self, body: bytes, caller: Caller, request: Request) -> Response:
        group = parse_json(body, self.limits)
        announcement = check_announcement(group, request.url.query, self.programmes)
        if caller.facility is not None and announcement.facility != caller.facility:
            raise RefusedError(
                403, Issue("forbidden", "the Group names another facility than the token", "Group.managingEntity")
            )
        caller.need(("Group",), "cu")
        stored, new = self.store.announce(announcement)
        path = f"{base_of(request, self.base_url)}/fhir/Group/{stored.id}/_history/{stored.version}"
        headers = {"ETag": f'W/"{stored.version}"', "Location": path}
        return fhir_answer(stored.content, 201 if new else 200, headers)

    async def metadata(self, request: Request) -> Response:
        """The CapabilityStatement; open to all."""
        base = base_of(request, self.base_url)
        return fhir_answer(capability_statement(self.store.now(), base, self.access.registry is not None))

    def search(self, request: Request, kind: str) -> Response:
        """Find by ``identifier``, ``url`` or ``_id``: exactly one of them."""
        caller = self._known(request, kind, "s")
        parameters = [one for one in request.query_params.multi_items() if one[0] != "_format"]
        if len(parameters) != 1 or parameters[0][0] not in _SEARCHED_BY or not parameters[0][1]:
            raise RefusedError(400, Issue("not-supported", "search by identifier, url or _id, by one of them"))
        name, text = parameters[0]
        if _CONTROL.search(text):
            raise RefusedError(400, Issue("value", "what is searched for holds a control character"))
        if name == "_id":
            one = self.store.read(kind, text, caller.facility)
            found = [] if one is None else [one]
        else:
            system, value = parse_token(text) if name == "identifier" else ("", text)
            found = self.store.search(kind, name, system, value, caller.facility, limit=_SEARCH_LIMIT + 1)
        if len(found) > _SEARCH_LIMIT:
            raise RefusedError(400, Issue("too-costly", "more matches than are given at once; name the system"))
        base = f"{base_of(request, self.base_url)}/fhir"
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
        bundle["link"] = [{"relation": "self", "url": f"{base}/{kind}?{request.url.query}"}]
        if found:
            bundle["entry"] = [
                {"fullUrl": f"{base}/{kind}/{item.id}", "resource": item.content, "search": {"mode": "match"}}
                for item in found
            ]
        return fhir_answer(bundle)

    def read(self, request: Request, kind: str, id_: str) -> Response:
        """The newest version of one resource."""
        caller = self._known(request, kind, "r", id_)
        return resource_answer(self.store.read(kind, id_, caller.facility), request)

    def version_read(self, request: Request, kind: str, id_: str, version: str) -> Response:
        """One version of one resource."""
        caller = self._known(request, kind, "r", id_)
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
        return resource_answer(self.store.read(kind, id_, caller.facility, number), request)

    async def _caller(self, request: Request) -> Caller:
        return await run_in_threadpool(self.access.caller, request)

    def _known(self, request: Request, kind: str, deed: str, id_: str = "-") -> Caller:
        """Who asks, once such resources can be asked for, and by this one."""
        caller = self.access.caller(request)
        if kind not in RESOURCE_TYPES and kind != "Task":
            raise RefusedError(404, Issue("not-supported", "this resource type is not kept here"))
        if id_.startswith("$"):
            raise RefusedError(405, Issue("not-supported", "operations are posted"), headers={"Allow": "POST"})
        if not _ID.fullmatch(id_):
            raise RefusedError(404, Issue("not-found", "there is no such resource"))
        caller.need((kind,), deed)
        return caller


def _kinds(bundle: Json) -> set[str]:
    """The resource types in a Bundle that nobody has looked at yet."""
    entries = bundle.get("entry")
    resources = [one.get("resource") for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    return {str(one.get("resourceType")) for one in resources if isinstance(one, dict)}
