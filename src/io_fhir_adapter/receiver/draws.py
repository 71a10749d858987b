"""The receiver's part in a draw: it takes note of a frame, gives one nonce for it, and holds the facility to both.

A frame is announced by ``PUT Group?identifier=…`` with a Group that has no members; its digest binds the facility to
them. The answer is a Task for that facility, found by ``Task?identifier=…``: draw a sample from this Group with this
nonce. There is one for each frame and it never changes, so that announcing again gains nothing. This is this project's
proposal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import sqlalchemy as sa

from io_fhir_adapter.canonical_urls import (
    DRAW_TASK,
    DRAW_TASK_CODES,
    FACILITY_SYSTEM,
    FRAME_CODES,
    FRAME_SYSTEM,
    PROGRAMME_SYSTEM,
)
from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.receiver.checks import Nonce
from io_fhir_adapter.receiver.entries import parse_token
from io_fhir_adapter.receiver.wire import CODE, Issue, RefusedError

__all__ = ["NONCES", "Announcement", "check_announcement", "check_nonce", "draw_task", "nonce_given"]

NONCES: Final = sa.Table(
    "nonces",
    sa.MetaData(),
    sa.Column("facility", sa.String(64), primary_key=True),
    sa.Column("frame", sa.String(80), primary_key=True),
    sa.Column("nonce", sa.String(64), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
)
"""The nonces given: one for each facility and frame."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ELEMENTS: Final = frozenset(
    {"resourceType", "meta", "identifier", "type", "actual", "quantity", "managingEntity", "characteristic"}
)


@dataclass(frozen=True)
class Announcement:
    """A frame that a facility committed to: its digest, and the Group that says so."""

    facility: str
    frame: str
    group: dict[str, Any]


def check_announcement(group: dict[str, Any], query: str, programmes: Collection[str] | None) -> Announcement:
    """What an announcement says, once everything about it holds.

    Args:
        group: The parsed body.
        query: The query of the request, ``identifier=system|digest``.
        programmes: Codes of the programmes that are accepted, None for any.

    Raises:
        RefusedError: 400 the query asks for something else; 422 the Group is no announcement.
    """
    parameters = parse_qsl(query, keep_blank_values=True)
    named = parse_token(parameters[0][1]) if [name for name, _ in parameters] == ["identifier"] else (None, "")
    if named[0] != FRAME_SYSTEM:
        raise RefusedError(400, Issue("not-supported", "a Group is announced by PUT Group?identifier= with its digest"))
    problems = resource_problems(group, frozenset({"Group"}))
    if problems:
        raise RefusedError(422, *(Issue("structure", problem.words, problem.path) for problem in problems))
    issues = tuple(_issues(group, named[1], programmes))
    if issues:
        raise RefusedError(422, *issues)
    return Announcement(group["managingEntity"]["identifier"]["value"], named[1], group)


def _issues(group: Mapping[str, Any], frame: str, programmes: Collection[str] | None) -> Iterator[Issue]:
    for name in sorted(group.keys() - _ELEMENTS):
        yield Issue("business-rule", "an announcement does not hold this element", f"Group.{name}")
    digests = [item.get("value") for item in group.get("identifier", []) if item.get("system") == FRAME_SYSTEM]
    if digests != [frame] or not _DIGEST.fullmatch(frame):
        yield Issue("value", "is not the one digest that the request names", "Group.identifier")
    if group.get("type") != "person" or group.get("actual") is not True or group.get("quantity", 0) < 1:
        yield Issue("business-rule", "a frame is a group of actual persons, at least one", "Group")
    tags = [
        tag.get("code", "") for tag in group.get("meta", {}).get("tag", []) if tag.get("system") == PROGRAMME_SYSTEM
    ]
    if len(tags) != 1 or not CODE.fullmatch(tags[0]) or (programmes is not None and tags[0] not in programmes):
        yield Issue("business-rule", "name one programme that is known here", "Group.meta.tag")
    owner = group.get("managingEntity", {}).get("identifier", {})
    if owner.get("system") != FACILITY_SYSTEM or not CODE.fullmatch(owner.get("value") or ""):
        yield Issue("business-rule", "name the facility by its code", "Group.managingEntity.identifier")
    windows = [item.get("period", {}) for item in group.get("characteristic", []) if _is_window(item)]
    days = [str(period.get(end, "")) for period in windows for end in ("start", "end")]
    if len(days) != 2 or not all(_DAY.fullmatch(day) for day in days) or days[0] > days[1]:
        yield Issue("business-rule", "name the one review window by its first and last day", "Group.characteristic")


def _is_window(characteristic: Mapping[str, Any]) -> bool:
    return any(
        coding.get("system") == FRAME_CODES and coding.get("code") == "review-window"
        for coding in characteristic["code"].get("coding", [])
    )


def draw_task(announcement: Announcement, group: str, nonce: str, now: str) -> dict[str, Any]:
    """The order to draw.

    Args:
        announcement: The frame.
        group: Id of the stored Group.
        nonce: 64 hexadecimal digits.
        now: When it is given, a FHIR instant.
    """
    frame = {"system": FRAME_SYSTEM, "value": announcement.frame}
    return {
        "resourceType": "Task",
        "identifier": [{"system": DRAW_TASK, "value": announcement.frame}],
        "status": "requested",
        "intent": "order",
        "code": {"coding": [{"system": DRAW_TASK_CODES, "code": "draw-sample"}]},
        "focus": {"reference": f"Group/{group}", "identifier": frame},
        "authoredOn": now,
        "owner": {
            "type": "Organization",
            "identifier": {"system": FACILITY_SYSTEM, "value": announcement.facility},
        },
        "input": [{"type": {"coding": [{"system": DRAW_TASK_CODES, "code": "nonce"}]}, "valueString": nonce}],
    }


def nonce_given(connection: sa.Connection, facility: str, frame: str) -> str | None:
    """The nonce that a facility was given for a frame."""
    found: str | None = connection.execute(
        sa.select(NONCES.c.nonce).where(NONCES.c.facility == facility, NONCES.c.frame == frame)
    ).scalar_one_or_none()
    return found


def check_nonce(connection: sa.Connection, facility: str, nonce: Nonce) -> None:
    """Refuses a draw with another nonce than the one that was given for its frame.

    Raises:
        RefusedError: 422, it names none, another one, or one of its own although one was given.
    """
    given = nonce_given(connection, facility, nonce.frame)
    if nonce.origin == "local" and given is not None:
        words = "the nonce was drawn by the facility although one was given for this frame"
    elif nonce.origin == "task" and given is None:
        words = "no nonce was given for this frame"
    elif nonce.origin == "task" and given != nonce.value:
        words = "the nonce is not the one that was given for this frame"
    else:
        return
    raise RefusedError(422, Issue("business-rule", words, "Bundle.entry"))
