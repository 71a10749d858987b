"""A network and machines that fail in every way that is known: a proxy between senders and a receiver, all killable."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

FAULTS = {
    "none": 30, "delay": 6, "duplicate": 10, "cut-request": 9, "cut-answer": 9, "shortened": 4, "429-seconds": 3,
    "429-date": 3, "500": 5, "entries-429": 4, "entries-400": 2, "login-page": 4, "kill-sender": 7, "kill-receiver": 9,
}  # fmt: skip
"""What befalls a request, and how often in a hundred or so."""

_LOGIN = b"<!doctype html><title>Sign in</title>"


class Machines:
    """The processes: one receiver that is started anew when it is killed, and senders.

    Attributes:
        killed: How many of each kind were killed from outside.
    """

    def __init__(self, template: asyncio.subprocess.Process, store: Path, listener: socket.socket) -> None:
        self._template = template
        self._turn = asyncio.Lock()
        self._receiver_args = ["receive", str(store), listener.fileno()]
        self._receiver = 0
        self.senders: list[int] = []
        self.killed: Counter[str] = Counter()

    async def start_receiver(self) -> None:
        self._receiver = await self._fork(self._receiver_args)

    async def kill_receiver(self) -> None:
        """Kills the receiver and starts the next one."""
        self.killed["receiver"] += 1
        pid, self._receiver = self._receiver, 0
        if pid:
            await self.kill(pid)
            await self.start_receiver()

    async def kill_sender(self, rng: Random) -> None:
        if self.senders:
            self.killed["sender"] += 1
            await self.kill(rng.choice(self.senders))

    async def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await ended(pid)

    async def send(self, *arguments: Any) -> None:
        """Runs a sender to its end, whatever that is."""
        pid = await self._fork(["send", *arguments])
        self.senders.append(pid)
        await ended(pid)
        self.senders.remove(pid)

    async def stop(self) -> None:
        for pid in (*self.senders, self._receiver):
            if pid:
                await self.kill(pid)
        stdin = self._template.stdin
        assert stdin is not None
        stdin.close()
        await self._template.wait()

    async def _fork(self, arguments: list[Any]) -> int:
        stdin, stdout = self._template.stdin, self._template.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._turn:
            stdin.write(f"{json.dumps(arguments)}\n".encode())
            return int(await stdout.readline())


async def ended(pid: int) -> None:
    """Waits for the end of a process that another one is the parent of."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, over.set)
    try:
        await asyncio.wait_for(over.wait(), 120)
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def start_template(submission: Path, listener: socket.socket, log: Path) -> asyncio.subprocess.Process:
    """The process that the machines are forked from; what they have to complain about goes into ``log``."""
    with log.open("wb") as complaints:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.campaigns.chaos_worker", str(submission), cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=complaints,
            pass_fds=[listener.fileno()],
        )  # fmt: skip


class Proxy:
    """Between sender and receiver: lets requests through, or does to them what the dice say.

    Args:
        rng: The dice.
        upstream: Port of the receiver.
        machines: Those that it may kill.
        now: The senders' clock, for ``Retry-After``.

    Attributes:
        seen: How often each fault befell a request.
    """

    def __init__(self, rng: Random, upstream: int, machines: Machines, now: Callable[[], datetime]) -> None:
        self._rng = rng
        self._first = iter(
            ("duplicate", "kill-receiver", "kill-sender")
        )  # befall also the few requests of a short round
        self._upstream = upstream
        self._machines = machines
        self._now = now
        self.seen: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await whole_request(reader)
            fault = next(self._first, "") or self._rng.choices(list(FAULTS), list(FAULTS.values()))[0]
            self.seen[fault] += 1
            await self._meet(fault, request, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _meet(self, fault: str, request: bytes, writer: asyncio.StreamWriter) -> None:
        rng, place = self._rng, self._rng.random()
        if fault == "cut-request":
            await self._forward(request[: round(place * len(request))], whole=False)
        elif fault == "kill-receiver":
            await self._while_killed(request, place, self._machines.kill_receiver)
        elif fault == "kill-sender":
            await self._while_killed(request, place, lambda: self._machines.kill_sender(rng))
        elif fault in {"none", "delay", "duplicate", "cut-answer"}:
            if fault == "delay":
                await asyncio.sleep(place / 20)
            copies = 2 if fault == "duplicate" else 1
            answers = await asyncio.gather(*(self._forward(request) for _ in range(copies)))
            answer = rng.choice(answers)
            writer.write(answer[: round(place * len(answer))] if fault == "cut-answer" else answer)
        else:
            answer = await self._forward(request) if place < 0.5 else b""  # told wrongly, or never delivered
            writer.write(self._told(fault, request, answer))
        await writer.drain()

    async def _while_killed(self, request: bytes, place: float, kill: Callable[[], Awaitable[None]]) -> None:
        """Kills when a part of the request is through, or the whole and the answer is being made."""
        rest = asyncio.ensure_future(self._forward(request[: round(2 * place * len(request))], whole=place >= 0.5))
        if place >= 0.5:
            await asyncio.wait([rest], timeout=(place - 0.5) / 4)
        await kill()
        await rest

    async def _forward(self, request: bytes, *, whole: bool = True) -> bytes:
        """Hands bytes to the receiver; gives its answer, empty where it died or was not asked for one."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        answer = b""
        with suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
            if whole:
                answer = await reader.read(-1)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        return answer

    def _told(self, fault: str, request: bytes, answer: bytes) -> bytes:
        if fault == "shortened":
            body = answer.partition(b"\r\n\r\n")[2]
            return response(200, body[: len(body) // 2])
        if fault == "429-seconds":
            return response(429, b"", f"Retry-After: {self._rng.randint(1, 5000)}")
        if fault == "429-date":
            return response(429, b"", f"Retry-After: {format_datetime(self._now(), usegmt=True)}")
        if fault == "500":
            return response(500, b"")
        if fault == "login-page":
            return response(200, _LOGIN, kind="text/html")
        count = len(json.loads(request.partition(b"\r\n\r\n")[2])["entry"])
        entries = [{"response": {"status": "201 Created"}} for _ in range(count)]
        entries[self._rng.randrange(count)] = {"response": {"status": fault.rpartition("-")[2]}}
        told = {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
        return response(200, json.dumps(told).encode())


async def whole_request(reader: asyncio.StreamReader) -> bytes:
    """The request to its last byte, asking for the connection to be closed after it."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    body = await reader.readexactly(int(found[1]) if found else 0)
    return re.sub(rb"(?i)\r\nconnection: keep-alive", b"\r\nConnection: close", head) + body


def response(status: int, body: bytes, *headers: str, kind: str = "application/fhir+json") -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body
