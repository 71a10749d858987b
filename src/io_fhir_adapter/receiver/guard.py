"""The wall before everything: requests that are too large, too many, or of a client that wants no JSON."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from io_fhir_adapter.receiver.access import address_of, too_many
from io_fhir_adapter.receiver.rates import RateLimiter
from io_fhir_adapter.receiver.responses import refusal_answer, retry_after
from io_fhir_adapter.receiver.wire import FHIR_JSON, Issue, Limits, RefusedError

__all__ = ["Guard", "wants_json"]

_FORMATS = frozenset({"json", FHIR_JSON, "application/json"})
_RANGES = frozenset({FHIR_JSON, "application/json", "application/*", "*/*"})


class Guard:
    """Middleware that refuses a request by its size and rate before anything of it is looked at."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._rates = RateLimiter(limits.address_rate)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(Request(scope))
        except RefusedError as exc:
            await refusal_answer(None, exc)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1

    def _check(self, request: Request) -> None:
        limits = self._limits
        if sum(len(name) + len(value) for name, value in request.scope["headers"]) > limits.header_bytes:
            raise RefusedError(431, Issue("too-long", f"the headers are larger than {limits.header_bytes} bytes"))
        target = len(request.scope.get("raw_path") or b"") + len(request.scope["query_string"])
        if target > limits.target_bytes:
            raise RefusedError(414, Issue("too-long", f"the address is longer than {limits.target_bytes} bytes"))
        too_many(self._rates.take(address_of(request)))
        if self._under_way >= limits.at_once:
            raise RefusedError(503, Issue("throttled", "too many requests at once"), headers=retry_after(1))


async def wants_json(request: Request) -> None:
    """Refuses a client that takes anything but JSON.

    Raises:
        RefusedError: 406.
    """
    wanted = request.query_params.getlist("_format")
    if wanted:  # a space stands where a plus sign was not encoded
        fits = all(one.partition(";")[0].strip().lower().replace(" ", "+") in _FORMATS for one in wanted)
    else:
        fits = _accepts(request.headers.get("accept", ""))
    if not fits:
        raise RefusedError(406, Issue("not-supported", f"answers are {FHIR_JSON}"))


def _accepts(header: str) -> bool:
    if not header.strip():
        return True
    for part in header.split(","):
        name, _, parameters = part.partition(";")
        if name.strip().lower() in _RANGES and parameters.replace(" ", "") not in ("q=0", "q=0.0"):
            return True
    return False
