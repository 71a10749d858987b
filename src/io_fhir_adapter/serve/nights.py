"""Nights of the service: each in a thread of its own, so that the pages answer meanwhile, and ended when asked to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.logs import log
from io_fhir_adapter.pipeline import Night, Nightly

__all__ = ["Nights"]


class Nights:
    """Runs the nightly job and stops it.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        ruleset: What decides.
    """

    def __init__(self, config: Config, ledger: Ledger, ruleset: Ruleset) -> None:
        self._config = config
        self._ledger = ledger
        self._ruleset = ruleset
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> Night | None:
        """One night with its output.

        Returns:
            What it did, None where it failed outright; why stands in the log and in the ledger.
        """
        try:
            night = await asyncio.to_thread(self._run)
        except asyncio.CancelledError:
            log.info("night stopped")
            return None
        except AdapterError as exc:
            log.error("night failed", code=exc.code)
            return None
        except Exception as exc:  # noqa: BLE001 - the service outlives a night; the message may hold anything
            log.error("night failed", exception=type(exc).__name__)
            return None
        if night.problem is not None:
            log.error("night failed", run=night.run, code=night.problem.code)
        else:
            log.info("night complete", run=night.run)
        return night

    def stop(self) -> None:
        """Ends a night that is under way, at its next page or batch; what it did is kept."""
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    def _run(self) -> Night:
        job = Nightly(self._config, self._ledger, self._ruleset, progress=self._look)
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            night: Night = runner.run(self._watched(job.run()))
        self._loop = None
        files: list[Path] = job.write_output(night, self._config.output.folder)
        log.info("written", files=len(files))
        return night

    async def _watched(self, work: Coroutine[Any, Any, Night]) -> Night:
        self._task = asyncio.current_task()
        try:
            return await work
        finally:
            self._task = None

    def _look(self, _what: str, _done: int, _total: int | None) -> None:
        if self._stopping.is_set():
            raise asyncio.CancelledError
