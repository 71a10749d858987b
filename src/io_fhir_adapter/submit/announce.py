"""Announcing a frame to the accreditation system, and the nonce that it answers with.

The frame goes out as a FHIR Group without its members, a conditional update by its digest; the system answers with a
Task (draw a sample, its input a 256-bit nonce) that is found by the same digest. Both may be done again and again. The
nonce is written down before anybody is drawn with it. That an accreditation body does so is this project's proposal,
so where it does not, the facility draws the nonce itself and the submission says so.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import quote

from io_fhir_adapter.canonical_urls import DRAW_TASK, DRAW_TASK_CODES, FRAME_SYSTEM
from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.errors import AdapterError, SubmitError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import StoredDraw, find_draw, put_announced, put_nonce
from io_fhir_adapter.submit.asking import NotOfferedError, checked
from io_fhir_adapter.submit.frame import frame_announcement
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.trust.frame import Commitment

__all__ = ["Asked", "ask_nonce"]

Json = dict[str, Any]

_NONCE_BYTES: Final = 32
_NONCE: Final = re.compile(r"[0-9a-f]{64}")
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_OVER: Final = frozenset({"cancelled", "rejected", "failed", "entered-in-error"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A committed draw after the accreditation system was asked; ``waits`` says why there is no nonce yet."""

    draw: StoredDraw
    waits: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the system said: the nonce and the Task that gave it; none yet; that it gives none; or nothing of use."""

    kind: Literal["given", "not-yet", "not-offered", "no-answer"]
    nonce: str = ""
    words: str = ""


async def ask_nonce(
    ledger: Ledger,
    endpoint: SubmissionConfig | None,
    draw: StoredDraw,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Asked:
    """The draw with its nonce: the one it has, the accreditation system's, or one drawn here.

    One is drawn here where no endpoint is configured, where the configuration says so, and, with ``auto``, where the
    endpoint says that it offers none, or has given none for the configured number of days. A system that took the
    announcement and then cannot be reached is waited for without end, because nothing could be submitted to it either.

    Args:
        ledger: Has the draw; what happens is written into it at once.
        endpoint: The accreditation system.
        draw: What was committed to.
        now: The time.

    Raises:
        LedgerError: The ledger refused. What fails between here and the accreditation system is told by ``waits``.
    """
    if draw.nonce:
        return Asked(draw)
    if endpoint is None or endpoint.nonce == "local":
        return _drawn_here(ledger, draw, "not-configured", now())
    answer = await _asked(ledger, endpoint, draw, now)
    draw = _again(ledger, draw)
    if answer.kind == "given":
        with ledger.begin() as connection:
            put_nonce(connection, draw, answer.nonce, "task", now(), because=answer.words)
        return Asked(_again(ledger, draw))
    if endpoint.nonce == "auto":
        if answer.kind == "not-offered":
            return _drawn_here(ledger, draw, answer.kind, now())
        since = datetime.fromisoformat(draw.announced or draw.committed)
        waited = now() - since >= timedelta(days=endpoint.nonce_wait_days)
        if waited and (answer.kind == "not-yet" or not draw.announced):
            return _drawn_here(ledger, draw, answer.kind, now())
    return Asked(draw, answer.words)


def _drawn_here(ledger: Ledger, draw: StoredDraw, because: str, now: datetime) -> Asked:
    with ledger.begin() as connection:
        put_nonce(connection, draw, secrets.token_hex(_NONCE_BYTES), "local", now, because=because)
    return Asked(_again(ledger, draw))


def _again(ledger: Ledger, draw: StoredDraw) -> StoredDraw:
    """The draw as the ledger has it now."""
    with ledger.read() as connection:
        return find_draw(connection, draw.programme, draw.period) or draw


async def _asked(ledger: Ledger, endpoint: SubmissionConfig, draw: StoredDraw, now: Callable[[], datetime]) -> _Answer:
    """Announces the frame and looks for the Task; what cannot be done is said, so that a night goes on."""
    try:
        async with FhirClient(endpoint, "submission") as client:
            await _announce(client, draw)
            with ledger.begin() as connection:
                put_announced(connection, draw, now())
            given = await _given(client, draw.digest)
    except NotOfferedError:
        words = "the accreditation system offers no nonce; set submission.nonce to auto or local to draw without it"
        return _Answer("not-offered", words=words)
    except AdapterError as exc:
        return _Answer("no-answer", words=f"the accreditation system could not be asked for it: {exc.sentence}")
    if given is None:
        return _Answer("not-yet", words="the accreditation system has given none yet")
    return _Answer("given", *given)


async def _announce(client: FhirClient, draw: StoredDraw) -> None:
    group = frame_announcement(Commitment.from_json(json.loads(draw.commitment)))
    url = f"{client.base_url}/Group?identifier={quote(f'{FRAME_SYSTEM}|{draw.digest}', safe='')}"
    checked(await client.request("PUT", url, body=json.dumps(group).encode(), accept_errors=True), client.base_url)


async def _given(client: FhirClient, frame: str) -> tuple[str, str] | None:
    """Nonce and reference of the Task for a frame; None where there is none yet.

    Raises:
        SubmitError: What the system gave cannot be drawn with.
    """
    url = f"{client.base_url}/Task?identifier={quote(f'{DRAW_TASK}|{frame}', safe='')}"
    answer = checked(await client.request("GET", url, accept_errors=True), client.base_url)
    try:
        tasks = list(_tasks(json.loads(answer.body), frame))
        given = {_nonce_of(task): task for task in tasks}
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise SubmitError(
            "the accreditation system's answer about the draw cannot be read",
            where=client.base_url,
            do="ask the accreditation body; nothing is drawn until then",
            number=8,
        ) from exc
    if len(given) > 1:
        raise SubmitError(
            "the accreditation system gave more than one nonce for one frame",
            where=client.base_url,
            do="ask the accreditation body which one holds; nothing is drawn until then",
            number=9,
        )
    for nonce, task in given.items():
        id_ = task.get("id")
        return nonce, f"Task/{id_}" if isinstance(id_, str) and _ID.fullmatch(id_) else ""
    return None


def _tasks(bundle: Json, frame: str) -> Iterator[Json]:
    """The Tasks of a searchset that ask for a draw from this frame and are in force."""
    if bundle["resourceType"] != "Bundle":
        raise ValueError("no Bundle")
    for entry in bundle.get("entry", []):
        task = entry["resource"]
        if task["resourceType"] != "Task" or task["status"] in _OVER or not _coded(task["code"], "draw-sample"):
            continue
        focus = task["focus"].get("identifier", {"system": FRAME_SYSTEM, "value": frame})
        if not _is(focus, FRAME_SYSTEM, frame) or not any(
            _is(identifier, DRAW_TASK, frame) for identifier in task["identifier"]
        ):
            raise ValueError("another frame")
        yield task


def _nonce_of(task: Json) -> str:
    given = [item["valueString"] for item in task["input"] if _coded(item["type"], "nonce")]
    if len(given) != 1 or not _NONCE.fullmatch(given[0]):
        raise ValueError("no nonce of 256 bits")
    return str(given[0])


def _coded(concept: Mapping[str, Any], code: str) -> bool:
    return any(coding.get("system") == DRAW_TASK_CODES and coding.get("code") == code for coding in concept["coding"])


def _is(identifier: Mapping[str, Any], system: str, value: str) -> bool:
    return identifier.get("system") == system and identifier.get("value") == value
