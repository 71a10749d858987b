"""A chain of pages: the next one is asked for before this one is worked on, and never more than that."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from threading import Event
from typing import Any

import pytest

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import ForeignOriginError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pull.chain import pages_from
from io_fhir_adapter.pull.searchset import SearchPage, parse_searchset
from io_fhir_adapter.pull.seldom import collecting_seldom
from io_fhir_adapter.transport.client import FhirClient

PAGES = 4


class Server:
    """Pages with one Procedure each; says which of them was asked for.

    ``links`` is where each leads; ``holds`` keeps all but the first back.
    """

    def __init__(self, links: Callable[[int], str], *, holds: bool = False) -> None:
        self._holds = holds
        self.asked = [Event() for _ in range(PAGES + 1)]
        self._links = links

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for moment in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{moment}.complete"})
            return
        await receive()
        number = int(scope["query_string"].decode().partition("page=")[2])
        self.asked[number].set()
        if number and self._holds:
            await receive()  # until whoever asks hangs up
            return
        link = [{"relation": "next", "url": target}] if (target := self._links(number)) else []
        entry = [{"resource": {"resourceType": "Procedure", "id": f"p{number}"}}]
        body = json.dumps({"resourceType": "Bundle", "link": link, "entry": entry}).encode()
        headers = [(b"content-type", b"application/fhir+json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def following(number: int) -> str:
    return f"Procedure?page={number + 1}" if number + 1 < PAGES else ""


def read(server: Server, work: Callable[[FhirClient, SearchPage], Awaitable[None]]) -> None:
    """Reads the chain with some work on each page."""

    async def all_of_it(url: str) -> None:
        config = FhirSourceConfig.model_validate({"name": "his", "kind": "fhir", "url": url, "retries": 0})
        async with FhirClient(config, "sources.his") as client:
            first = await client.read("Procedure?page=0", lambda answer: parse_searchset(answer, url, "Procedure"))
            try:
                async with aclosing(pages_from(client, "Procedure", first, lambda: False, None)) as pages:
                    async for page in pages:
                        await work(client, page)
            finally:
                assert client.limit.under_way == 0

    with LoopbackServer(server) as loopback:
        asyncio.run(all_of_it(loopback.base_url))


def number_of(page: SearchPage) -> int:
    return int((page.sound[0].id or "").removeprefix("p"))


def test_the_next_page_is_asked_for_before_this_one_is_worked_on() -> None:
    server, taken = Server(following), []

    async def work(_: FhirClient, page: SearchPage) -> None:
        number = number_of(page)
        taken.append(number)
        if number + 1 < PAGES:  # the event loop stands still here, as while a page is written: it has left already
            assert server.asked[number + 1].wait(10)
        assert not server.asked[min(number + 2, PAGES)].is_set(), "more than one page ahead"

    read(server, work)
    assert taken == list(range(PAGES))


def test_what_is_under_way_ends_with_whoever_wanted_it() -> None:
    async def work(client: FhirClient, page: SearchPage) -> None:
        assert client.limit.under_way == 1, number_of(page)
        raise LookupError

    with pytest.raises(LookupError):
        read(Server(following, holds=True), work)


def test_a_page_counts_although_its_link_leads_elsewhere() -> None:
    taken = []

    async def work(_: FhirClient, page: SearchPage) -> None:
        taken.append(number_of(page))

    with pytest.raises(ForeignOriginError):
        read(Server(lambda _: "https://elsewhere.example/fhir/Procedure?page=1"), work)
    assert taken == [0]


def test_the_collector_is_as_it_was_after_a_pull() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        for usual in ((700, 10, 10), (1_000_000, 100, 100), (0, 10, 10)):
            gc.set_threshold(*usual)
            with collecting_seldom():
                assert gc.get_threshold() >= usual
                assert (gc.get_threshold() == usual) == (usual[0] != 700)
            assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, frozen)
    finally:
        gc.set_threshold(*before)


def test_a_pull_does_not_make_garbage_old() -> None:
    class Circular:
        def __init__(self) -> None:
            self.own = self

    gone = weakref.ref(Circular())
    with collecting_seldom():
        pass
    gc.collect(1)  # looks at what is young alone
    assert gone() is None
