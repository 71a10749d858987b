"""A night in a process of its own: what it takes it gives back whole, and pages are answered at their usual pace.

A night of a large facility takes some hundred MiB. Within the service Python would keep most of it for good, since what
lives on lies scattered among what is gone. The process is this module: what it is to do comes on its stdin, how it
ended leaves on its stdout. Its stdin stays open for as long as the night is wanted. When that is closed, because the
service is to stop or was killed, the night ends where it is, within seconds and to be done again. It holds the ledger's
only job like every other night, so that no two of them ever work side by side.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Thread, Timer
from typing import IO, BinaryIO, Final, NamedTuple

from io_fhir_adapter.classify.ruleset import rules_for
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.logs import configure_logs
from io_fhir_adapter.serve.jobs import Apart, Tell
from io_fhir_adapter.serve.nights import Ended, Wanted, attempted, here

__all__ = ["night_aside"]

_MODULE: Final = "io_fhir_adapter.serve.night_aside"
_END_S: Final = 7.0  # for the night to end where it is; a single long statement is cut off then
_KILL_S: Final = 8.0  # less than a job that is stopped is waited for


async def night_aside(wanted: Wanted) -> Ended:
    """One night, in another process; where this is cancelled, that one ends too.

    Raises:
        AdapterError: It could not begin now, or its process ended before it was done.
        CancelledError: Somebody else stopped it.
    """
    with _started() as process:
        answer = b""
        with suppress(BrokenPipeError):  # it ended already
            process.told.write(pickle.dumps(wanted))
            process.told.flush()
            answer = await asyncio.to_thread(process.answers.read)
    if not answer:
        raise AdapterError(
            "the process of the night ended early",
            do="see that there is memory for it beside the service; what was read is kept, and the next night goes on",
            number=4,
            transient=True,
        )
    ended: Ended | AdapterError | None = pickle.loads(answer)  # noqa: S301 - of a process that this one started
    if ended is None:
        raise asyncio.CancelledError
    if isinstance(ended, AdapterError):
        raise ended
    return ended


class _Process(NamedTuple):
    told: IO[bytes]
    answers: IO[bytes]


@contextmanager
def _started() -> Iterator[_Process]:
    """The process of a night; it does not outlive the block."""
    command = [sys.executable, "-P", "-m", _MODULE]  # -P: nothing of the folder that it happens to run in
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - ourselves
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both were asked for
        try:
            yield _Process(process.stdin, process.stdout)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:  # it blocks this loop, which has nothing else to do and may be told to stop more than once
                process.wait(_KILL_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _done(wanted: Wanted, apart: Apart) -> Ended | AdapterError | None:
    """How a night ended; None where it was stopped."""
    ended = Ended(done=False)

    async def work(told: Tell) -> bool:
        nonlocal ended
        with closing(open_ledger(wanted.config.ledger)) as ledger:
            # read here: the service's own ruleset is at work for pages, and nothing that changes can be sent whole
            ended = await attempted(lambda: here(wanted, rules_for(wanted.config), ledger, told))
        return ended.done

    try:
        apart.run(work)
    except AdapterError as exc:
        return exc
    except asyncio.CancelledError:
        return None
    return ended


def _main(told: BinaryIO, answers: BinaryIO) -> None:
    wanted: Wanted = pickle.load(told)  # noqa: S301 - of the process that started this one
    configure_logs()
    apart = Apart()

    def end(*_: object) -> None:
        timer = Timer(_END_S, os._exit, (1,))
        timer.daemon = True
        timer.start()
        apart.stop()

    def watch() -> None:
        os.read(told.fileno(), 1)  # not by the buffer, whose lock would be held while this process ends
        end()

    Thread(target=watch, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):  # whoever ends a whole group of processes ends this one too
        signal.signal(number, end)
    answer = pickle.dumps(_done(wanted, apart))
    try:
        answers.write(answer)
        answers.flush()
    except OSError:
        os._exit(1)  # whoever started this process is gone


if __name__ == "__main__":
    _main(sys.stdin.buffer, sys.stdout.buffer)
