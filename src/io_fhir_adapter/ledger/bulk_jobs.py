"""Export jobs under way: where their status is asked for and what they promised, so that a later run goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select, update

from io_fhir_adapter.ledger.database import upsert
from io_fhir_adapter.ledger.schema import bulk_jobs

__all__ = ["BulkJob", "bulk_job", "forget_bulk_job", "mark_ingested", "put_bulk_job"]


@dataclass(frozen=True, slots=True)
class BulkJob:
    """One export job; a source has at most one for each purpose.

    Attributes:
        source: Name of the source.
        purpose: ``changes``, or ``background`` of patients who are new.
        key: Names the folder of its files.
        request: What was asked for, JSON.
        status_url: Where it is asked after.
        started: When it was kicked off, our time.
        asked: The same by the server's clock, as it said it (an HTTP date); empty where it said nothing.
        manifest: All pages of its manifest, JSON; empty until it is done.
        ingested: Whether the ledger has everything of it, so that only clearing up is left.
    """

    source: str
    purpose: str
    key: str
    request: str
    status_url: str
    started: str
    asked: str = ""
    manifest: str = ""
    ingested: bool = False


def bulk_job(connection: Connection, source: str, purpose: str) -> BulkJob | None:
    """The job of a source, if one is under way or not cleared up."""
    query = select(bulk_jobs).where(bulk_jobs.c.source == source, bulk_jobs.c.purpose == purpose)
    row = connection.execute(query).first()
    return BulkJob(**row._mapping) if row is not None else None


def put_bulk_job(connection: Connection, job: BulkJob) -> None:
    """Writes a job down, in the place of an earlier one."""
    upsert(connection, bulk_jobs, [asdict(job)], ("source", "purpose"))


def mark_ingested(connection: Connection, source: str) -> None:
    """Writes down that the ledger has everything of a source's jobs; in the transaction that moves the cursor."""
    connection.execute(update(bulk_jobs).where(bulk_jobs.c.source == source).values(ingested=True))


def forget_bulk_job(connection: Connection, source: str, purpose: str) -> None:
    """Forgets a job."""
    connection.execute(delete(bulk_jobs).where(bulk_jobs.c.source == source, bulk_jobs.c.purpose == purpose))
