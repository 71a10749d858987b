"""Complete answers, and what a refusal says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import httpx

from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.transport.retry import may_pass, retry_after_seconds

__all__ = ["Answer", "refusal"]

_ISSUE_CODE: Final = re.compile(r"[a-z][a-z-]{0,30}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str

    @property
    def is_json(self) -> bool:
        """Whether the server says that the body is JSON."""
        return "json" in self.headers.get("content-type", "").lower()


def refusal(answer: Answer, where: str, *, untrusted: bool = False) -> TransportError:
    """The error that an answer of status 300 and above is.

    Args:
        answer: The answer.
        where: The server, for the message.
        untrusted: Whether it was asked of an origin that gets no credentials.
    """
    status = answer.status
    denied = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    if denied and untrusted:
        what, do, number = (
            "the file's server wants credentials",
            "name its origin under trusted_origins if it is yours",
            23,
        )
    elif denied:
        what, do, number = "the server refused the credentials", "check auth and what it may read", 3
    elif status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        what, do, number = "the proxy refuses the sign-in", "check proxy, proxy_username and proxy_password", 21
    elif status in range(300, 400):
        what, do, number = "the server redirects", "configure the address that it redirects to", 7
    elif may_pass(status):
        what, do, number = "the server is busy or failing", "try again later; lower concurrency if it persists", 4
    else:
        what, do, number = "the server refused the request", "see what it supports with the check command", 8
    return TransportError(
        f"{what} (HTTP {status}{_outcome(answer)})",
        where=where,
        do=do,
        number=number,
        transient=may_pass(status),
        status=status,
        retry_after=retry_after_seconds(answer.headers.get("retry-after"), datetime.now(UTC)),
    )


def _outcome(answer: Answer) -> str:
    """The issue codes of an OperationOutcome; its texts may quote patient data and stay out."""
    if not answer.is_json:
        return ""
    try:
        codes = [str(issue["code"]) for issue in json.loads(answer.body)["issue"]]
    except (ValueError, KeyError, TypeError):
        return ""
    return "".join(f", {code}" for code in dict.fromkeys(codes) if _ISSUE_CODE.fullmatch(code))
