"""An export job on the server: kicked off, asked after until it is done, deleted in the end."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from io_fhir_adapter.config import BulkConfig
from io_fhir_adapter.errors import PullError, TransportError
from io_fhir_adapter.pull.bulk_manifest import Manifest, joined, manifest_from
from io_fhir_adapter.transport.client import Answer, FhirClient, retry_after_seconds

__all__ = ["JobGone", "Wish", "await_manifest", "delete_job", "kick_off", "poll_wait"]

_FORMAT: Final = "application/fhir+ndjson"
_ASYNC: Final = {
    "Accept": "application/fhir+json",
    "Prefer": "respond-async",
    "Cache-Control": "no-cache",  # else HAPI hands out an older export that was asked for in the same words
}
_WAIT_S: Final = 2.0
_LONGEST_UNASKED_S: Final = 60.0
_PATIENCE: Final = 3  # looks at the status that fail one after the other, each of them tried several times
_MOST_PAGES: Final = 100_000
_NO_METHOD: Final = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})
_NOT_LIKED: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.NOT_IMPLEMENTED})
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_PERCENT: Final = re.compile(r"(\d{1,3})(?:\.\d+)?\s*%")
Tell = Callable[[str], None]


class JobGone(PullError):  # noqa: N818 - the sentence it carries is the error
    """The server does not know the job or its files any more; only a new export helps."""


class Wish(msgspec.Struct, frozen=True):
    """What an export is asked for.

    Attributes:
        path: The operation below the base URL, such as ``Group/1/$export``.
        types: Resource types.
        since: ``_since``, empty for everything.
        filters: Values of ``_typeFilter``.
        method: GET or POST.
    """

    path: str
    types: tuple[str, ...]
    since: str = ""
    filters: tuple[str, ...] = ()
    method: str = "GET"

    @classmethod
    def of(cls, config: BulkConfig, types: tuple[str, ...], since: str, filters: tuple[str, ...]) -> Wish:
        """The wish that a configuration comes to."""
        level = {"system": "", "patient": "Patient/", "group": f"Group/{config.group}/"}[config.level]
        return cls(f"{level}$export", types, since, filters, config.method.upper())

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Names and values."""
        asked = [("_outputFormat", _FORMAT), ("_type", ",".join(self.types))]
        if self.since:
            asked.append(("_since", self.since))
        return asked + [("_typeFilter", query) for query in self.filters]

    @property
    def body(self) -> bytes:
        """The Parameters resource of a kick-off by POST."""
        parameter: list[dict[str, Any]] = [
            {"name": name, ("valueInstant" if name == "_since" else "valueString"): value}
            for name, value in self.parameters
        ]
        return json.dumps({"resourceType": "Parameters", "parameter": parameter}).encode()


async def kick_off(client: FhirClient, wish: Wish, note: Tell) -> tuple[str, str]:
    """Starts an export; asks for less, or by the other method, where the server refuses.

    Returns:
        The address of its status, and what time it was then by the server's clock (its ``Date``), empty if unsaid.

    Raises:
        TransportError: The server does not answer or refuses.
        PullError: It does not say where the status is.
    """
    other_method = False
    while True:
        try:
            answer = await _ask(client, wish)
        except TransportError as exc:
            if exc.status in _NO_METHOD and not other_method:
                other_method = True
                wish = _by_other_method(wish)
                note(f"the server does not take the kick-off of exports by {_other(wish.method)}, but by {wish.method}")
            elif exc.status in _NOT_LIKED and wish.filters:
                wish = msgspec.structs.replace(wish, filters=())
                note("the server refuses _typeFilter; all resources of these types were exported")
            else:
                raise
        else:
            break
    where = answer.headers.get("content-location", "")
    if not where:
        raise PullError(
            "the server takes the export and does not say where its status is",
            where=f"{client.base_url}/{wish.path}",
            do="check that the server, and not a proxy, answers there",
            number=22,
        )
    return client.resolve(where, base=answer.url), answer.headers.get("date", "")


def _other(method: str) -> str:
    return "POST" if method == "GET" else "GET"


def _by_other_method(wish: Wish) -> Wish:
    """The same wish by the other method."""
    return msgspec.structs.replace(wish, method=_other(wish.method))


async def _ask(client: FhirClient, wish: Wish) -> Answer:
    url = f"{client.base_url}/{wish.path}"
    if wish.method == "POST":
        return await client.request("POST", url, body=wish.body, headers=_ASYNC)
    return await client.request("GET", f"{url}?{urlencode(wish.parameters, safe='/,:')}", headers=_ASYNC)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the status: the manifest, or how far the job is and how long the server wants to be left alone."""

    manifest: Manifest | None
    url: str
    percent: int | None = None
    retry_after: float | None = None


async def await_manifest(
    client: FhirClient, status_url: str, config: BulkConfig, started: datetime, progress: Callable[[int | None], None]
) -> Manifest:
    """Asks after a job until its manifest is there, and reads all pages of that.

    Args:
        client: The server's client.
        status_url: Where to ask.
        config: How long to wait between two looks, and when to give up.
        started: When the job was kicked off.
        progress: Told how many per cent are done, where the server says so.

    Raises:
        JobGone: The server does not know the job any more.
        TransportError: It does not answer, or the job failed.
        PullError: The job takes too long, or the manifest cannot be read.
    """
    pages: list[Manifest] = []
    target, seen = status_url, {status_url}
    deadline = started + timedelta(hours=config.give_up_after_hours)
    while target:
        look = await _until_done(client, target, config, deadline, progress)
        assert look.manifest is not None  # noqa: S101 - that is what was waited for
        pages.append(look.manifest)
        following = look.manifest.next_link
        target = client.resolve(following, base=look.url) if following else ""
        if target in seen or len(pages) > _MOST_PAGES:
            raise PullError(
                "the pages of the export's manifest run in a circle",
                where=client.base_url,
                do="report this to the server's vendor",
                number=23,
            )
        seen.add(target)
    return joined(pages)


async def _until_done(
    client: FhirClient, url: str, config: BulkConfig, deadline: datetime, progress: Callable[[int | None], None]
) -> _Look:
    looks = failures = 0
    while True:
        asked: float | None
        try:
            look = await client.exchange("GET", url, _look, headers={"Accept": "application/json"})
        except TransportError as exc:
            if exc.status in _GONE:
                raise JobGone(
                    f"the server does not know its export any more (HTTP {exc.status})",
                    where=client.base_url,
                    do="run again; look after the server's limits if it persists",
                    number=24,
                ) from exc
            failures += 1
            if not exc.transient or failures > _PATIENCE:
                raise
            asked = exc.retry_after
        else:
            if look.manifest is not None:
                return look
            failures = 0
            progress(look.percent)
            asked = look.retry_after
        wait = poll_wait(asked, looks, config.poll_min_s, config.poll_max_s)
        if datetime.now(UTC) + timedelta(seconds=wait) > deadline:
            raise PullError(
                f"the export is not done after {config.give_up_after_hours:g} hours",
                where=client.base_url,
                do="raise bulk.give_up_after_hours, or ask for less (types, type_filter, a Group)",
                number=25,
            )
        await asyncio.sleep(wait)
        looks += 1


def _look(answer: Answer) -> _Look:
    if answer.status != HTTPStatus.ACCEPTED:
        return _Look(manifest_from(answer.body, answer.url).based_on(answer.url), answer.url)
    found = _PERCENT.search(answer.headers.get("x-progress", ""))
    retry_after = retry_after_seconds(answer.headers.get("retry-after"), datetime.now(UTC))
    return _Look(None, answer.url, min(int(found[1]), 100) if found else None, retry_after)


def poll_wait(retry_after: float | None, looks: int, shortest: float, longest: float) -> float:
    """Seconds to the next look at the status.

    Args:
        retry_after: What the server asks for; None where it does not.
        looks: How many looks came before.
        shortest: Less is never waited, so that no server is asked without a pause.
        longest: More is never waited.
    """
    asked = retry_after if retry_after is not None else min(_WAIT_S * 1.5 ** min(looks, 20), _LONGEST_UNASKED_S)
    return min(max(asked, shortest), longest)


async def delete_job(client: FhirClient, status_url: str) -> str:
    """Tells the server that a job is not needed any more; gives why that failed, empty where it did not."""
    try:
        await client.request("DELETE", client.resolve(status_url), retry=False)
    except TransportError as exc:
        return "" if exc.status in _GONE else exc.what
    return ""
