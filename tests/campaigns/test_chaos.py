"""Submissions through a network that fails in every known way, between machines that are killed: each arrives once.

Shortened in ``make test``; ``make chaos`` sends 200 (``CHAOS=full``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from tests.campaigns.chaos import FAULTS, Machines, Proxy, start_template
from tests.receiver.conftest import sealed_submission

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.outbox import enqueue, items, receipts_of, retry, retry_parked
from io_fhir_adapter.receiver.journal import store_problems
from io_fhir_adapter.receiver.schema import RESOURCES
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.trust.canonical import canonical_json

FULL = os.environ.get("CHAOS") == "full"
COUNT = 200 if FULL else 10
SEED = 20260131
START = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
NIGHT = timedelta(hours=25)
MOST_NIGHTS = 50 * COUNT


class Campaign:
    """A facility's ledger, the body's store, and the nights between them; virtual nights, so that nobody waits."""

    def __init__(self, folder: Path, bodies: dict[str, bytes]) -> None:
        self.folder = folder
        self.rng = Random(SEED)
        self.night = START
        self.ledger = open_ledger(LedgerConfig(path=folder / "ledger.sqlite"))
        with self.ledger.begin() as connection:
            for identifier, body in bodies.items():
                enqueue(connection, identifier, "2025", body, START)
        self.first = folder / "first.json"
        self.first.write_bytes(next(iter(bodies.values())))

    async def run(self) -> tuple[Counter[str], Counter[str], int]:
        """Nights until everything is accepted; gives the faults, the kills, and how many nights it took."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            template = await start_template(self.first, listener, self.folder / "complaints.txt")
            machines = Machines(template, self.folder / "receiver.sqlite", listener)
            await machines.start_receiver()
            proxy = Proxy(self.rng, listener.getsockname()[1], machines, lambda: self.night)
            server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/fhir"
            nights = 0
            while self.left():
                nights += 1
                assert nights < MOST_NIGHTS
                await self._night(machines, url)
            server.close()
            await server.wait_closed()
            await machines.stop()
        return proxy.seen, machines.killed, nights

    async def _night(self, machines: Machines, url: str) -> None:
        """One or two senders at once, some of which die at one of their transactions; then the next night is there."""
        rng = self.rng
        self.night += NIGHT
        senders = []
        for _ in range(rng.choice((1, 2))):
            deadly = rng.random() < 0.3
            machines.killed["sender, by its own hand"] += deadly
            transaction = rng.randint(1, 12) if deadly else 0
            senders.append(
                machines.send(
                    str(self.folder / "ledger.sqlite"), url, self.night.isoformat(), transaction, rng.random() < 0.5
                )
            )
        await asyncio.gather(*senders)

    def left(self) -> int:
        """How many are not accepted; a person has the rejected and the parked ones sent again."""
        with self.ledger.begin() as connection:
            retry_parked(connection, self.night)
            found = items(connection)
            for item in found:
                if item.state == "rejected":
                    retry(connection, item.identifier, self.night)
        return sum(item.state != "accepted" for item in found)


@pytest.fixture(scope="module")
def bodies(synthetic_draw: Callable[..., Any]) -> dict[str, bytes]:
    """Submissions of one facility each."""
    made = {}
    for number in range(COUNT):
        facility = f"F-{number:03d}"
        bundle = sealed_submission(synthetic_draw(1, 1, 3, facility=facility, seed=facility), facility, 151)
        made[bundle["identifier"]["value"]] = canonical_json(bundle)
    return made


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are forked and watched here as Linux can")
@pytest.mark.timeout(1800)
def test_every_submission_arrives_once(bodies: dict[str, bytes], tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, bodies)
    seen, killed, nights = asyncio.run(campaign.run())
    check_ledger(campaign.ledger, bodies)
    times = check_store(tmp_path / "receiver.sqlite", bodies)
    campaign.ledger.close()
    sys.stdout.write(
        f"\n{len(times)} submissions, each stored once, received {sum(times)} times, in {nights} nights;"
        f"\nrequests {sum(seen.values())}: {dict(seen)};\nkilled {dict(killed)}\n"
    )
    assert not (tmp_path / "complaints.txt").read_text()
    assert sum(times) > COUNT, "none came twice, so nothing was shown"
    assert killed["receiver"]
    assert killed["sender"]
    if FULL:
        assert all(seen[fault] for fault in FAULTS)


def check_ledger(ledger: Ledger, bodies: dict[str, bytes]) -> None:
    """Each is accepted, with its receipt, and is the same bytes still."""
    with ledger.read() as connection:
        found = {item.identifier: item for item in items(connection)}
        assert found.keys() == bodies.keys()
        for identifier, item in found.items():
            assert (item.state, item.body) == ("accepted", bodies[identifier])
            answers = receipts_of(connection, identifier)
            assert [answer.verdict for answer in answers].count("accepted") == 1
            assert answers[-1].verdict == "accepted"


def check_store(path: Path, bodies: dict[str, bytes]) -> list[int]:
    """The body has each once, no resource was written twice, and its chain is whole; how often each was received."""
    store = ReceiverStore(f"sqlite:///{path}")
    try:
        stored = store.submissions()
        with store.reading() as connection:
            assert list(store_problems(connection)) == []
            assert set(connection.execute(sa.select(RESOURCES.c.version)).scalars()) == {1}
    finally:
        store.close()
    assert sorted(one.identifier for one in stored) == sorted(bodies)
    return [one.times for one in stored]
