"""A finished answer of the sandbox, and how it leaves: whole, compressed, or struck by a fault."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from starlette.types import Receive, Send

from io_fhir_adapter.sandbox.faults import PageFault, Refusal

__all__ = ["FHIR_JSON", "Reply", "deliver", "fhir_reply", "json_reply", "outcome", "refused", "struck"]

FHIR_JSON = "application/fhir+json; charset=utf-8"
_GZIP_FROM = 1_000
_DRIP_PIECES = 20
_ODD = b'{"_odd":["a \x01 b\tc","half \\ud83d",NaN],'
_SPOILT: Mapping[str, Callable[[bytes], bytes]] = {
    "truncated": lambda body: body[: len(body) // 2],
    "empty": lambda _: b"",
    "byte-order-mark": lambda body: b"\xef\xbb\xbf" + body,
    "odd-json": lambda body: body.replace(b"{", _ODD, 1),
}
_LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>Sign in</form></body></html>"


@dataclass(frozen=True)
class Reply:
    """An answer; ``page`` and ``resource_type`` say what it is about, ``search`` which search it belongs to."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    page: int = 0
    resource_type: str = ""
    search: str = ""


def json_reply(status: int, content: Any) -> Reply:
    """Plain JSON, as the sandbox's own endpoints speak."""
    return Reply(status, msgspec.json.encode(content), {"Content-Type": "application/json"})


def fhir_reply(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """A FHIR resource."""
    return Reply(status, msgspec.json.encode(content), {"Content-Type": FHIR_JSON, **(headers or {})})


def outcome(severity: str, code: str, diagnostics: str) -> dict[str, Any]:
    """An OperationOutcome of one issue."""
    issue = {"severity": severity, "code": code, "diagnostics": diagnostics}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def refused(refusal: Refusal) -> Reply:
    """The answer to a refused request."""
    content = outcome("error", refusal.code, refusal.diagnostics)
    return fhir_reply(refusal.status, content, dict(refusal.headers))


def struck(reply: Reply, fault: PageFault) -> Reply:
    """What a fault makes of a finished answer; cuts and drips change only how it is delivered."""
    if fault.kind in _SPOILT:
        return replace(reply, body=_SPOILT[fault.kind](reply.body))
    match fault.kind:
        case "html":
            return replace(reply, status=200, body=_LOGIN_PAGE, headers={"Content-Type": "text/html; charset=utf-8"})
        case "wrong-content-type":
            return replace(reply, headers={**reply.headers, "Content-Type": "text/plain; charset=utf-8"})
        case "outcome":
            other = fhir_reply(200, outcome("error", "timeout", "the search took too long"))
        case "gone":
            other = fhir_reply(410, outcome("error", "expired", "the search has expired, start it again"))
        case _:
            return reply
    return replace(other, page=reply.page, resource_type=reply.resource_type)


async def deliver(reply: Reply, receive: Receive, send: Send, *, accept_gzip: bool, fault: PageFault | None) -> None:
    """Send an answer, the way a fault wants it."""
    if fault is not None and fault.kind == "cut-headers":
        await _cut(receive, send)
        return
    body = reply.body
    headers = {**reply.headers, "Vary": "Accept, Accept-Encoding"}
    kind = fault.kind if fault is not None else ""
    if kind == "cut-lines":
        body = body[: body.rfind(b"\n", 0, len(body) // 2) + 1]
    elif kind == "cut-gzip" or (accept_gzip and len(body) >= _GZIP_FROM):
        body = await asyncio.to_thread(gzip.compress, body, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    if kind == "cut-gzip":
        body = body[: len(body) // 2]
    if kind in {"no-length", "cut-lines"}:
        await _unbounded(reply.status, headers, body, receive, send)
        return
    if kind != "no-end":
        headers["Content-Length"] = str(len(body))
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    if fault is not None and fault.kind == "cut-body":
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await _cut(receive, send)
        return
    if kind == "no-end":
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await _cut(receive, send)
        return
    if fault is not None and fault.kind == "drip":
        starts = range(0, len(body), max(1, -(-len(body) // _DRIP_PIECES)))
        for start in starts:
            await asyncio.sleep(fault.seconds / len(starts))
            await send({"type": "http.response.body", "body": body[start : start + starts.step], "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body})


async def _unbounded(status: int, headers: Mapping[str, str], body: bytes, receive: Receive, send: Send) -> None:
    """An answer of HTTP/1.0, which ends with the connection; the server itself would send chunks."""
    lines = [f"HTTP/1.0 {status} sent", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    _transport(send).write("\r\n".join(lines).encode("latin-1") + body)
    await _cut(receive, send)


async def _cut(receive: Receive, send: Send) -> None:
    """End the connection under the answer."""
    _transport(send).close()
    while (await receive())["type"] != "http.disconnect":
        continue


def _transport(send: Send) -> Any:
    """The socket of the answer, for what ASGI has no word for: taken from the server (uvicorn) whose method it is.

    Raises:
        RuntimeError: The application runs under another server.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("connections can only be cut under uvicorn, with the sandbox as the outermost application")
    return transport
