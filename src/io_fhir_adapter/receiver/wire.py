"""The receiver's side of the wire: bodies within limits, strict JSON, refusals as OperationOutcomes."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["FHIR_JSON", "Issue", "Limits", "RefusedError", "operation_outcome", "parse_json", "read_body"]

FHIR_JSON: Final = "application/fhir+json"
_JSON_TYPES: Final = frozenset({FHIR_JSON, "application/json"})
_GZIP_WINDOW: Final = 31


@dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes of the body after decompression, levels of nesting, entries of a Bundle."""

    body_bytes: int = 20 * 1024 * 1024
    depth: int = 40
    entries: int = 2000


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


async def read_body(chunks: AsyncIterator[bytes], content_type: str, encoding: str, limits: Limits) -> bytes:
    """The request body, decompressed.

    Raises:
        RefusedError: 415 for another media type or encoding, 413 beyond the limit, 400 for broken gzip.
    """
    if content_type.partition(";")[0].strip().lower() not in _JSON_TYPES:
        raise RefusedError(415, Issue("not-supported", f"send {FHIR_JSON}"))
    coding = encoding.strip().lower() or "identity"
    if coding not in ("identity", "gzip"):
        raise RefusedError(415, Issue("not-supported", "send the body plain or with Content-Encoding gzip"))
    inflater = zlib.decompressobj(_GZIP_WINDOW) if coding == "gzip" else None
    body = bytearray()
    async for chunk in chunks:
        body += _inflate(inflater, chunk, limits.body_bytes + 1 - len(body)) if inflater else chunk
        if len(body) > limits.body_bytes:
            raise RefusedError(413, Issue("too-long", f"the body is larger than {limits.body_bytes} bytes"))
    if inflater and (not inflater.eof or inflater.unused_data):
        raise RefusedError(400, Issue("structure", "the gzip stream is cut short or followed by something else"))
    return bytes(body)


def _inflate(inflater: Any, chunk: bytes, room: int) -> bytes:
    """At most ``room`` bytes of what ``chunk`` holds: a small body may unfold to gigabytes."""
    try:
        data: bytes = inflater.decompress(inflater.unconsumed_tail + chunk, room)
    except zlib.error as exc:
        raise RefusedError(400, Issue("structure", "the gzip stream is damaged")) from exc
    return data


def parse_json(body: bytes, limits: Limits) -> dict[str, Any]:
    """The JSON object in ``body``: UTF-8, no repeated names, no NaN, not deeper than allowed.

    Raises:
        RefusedError: 400, the body is anything else.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
        too_deep = _deeper_than(value, limits.depth)
    except RecursionError as exc:
        raise RefusedError(400, Issue("structure", "the JSON is nested too deeply")) from exc
    except ValueError as exc:
        raise RefusedError(400, Issue("structure", "the body is not JSON in UTF-8, or names an element twice")) from exc
    if too_deep:
        raise RefusedError(400, Issue("structure", f"the JSON is nested deeper than {limits.depth} levels"))
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


def _deeper_than(value: Any, depth: int) -> bool:
    """Whether objects and arrays nest deeper; also raises ValueError for text that has no UTF-8 form."""
    level = [value]
    for _ in range(depth + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                item.encode("utf-8")
        if not below:
            return False
        level = below
    return True
