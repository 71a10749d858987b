"""The receiver's side of the wire: bodies within limits, strict JSON, refusals as OperationOutcomes."""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from io_fhir_adapter.receiver.rates import Rate

__all__ = [
    "CODE",
    "FHIR_JSON",
    "Issue",
    "Limits",
    "RefusedError",
    "base_of",
    "operation_outcome",
    "parse_json",
    "read_body",
    "read_request",
]

FHIR_JSON: Final = "application/fhir+json"
CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What the code of a facility or programme looks like."""
JSON_TYPES: Final = frozenset({FHIR_JSON, "application/json"})
_LENGTH_DIGITS: Final = 18
_GZIP_WINDOW: Final = 31
_MOST: Final = 2**53 - 1  # beyond, other readers of JSON see another number
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # not allowed in a FHIR string


_RATES: Final = {
    "address": Rate(burst=600, per_s=60),
    "facility": Rate(burst=300, per_s=30),
    "failure": Rate(burst=20, per_s=0.2),
}


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        body_bytes: Of the body after decompression.
        depth: Levels of nesting.
        entries: Of a Bundle.
        string_chars: Of one string or name in the JSON.
        header_bytes: Of all headers together.
        target_bytes: Of path and query.
        body_s: Seconds until the body has to be there.
        at_once: Requests under way at one time, of everybody.
        address_rate: Requests from one network address.
        facility_rate: Requests of one facility.
        failure_rate: Failed sign-ins from one network address.
    """

    body_bytes: int = 20 * 1024 * 1024
    depth: int = 40
    entries: int = 2000
    string_chars: int = 64 * 1024
    header_bytes: int = 16 * 1024
    target_bytes: int = 4 * 1024
    body_s: float = 60.0
    at_once: int = 64
    address_rate: Rate = _RATES["address"]
    facility_rate: Rate = _RATES["facility"]
    failure_rate: Rate = _RATES["failure"]


@dataclass(frozen=True)
class Issue:
    """One issue of an OperationOutcome; ``expression`` names the element, the text holds none of its content."""

    code: str
    text: str
    expression: str = ""
    severity: str = "error"


class RefusedError(Exception):
    """A request that is answered with ``status`` and an OperationOutcome."""

    def __init__(self, status: int, *issues: Issue, headers: dict[str, str] | None = None) -> None:
        super().__init__("; ".join(issue.text for issue in issues))
        self.status = status
        self.issues = issues
        self.headers = headers or {}


def operation_outcome(issues: tuple[Issue, ...]) -> dict[str, Any]:
    """The OperationOutcome resource for ``issues``."""
    entries: list[dict[str, Any]] = []
    for issue in issues:
        entry: dict[str, Any] = {"severity": issue.severity, "code": issue.code, "diagnostics": issue.text}
        if issue.expression:
            entry["expression"] = [issue.expression]
        entries.append(entry)
    return {"resourceType": "OperationOutcome", "issue": entries}


def base_of(request: Request, base_url: str) -> str:
    """The receiver's own address, without a trailing slash: the configured one, else the one that it listens on.

    Never the Host header's: anybody may write anything there.
    """
    if base_url:
        return base_url.rstrip("/")
    host, port = request.scope.get("server") or ("localhost", None)
    return f"{request.scope['scheme']}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


async def read_request(request: Request, limits: Limits, types: Collection[str] = JSON_TYPES) -> bytes:
    """The body of a request, decompressed.

    Raises:
        RefusedError: As :func:`read_body`; 408 it came too slowly; 400 it broke off.
    """
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > _LENGTH_DIGITS or int(length) > limits.body_bytes):
        raise _too_long(limits)
    headers = request.headers
    try:
        async with asyncio.timeout(limits.body_s):
            return await read_body(
                request.stream(),
                headers.get("content-type", ""),
                headers.get("content-encoding", ""),
                limits,
                types,
            )
    except TimeoutError as exc:
        issue = Issue("timeout", f"the body did not come within {limits.body_s:g} seconds")
        raise RefusedError(408, issue, headers={"Connection": "close"}) from exc
    except ClientDisconnect as exc:
        raise RefusedError(400, Issue("structure", "the body broke off")) from exc


async def read_body(
    chunks: AsyncIterator[bytes],
    content_type: str,
    encoding: str,
    limits: Limits,
    types: Collection[str] = JSON_TYPES,
) -> bytes:
    """The request body, decompressed.

    Raises:
        RefusedError: 415 for another media type or encoding, 413 beyond the limit, 400 for broken gzip.
    """
    if content_type.partition(";")[0].strip().lower() not in types:
        raise RefusedError(415, Issue("not-supported", f"send {' or '.join(sorted(types))}"))
    coding = encoding.strip().lower() or "identity"
    if coding not in ("identity", "gzip"):
        raise RefusedError(415, Issue("not-supported", "send the body plain or with Content-Encoding gzip"))
    inflater = zlib.decompressobj(_GZIP_WINDOW) if coding == "gzip" else None
    body = bytearray()
    async for chunk in chunks:
        body += _inflate(inflater, chunk, limits.body_bytes + 1 - len(body)) if inflater else chunk
        if len(body) > limits.body_bytes:
            raise _too_long(limits)
    if inflater and (not inflater.eof or inflater.unused_data):
        raise RefusedError(400, Issue("structure", "the gzip stream is cut short or followed by something else"))
    return bytes(body)


def _too_long(limits: Limits) -> RefusedError:
    return RefusedError(413, Issue("too-long", f"the body is larger than {limits.body_bytes} bytes"))


def _inflate(inflater: Any, chunk: bytes, room: int) -> bytes:
    """At most ``room`` bytes of what ``chunk`` holds: a small body may unfold to gigabytes."""
    try:
        data: bytes = inflater.decompress(inflater.unconsumed_tail + chunk, room)
    except zlib.error as exc:
        raise RefusedError(400, Issue("structure", "the gzip stream is damaged")) from exc
    return data


def parse_json(body: bytes, limits: Limits) -> dict[str, Any]:
    """The JSON object in ``body``: UTF-8, no repeated names, and nothing in it that FHIR or its digest has no form for.

    Raises:
        RefusedError: 400, the body is anything else.
    """
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
        )
        problem = _problem(value, limits)
    except RecursionError as exc:
        raise RefusedError(400, Issue("structure", "the JSON is nested too deeply")) from exc
    except ValueError as exc:
        raise RefusedError(400, Issue("structure", "the body is not JSON in UTF-8, or names an element twice")) from exc
    if problem:
        raise RefusedError(400, Issue("structure", problem))
    if not isinstance(value, dict):
        raise RefusedError(400, Issue("structure", "the body is not a JSON object"))
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is repeated")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _problem(value: Any, limits: Limits) -> str:
    """What is wrong with a parsed document, in words; empty where nothing is. Looks level by level, so without depth.

    Raises:
        ValueError: A text has no UTF-8 form.
    """
    level = [value]
    for _ in range(limits.depth + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                item.encode("utf-8")
                if len(item) > limits.string_chars:
                    return f"a string is longer than {limits.string_chars} characters"
                if _CONTROL.search(item):
                    return "a string holds a control character"
            elif isinstance(item, int) and abs(item) > _MOST:
                return "a number is too large"
        if not below:
            return ""
        level = below
    return f"the JSON is nested deeper than {limits.depth} levels"
