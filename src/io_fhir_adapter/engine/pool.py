"""Worker processes: tasks in, results out in the order of the tasks; none outlives the work, none dies unnoticed.

They are forked where that is safe: on Linux, from a process without other threads. That starts them in milliseconds,
with everything that is loaded already. Anywhere else they start anew and load what they need. In either case all of
them hash alike, which what they tell each other may rest on.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from io_fhir_adapter.errors import AdapterError, InputError

__all__ = ["Pool", "usable_cores"]

_AHEAD: Final = 4  # for each worker, so many results may wait for an earlier one
_HASH_SEED: Final = "PYTHONHASHSEED"
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_THREADS: Final = Path("/proc/self/task")

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection


class Pool(Generic[TaskT, ResultT]):
    """So many worker processes. Use as a context manager, which ends them all however it is left.

    Args:
        number: How many.
        make: Makes, in each worker, the function that does the tasks. What it is made of is handed over pickled where
            workers are not forked, and so are tasks and results always.
    """

    def __init__(self, number: int, make: Callable[[], Callable[[TaskT], ResultT]]) -> None:
        self._number = number
        self._make = make
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        method = _method()
        context = multiprocessing.get_context(method)
        try:
            with _hashing_alike(method):
                for _ in range(self._number):
                    mine, theirs = context.Pipe()
                    copied = [mine, *(worker.connection for worker in self._workers)] if method == "fork" else []
                    process = context.Process(target=_work, args=(theirs, self._make, copied), daemon=True)  # type: ignore[attr-defined]
                    process.start()
                    theirs.close()
                    self._workers.append(_Worker(process, mine))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.process.close()
            worker.connection.close()
        self._workers = []

    def run(self, tasks: Sequence[TaskT]) -> Iterator[ResultT]:
        """The results of tasks, in their order; no worker runs far ahead of who takes them.

        Raises:
            InputError: A worker ended before it was done.
            AdapterError, OSError: What a worker met.
        """
        idle, busy = list(self._workers), dict[Connection, _Worker]()
        ready: dict[int, ResultT] = {}
        sent = taken = 0
        while taken < len(tasks):
            while idle and sent < min(len(tasks), taken + _AHEAD * self._number):
                worker = idle.pop()
                _send(worker.connection, (sent, tasks[sent]))
                busy[worker.connection] = worker
                sent += 1
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)  # noqa: S101 - nothing else was waited for
                number, result = _receive(connection)
                if isinstance(result, AdapterError | OSError):
                    raise result
                ready[number] = result
                idle.append(busy.pop(connection))
            while taken in ready:
                yield ready.pop(taken)
                taken += 1


def usable_cores() -> int:
    """The cores of the machine that this process may use, by its affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # there is none
        return cores


def _method() -> str:
    alone = sys.platform == "linux" and len(list(_THREADS.iterdir())) == 1
    return "fork" if alone else "spawn"


@contextmanager
def _hashing_alike(method: str) -> Iterator[None]:
    """Forked processes hash as this one does; others take their seed from the environment that they start in."""
    if method == "fork" or os.environ.get(_HASH_SEED, "random") != "random":
        yield
        return
    before = os.environ.get(_HASH_SEED)
    os.environ[_HASH_SEED] = str(random.SystemRandom().randrange(1, 1 << 32))
    try:
        yield
    finally:
        del os.environ[_HASH_SEED]
        if before is not None:
            os.environ[_HASH_SEED] = before


def _send(connection: Connection, message: tuple[int, Any]) -> None:
    try:
        connection.send(message)
    except ConnectionError as exc:
        raise _ended_early() from exc


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError) as exc:
        raise _ended_early() from exc


def _ended_early() -> InputError:
    return InputError(
        "a process that works on the input ended before it was done, so there is no result",
        do="run again; if it persists, look whether the machine has too little memory, and use --workers 1",
        number=11,
        transient=True,
    )


def _work(connection: Connection, make: Callable[[], Callable[[Any], Any]], copied: Sequence[Connection]) -> None:
    """What a worker does until nobody wants anything of it any more.

    Args:
        connection: Where its tasks come from.
        make: Makes what does them.
        copied: Ends of connections that belong to who started it, whose death it would not notice with them open.
    """
    for end in copied:
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it is interrupted too, and ends it
    # The message of an unforeseen error may hold anything; the error itself ends the worker, which is noticed
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lasts
    do = make()
    while True:
        try:
            number, task = connection.recv()
        except (EOFError, OSError):
            return  # who started it is gone
        result: Any
        try:
            result = do(task)
        except (AdapterError, OSError) as exc:
            result = exc
        try:
            connection.send((number, result))
        except ConnectionError:
            return
