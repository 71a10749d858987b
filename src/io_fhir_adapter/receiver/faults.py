"""Faults of an accreditation endpoint on order, so that senders can be tested against them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from io_fhir_adapter.receiver.wire import Issue, operation_outcome

__all__ = ["CutResponse", "Fault", "ReceiverFaults", "half_refused"]

Fault = Literal["too-many", "server-error", "login-page", "entry-errors", "cut-before-storing", "cut-after-storing"]
_ORDER: tuple[Fault, ...] = (
    "too-many",
    "server-error",
    "login-page",
    "entry-errors",
    "cut-before-storing",
    "cut-after-storing",
)


@dataclass
class ReceiverFaults:
    """How often each fault is still to happen to a submission; they happen in the order of the attributes.

    Attributes:
        too_many: Answers 429 with ``retry_after``.
        server_error: Answers 500.
        login_page: Answers 200 with a web page.
        entry_errors: Answers 200 whose last entry was refused; nothing is stored.
        cut_before_storing: Breaks the connection; nothing is stored.
        cut_after_storing: Stores, then breaks the connection within the answer.
        retry_after: The ``Retry-After`` header of a 429.
    """

    too_many: int = 0
    server_error: int = 0
    login_page: int = 0
    entry_errors: int = 0
    cut_before_storing: int = 0
    cut_after_storing: int = 0
    retry_after: str = "1"
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self) -> Fault | None:
        """The fault that happens to this submission, counted off; None for none."""
        with self._lock:
            for fault in _ORDER:
                name = fault.replace("-", "_")
                left: int = getattr(self, name)
                if left > 0:
                    setattr(self, name, left - 1)
                    return fault
        return None


class CutResponse(Response):
    """Announces a whole body, sends half of it and breaks the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the start and half the body; returning without the rest makes the server close the connection."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


def half_refused(bundle: dict[str, Any]) -> dict[str, Any]:
    """A 200 answer that reports every entry but the last as stored: what some servers do and none should."""
    count = len(bundle.get("entry", []))
    refusal = {
        "status": "400 Bad Request",
        "outcome": operation_outcome((Issue("processing", "refused by order of a test"),)),
    }
    entries = [{"response": {"status": "201 Created"}} for _ in range(count - 1)] + [{"response": refusal}]
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
