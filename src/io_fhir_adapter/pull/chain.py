"""One chain of pages: the next page is on its way while this one is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from itertools import count
from typing import Final

from io_fhir_adapter.errors import AdapterError, PullError
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.searchset import SearchPage, circle, parse_searchset, with_packed
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["pages_from"]

_EMPTY_PAGES: Final = 1_000  # one after the other: a server that filters late may send some, not this many
_REPEATED_PAGES: Final = 100  # in one search: links that are always new ones may lead to the same pages for ever
_STEPS_TO_SEND: Final = 12  # turns of the event loop until a request has left on a connection that is open


async def pages_from(
    client: FhirClient, resource_type: str, first: SearchPage, led_back: Callable[[], bool], packer: Packer | None
) -> AsyncGenerator[SearchPage, None]:
    """The pages of a search, from its first one on; one at most is fetched ahead.

    Whoever takes them works on a page while the server makes the next one: that is why the request for it goes out
    before the page is handed on. To be closed.

    Args:
        client: The server's client.
        resource_type: What is searched for.
        first: The first page.
        led_back: Asked, when all pages were taken, where the last one leads back to one of them: whether that is the
            end all the same.
        packer: Makes Procedures ready for the ledger, where that is wanted.

    Raises:
        PullError: A page cannot be read, or the links never end.
        TransportError: The server does not answer or refuses.
    """
    base = f"{client.base_url}/{resource_type}"
    links = _Links(client, base)
    page = first
    for number in count(2):
        refused: AdapterError | None = None
        target = ""
        try:
            target = links.after(page)
        except AdapterError as exc:
            refused = exc  # what came with it is handed on all the same
        is_back = target in links.taken
        ahead = None
        if target and not is_back:
            links.taken.add(target)
            where = f"{base} page {number}"
            ahead = asyncio.create_task(_fetched(client, target, where, resource_type, sketched=packer is not None))
        try:
            for _ in range(_STEPS_TO_SEND if ahead is not None else 0):
                await asyncio.sleep(0)
            yield page if packer is None else with_packed(page, packer)
            if refused is not None:
                raise refused
            if is_back and not led_back():
                raise circle(page.where)
            if ahead is None:
                return
            page = await ahead
        finally:
            if ahead is not None and not ahead.done():
                ahead.cancel()
                await asyncio.wait((ahead,))


async def _fetched(client: FhirClient, target: str, where: str, resource_type: str, *, sketched: bool) -> SearchPage:
    return await client.exchange("GET", target, lambda answer: _parsed(answer, where, resource_type, sketched=sketched))


def _parsed(answer: Answer, where: str, resource_type: str, *, sketched: bool) -> SearchPage:
    return parse_searchset(answer, where, resource_type, sketched=sketched)


class _Links:
    """Where the pages of a search lead, and whether that ever ends."""

    def __init__(self, client: FhirClient, base: str) -> None:
        self.taken: set[str] = set()
        self._client = client
        self._base = base
        self._marks: set[int] = set()
        self._empty = 0
        self._repeated = 0

    def after(self, page: SearchPage) -> str:
        """The address of the next page, empty where there is none.

        Raises:
            PullError: The search does not end.
            TransportError: The link leads where no request may go, or nowhere.
        """
        mark = page.mark
        self._empty = 0 if page.size else self._empty + 1
        self._repeated += bool(page.size) and mark in self._marks
        self._marks.add(mark)
        if not page.next_link:
            return ""
        target = self._client.resolve(page.next_link, base=page.url)
        if target not in self.taken and (self._empty > _EMPTY_PAGES or self._repeated > _REPEATED_PAGES):
            raise PullError("the search does not end", where=self._base, number=3)
        return target
