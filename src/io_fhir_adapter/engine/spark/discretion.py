"""Errors of code that runs on executors, without what they say: it may hold what stands in a record."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

__all__ = ["FAILED", "Discreet", "WorkerError"]

FAILED: Final = "failed on an executor:"


class WorkerError(RuntimeError):
    """What went wrong on an executor: the kind of the error and the place in the code."""


class Discreet:
    """A context in which an error loses its text and its cause, before Spark writes both to the executor's log."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, WorkerError):
            raise WorkerError(f"{FAILED} {type(exc).__name__} in {_place(traceback)}.") from None


def _place(traceback: TracebackType | None) -> str:
    module, line = "", 0
    while traceback is not None:
        module, line = traceback.tb_frame.f_globals.get("__name__", ""), traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{module}:{line}"
