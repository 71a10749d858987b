"""fhirpy over this project's HTTP.

fhirpy opens a session per request and parses into dictionaries of its own; here it keeps its vocabulary (resources,
search sets, execute), and its requests go the way of all others.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fhirpy import AsyncFHIRClient

from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.transport.answers import Answer

__all__ = ["FhirpyOverHttpx"]

Exchange = Callable[..., Awaitable[tuple[Any, int]]]


class FhirpyOverHttpx(AsyncFHIRClient):
    """fhirpy's client with its transport replaced.

    Args:
        base_url: The server.
        exchange: :meth:`io_fhir_adapter.transport.client.FhirClient.exchange`.
    """

    def __init__(self, base_url: str, exchange: Exchange) -> None:
        super().__init__(base_url)
        self._exchange = exchange

    async def _do_request(
        self,
        method: str,
        path: str,
        data: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        extra_headers: dict[str, str] | None = None,
        *,
        returning_status: bool = False,
    ) -> Any:
        body = json.dumps(data).encode() if data is not None else None
        url = self._build_request_url(path, params)
        parsed, status = await self._exchange(method.upper(), url, _parsed, body=body, headers=extra_headers)
        return (parsed, status) if returning_status else parsed


def _parsed(answer: Answer) -> tuple[Any, int]:
    try:
        return (json.loads(answer.body) if answer.body else None), answer.status
    except ValueError as exc:
        raise TransportError(
            "the server's answer is no JSON", where=answer.url, do="check the base URL and proxies", number=10
        ) from exc
