"""How many requests at a time: halved when the server is overloaded, raised again, and never lost to the impatient."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.transport.retry import AdaptiveLimit, RetryBudget, may_pass


def test_what_may_pass() -> None:
    passing = {status for status in range(300, 600) if may_pass(status)}
    assert passing == {408, 425, 429, *range(500, 600)} - {501, 505}


def test_one_crowd_of_refusals_halves_once() -> None:
    limit = AdaptiveLimit(16)
    marks = [limit.mark for _ in range(16)]
    for mark in marks:
        limit.overloaded(mark)
    assert limit.current == 8
    limit.overloaded(limit.mark)
    assert limit.current == 4
    for _ in range(10):
        limit.overloaded(limit.mark)
    assert limit.current == 1


def test_it_recovers_slowly_and_never_beyond_what_is_allowed() -> None:
    limit = AdaptiveLimit(4)
    limit.overloaded(limit.mark)
    limit.succeeded()
    assert 2 < limit.current < 3
    needed = 0
    while limit.current < 4:
        limit.succeeded()
        needed += 1
    assert 4 <= needed <= 8
    limit.succeeded()
    assert limit.current == 4


def test_no_more_enter_than_there_are_places() -> None:
    async def go() -> tuple[int, int]:
        limit = AdaptiveLimit(3)
        most = done = 0

        async def work() -> None:
            nonlocal most, done
            await limit.enter()
            most = max(most, limit.under_way)
            await asyncio.sleep(0)
            limit.leave()
            done += 1

        await asyncio.gather(*(work() for _ in range(20)))
        assert limit.under_way == 0
        return most, done

    assert asyncio.run(go()) == (3, 20)


def test_those_who_wait_come_in_turn_and_the_impatient_lose_only_their_own_place() -> None:
    async def go() -> list[str]:
        limit = AdaptiveLimit(1)
        order: list[str] = []

        async def work(name: str) -> None:
            await limit.enter()
            order.append(name)
            limit.leave()

        await limit.enter()
        waiting = {name: asyncio.create_task(work(name)) for name in "abcd"}
        await asyncio.sleep(0)
        waiting["b"].cancel()  # while it waits
        await asyncio.sleep(0)
        limit.leave()  # lets a in, which has not run yet ...
        waiting["a"].cancel()  # ... and goes away
        await asyncio.gather(*waiting.values(), return_exceptions=True)
        assert limit.under_way == 0
        return order

    assert asyncio.run(go()) == ["c", "d"]


def test_a_smaller_limit_lets_nobody_in_until_enough_have_left() -> None:
    async def go() -> bool:
        limit = AdaptiveLimit(4)
        for _ in range(4):
            await limit.enter()
        limit.overloaded(limit.mark)
        late = asyncio.create_task(limit.enter())
        for _ in range(2):
            limit.leave()
            await asyncio.sleep(0)
        assert not late.done()
        limit.leave()
        await asyncio.sleep(0)
        return late.done()

    assert asyncio.run(go())


def test_a_budget_counts_and_says_why() -> None:
    budget = RetryBudget(2)
    cause = TransportError("the server is busy or failing (HTTP 503)", status=503)
    for _ in range(3):
        budget.spend(cause, "https://fhir.example", 10)
    with pytest.raises(TransportError, match=r"used up \(3 of 12 requests, the last time because .*HTTP 503") as caught:
        budget.spend(cause, "https://fhir.example", 12)
    assert not caught.value.transient
    assert budget.retried == 3


@pytest.mark.parametrize("trouble", [429, 503, httpx.ReadTimeout("slow")])
def test_a_client_gives_an_overloaded_server_less_to_do(trouble: int | Exception) -> None:
    """The server takes two at a time; in the end, about so many are asked."""
    under_way = most = refused = 0
    config = FhirSourceConfig.model_validate(
        {"name": "s", "url": "https://fhir.example", "concurrency": 16, "retries": 20, "retry_budget": 10_000}
    )

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002
            nonlocal under_way, most, refused
            under_way += 1
            most = max(most, under_way)
            try:
                for _ in range(5):
                    await asyncio.sleep(0)
                if under_way > 2:
                    refused += 1
                    if isinstance(trouble, Exception):
                        raise trouble
                    return httpx.Response(trouble)
                return httpx.Response(200, json={})
            finally:
                under_way -= 1

    async def wait(seconds: float) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def go() -> float:
        async with FhirClient(config, "sources.s", transport=Slow(), wait=wait) as client:
            await asyncio.gather(*(client.get("Procedure") for _ in range(400)))
            return client.limit.current

    left = asyncio.run(go())
    assert most == 16
    assert left < 6
    assert refused < 200
