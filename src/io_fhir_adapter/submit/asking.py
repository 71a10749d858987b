"""What the answers to questions at an accreditation system have in common: some systems offer no such thing."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from io_fhir_adapter.transport.answers import Answer, refusal

__all__ = ["NotOfferedError", "checked"]

_NOT_THERE: Final = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED}
)
_NOT_FOR_THIS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


class NotOfferedError(Exception):
    """The endpoint says that it has no such thing."""


def checked(answer: Answer, where: str) -> Answer:
    """The answer where it is a success.

    Args:
        answer: The answer.
        where: The server, for the message.

    Raises:
        TransportError: It is none.
        NotOfferedError: The server says, in FHIR, that it has no such thing.
    """
    if answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return answer
    codes = _issue_codes(answer)
    # A page that is not FHIR comes from a proxy, or from an address that is wrong.
    if codes and (answer.status in _NOT_THERE or (answer.status in _NOT_FOR_THIS and "not-supported" in codes)):
        raise NotOfferedError
    raise refusal(answer, where)


def _issue_codes(answer: Answer) -> set[str]:
    """The issue codes of an OperationOutcome; empty where it is none."""
    try:
        outcome = json.loads(answer.body)
        if outcome["resourceType"] != "OperationOutcome":
            return set()
        return {str(issue["code"]) for issue in outcome["issue"]}
    except (ValueError, KeyError, TypeError):
        return set()
