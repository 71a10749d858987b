"""What takes longer to work out than a page may wait: worked out once for each state that it rests on, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

__all__ = ["Kept"]

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by name, worked out in a thread of their own, one after the other.

    Args:
        title: Of the thread.
    """

    def __init__(self, title: str) -> None:
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=title)
        self._known: dict[str, tuple[tuple[str, ...], Future[T]]] = {}
        self._older: dict[str, T] = {}

    def of(self, name: str, state: tuple[str, ...], make: Callable[[], T], patience_s: float) -> T | None:
        """The value of a name.

        Args:
            name: Of what.
            state: All that the value rests on; another state asks for another value.
            make: Works it out.
            patience_s: So long it is waited for, in seconds.

        Returns:
            That of an earlier state where it takes longer, None where there is none.

        Raises:
            AdapterError: It could not be worked out; the next who asks has it tried again.
        """
        with self._lock:
            known = self._known.get(name)
            if known is None or known[0] != state or _failed(known[1]):
                known = (state, self._pool.submit(make))
                self._known[name] = known
        if not wait([known[1]], patience_s).done:
            return self._older.get(name)
        found = known[1].result()
        self._older[name] = found
        return found


def _failed(working: Future[T]) -> bool:
    return working.done() and working.exception() is not None
