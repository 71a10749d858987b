"""An accreditation endpoint whose answers are told beforehand."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]

FHIR = "application/fhir+json"


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    body: bytes


class Endpoint:
    """An ASGI application.

    Attributes:
        answers: Status, headers and body of the answers to come; the last one goes on.
        asked: Every request so far.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[Asked] = []

    def will(self, *answers: Any, status: int = 200, **headers: str) -> None:
        """Tells the answers: bytes as they are, anything else as JSON."""
        named = {"content-type": FHIR, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.answers = [
            (status, named, answer if isinstance(answer, bytes) else json.dumps(answer).encode()) for answer in answers
        ]

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        if scope["type"] != "http":
            while scope["type"] == "lifespan":
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        body = bytearray()
        while (message := await receive())["type"] == "http.request":
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                break
        self.asked.append(Asked(scope["method"], scope["path"], scope["query_string"].decode(), bytes(body)))
        status, headers, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": answer})


def outcome(code: str, severity: str = "error") -> dict[str, Any]:
    """An OperationOutcome of one issue."""
    return {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": code}]}


def response(*statuses: str) -> dict[str, Any]:
    """A transaction-response with one status for each entry."""
    entries = [{"response": {"status": status}} for status in statuses]
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
