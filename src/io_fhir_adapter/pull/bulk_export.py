"""Whole exports: kicked off or gone on with, waited for, downloaded, and cleared up when the ledger has everything.

What is under way is written down in the ledger and lies in the spool folder, so that a run that was cut off goes on
with the same export and the files it has.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, PullError, TransportError
from io_fhir_adapter.ledger.bulk_jobs import BulkJob, bulk_job, forget_bulk_job, put_bulk_job
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.pull.bulk_files import Spool, download
from io_fhir_adapter.pull.bulk_ingest import Downloaded
from io_fhir_adapter.pull.bulk_job import JobGone, Wish, await_manifest, delete_job, kick_off
from io_fhir_adapter.pull.bulk_manifest import ISSUES, Manifest
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.packing_aside import Aside
from io_fhir_adapter.pull.sliced import side_by_side
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["BACKGROUND", "CHANGES", "Export", "Exports"]

CHANGES: Final = "changes"
"""Purpose of the export that a pull is about."""
BACKGROUND: Final = "background"
"""Purpose of the export of what did not change and is needed now."""
_FAILING: Final = "IOA-NET-004"  # of the server itself, and not of the one that signs in
_APART: Final = timedelta(minutes=1)  # so much clocks may differ without a meaning


@dataclass(frozen=True, slots=True)
class Export:
    """One export, all its files in the spool folder.

    Attributes:
        manifest: What the server says about it.
        started: When it was kicked off, our time.
        output: Files of the types that were asked for.
        deleted: Files that name what was deleted.
        errors: Files that say what went wrong.
    """

    manifest: Manifest
    started: str
    output: list[Downloaded]
    deleted: list[Downloaded]
    errors: list[Downloaded]


class Exports:
    """The exports of one source.

    Args:
        config: The source.
        client: The client that is signed in for exports.
        ledger: Where jobs are written down.
        folder: Where their files lie.
        outcome: Takes notes.
        progress: Told how far they are.
    """

    def __init__(
        self,
        config: FhirSourceConfig,
        client: FhirClient,
        ledger: Ledger,
        folder: Path,
        outcome: SourceOutcome,
        progress: Progress,
    ) -> None:
        self._config = config
        self._client = client
        self._ledger = ledger
        self._spool = Spool(folder)
        self._outcome = outcome
        self._progress = progress

    async def make(
        self, purpose: str, wish: Wish, not_before: datetime | None = None, aside: Aside | None = None
    ) -> Export:
        """An export with all its files; one that expired half-way is made once more.

        So is one that an earlier run had begun, where the server fails at it again and again.

        Args:
            purpose: What it is for.
            wish: What it is asked for.
            not_before: Up to when the ledger has everything: an export that is older would bring older versions.
            aside: Makes the Procedures ready for the ledger while they are downloaded.

        Raises:
            PullError: It cannot be had whole, or is older.
            TransportError: The server does not answer or refuses.
        """
        job = await self._begun(purpose, wish)
        is_earlier = job is not None
        left = 2 if is_earlier else 1  # one that was found may have expired long ago
        while True:
            if job is None:
                job = await self._anew(purpose, wish)
            try:
                manifest = await self._manifest(job)
                self._refuse_older(manifest, not_before)
                return await self._download(job, manifest, wish.types, aside)
            except JobGone:
                if aside is not None:
                    aside.close()
                self._forget(job)
                if not left:
                    raise
                left -= 1
                self._outcome.note("the server's export had expired; it was made once more")
            except TransportError as exc:
                if not (is_earlier and _is_failing(exc)):
                    raise
                if aside is not None:
                    aside.close()
                await self._end(job)
                self._outcome.note("the server fails at an export that an earlier run had begun; it was made once more")
            job, is_earlier = None, False

    def _refuse_older(self, manifest: Manifest, not_before: datetime | None) -> None:
        if not_before is not None and manifest.moment < not_before - _APART:
            raise PullError(
                "the server handed out an export that is older than what is on record",
                where=self._client.base_url,
                do="nothing of it was read; run again, and check the server's clock if it persists",
                number=34,
            )

    async def _anew(self, purpose: str, wish: Wish) -> BulkJob:
        if purpose == CHANGES:
            # one that was made for an older export of changes would bring older versions than this one
            for other in self._jobs():
                await self._end(other)
        return await self._kicked_off(purpose, wish)

    async def _begun(self, purpose: str, wish: Wish) -> BulkJob | None:
        """The job of an earlier run that asked for the same and may still be done."""
        with self._ledger.read() as connection:
            job = bulk_job(connection, self._config.name, purpose)
        if job is None:
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(job.started)
        if job.request == _text(wish) and age < timedelta(hours=self._config.bulk.give_up_after_hours):
            self._outcome.note("an export that an earlier run had begun was gone on with")
            return job
        await self._end(job)
        return None

    async def _kicked_off(self, purpose: str, wish: Wish) -> BulkJob:
        status_url, asked = await kick_off(self._client, wish, self._outcome.note)
        job = BulkJob(self._config.name, purpose, secrets.token_hex(8), _text(wish), status_url, timestamp(), asked)
        with self._ledger.begin() as connection:
            put_bulk_job(connection, job)
        return job

    async def _manifest(self, job: BulkJob) -> Manifest:
        if job.manifest:
            return msgspec.json.decode(job.manifest, type=Manifest)
        what = f"{self._config.name} export, per cent"
        manifest = await await_manifest(
            self._client, job.status_url, self._config.bulk, datetime.fromisoformat(job.started),
            lambda percent: self._progress(what, percent or 0, 100),
        )  # fmt: skip
        manifest = manifest.not_after(job.asked)
        with self._ledger.begin() as connection:
            put_bulk_job(connection, replace(job, manifest=msgspec.json.encode(manifest).decode()))
        return manifest

    async def _download(self, job: BulkJob, manifest: Manifest, types: Collection[str], aside: Aside | None) -> Export:
        """All files, several at a time; those of types that were not asked for are left where they are."""
        self._spool.prepare(job.key)
        parts = (manifest.files, manifest.deletions, manifest.failures)
        paths = (self._spool.path(job.key, number) for number in range(sum(map(len, parts))))
        named, deleted, errors = ([Downloaded(file, next(paths)) for file in part] for part in parts)
        output = [one for one in named if one.file.type != ISSUES]
        errors += [one for one in named if one.file.type == ISSUES]
        asked = [one for one in output if not one.file.type or one.file.type in types]
        if len(asked) < len(output):
            self._outcome.note("the export has types that were not asked for; they were not read")
        needed = [*asked, *deleted, *errors]
        if not all(one.file.type for one in asked):
            aside = None  # files of several types are read for each of them
        queue = enumerate(needed)
        failed: dict[int, AdapterError] = {}
        done = 0

        async def work() -> None:
            nonlocal done
            for number, one in queue:
                if failed:
                    return
                helper = aside if one.file.type == "Procedure" and number < len(asked) else None
                try:
                    await download(
                        self._client, one.file, one.path, authorised=manifest.requiresAccessToken,
                        retries=self._config.retries, longest_wait=self._config.max_retry_wait_s,
                        reached=partial(helper.reached, one.path) if helper is not None else _nobody,
                    )  # fmt: skip
                    if helper is not None:
                        helper.complete(one.path)
                except AdapterError as exc:
                    failed[number] = exc
                    return
                done += 1
                self._progress(f"{self._config.name} files", done, len(needed))

        await side_by_side(work() for _ in range(self._config.bulk.concurrency))
        if failed:  # files before it were begun before it, and are done: it does not hang on who was faster
            first = failed[min(failed)]
            raise first from first.__cause__
        return Export(manifest, job.started, asked, deleted, errors)

    async def clear_up(self) -> None:
        """Ends jobs that the ledger has everything of, and removes files of jobs that are no more."""
        for job in self._jobs():
            if job.ingested:
                await self._end(job)
        self._spool.keep_only({job.key for job in self._jobs()})

    async def give_up(self) -> None:
        """After a failure that another try cannot mend, the next run starts with exports of its own."""
        for job in self._jobs():
            await self._end(job)
        self._spool.keep_only(set())

    def _jobs(self) -> list[BulkJob]:
        with self._ledger.read() as connection:
            found = [bulk_job(connection, self._config.name, purpose) for purpose in (CHANGES, BACKGROUND)]
        return [job for job in found if job is not None]

    async def _end(self, job: BulkJob) -> None:
        failure = await delete_job(self._client, job.status_url)
        if failure:
            self._outcome.note(f"the finished export could not be deleted on the server: {failure}")
        self._forget(job)

    def _forget(self, job: BulkJob) -> None:
        with self._ledger.begin() as connection:
            forget_bulk_job(connection, job.source, job.purpose)
        self._spool.keep_only({other.key for other in self._jobs()})


def _is_failing(exc: TransportError) -> bool:
    """Whether the server fails at what it is asked for, and is not merely too busy."""
    status = exc.status or 0
    return (
        exc.code == _FAILING and status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.SERVICE_UNAVAILABLE
    )


def _nobody(_: int) -> None:
    """Told how far a file has come that nobody waits for."""


def _text(wish: Wish) -> str:
    return msgspec.json.encode(wish).decode()
