"""What the receiver answers: FHIR resources, and an OperationOutcome for everything that it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.receiver.store import EntryResult, StoredResource
from io_fhir_adapter.receiver.wire import FHIR_JSON, Issue, RefusedError, operation_outcome

__all__ = [
    "PLAIN_HEADERS",
    "fault_answer",
    "fhir_answer",
    "http_answer",
    "json_bytes",
    "refusal_answer",
    "resource_answer",
    "retry_after",
    "transaction_response",
]

# Nobody may take what was sent for a page of ours, nor keep it in a cache.
PLAIN_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
"""The headers of everything that is no page."""

_ISSUE_OF_STATUS: Final = {404: "not-found", 405: "not-supported"}


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """The content as it is sent."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def fhir_answer(resource: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A resource as an answer."""
    own = {**PLAIN_HEADERS, **(headers or {})}
    return Response(json_bytes(resource), status_code=status, media_type=FHIR_JSON, headers=own)


def resource_answer(stored: StoredResource | None, request: Request) -> Response:
    """A stored resource, or 304 where the client has it.

    Raises:
        RefusedError: 404, there is none.
    """
    if stored is None:
        raise RefusedError(404, Issue("not-found", "there is no such resource"))
    etag = f'W/"{stored.version}"'
    if request.headers.get("if-none-match", "").strip() == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return fhir_answer(stored.content, headers={"ETag": etag})


def transaction_response(results: tuple[EntryResult, ...]) -> dict[str, Any]:
    """The ``transaction-response`` Bundle that says what became of each entry."""
    return {
        "resourceType": "Bundle",
        "type": "transaction-response",
        "entry": [{"response": _entry_response(result)} for result in results],
    }


def _entry_response(result: EntryResult) -> dict[str, Any]:
    return {
        "status": f"{result.status} {HTTPStatus(result.status).phrase}",
        "location": f"{result.kind}/{result.id}/_history/{result.version}",
        "etag": f'W/"{result.version}"',
        "lastModified": result.updated,
    }


def retry_after(seconds: float) -> dict[str, str]:
    """The header that asks to wait, in whole seconds."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def refusal_answer(_request: Request | None, exc: Exception) -> Response:
    """The answer to a request that was refused."""
    if not isinstance(exc, RefusedError):
        raise exc
    return fhir_answer(operation_outcome(exc.issues), exc.status, exc.headers)


def http_answer(_request: Request, exc: Exception) -> Response:
    """The answer where there is no such path or method."""
    if not isinstance(exc, HTTPException):
        raise exc
    issue = Issue(_ISSUE_OF_STATUS.get(exc.status_code, "processing"), HTTPStatus(exc.status_code).phrase)
    return fhir_answer(operation_outcome((issue,)), exc.status_code, exc.headers)


def fault_answer(_request: Request, _exc: Exception) -> Response:
    """A fault of ours: said so, without its trace. The server logs the exception."""
    return fhir_answer(operation_outcome((Issue("exception", "the endpoint has a fault; send again later"),)), 500)
