"""What /metrics shows, in the form of Prometheus. Names and labels are part of the manual; none holds a patient."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from datetime import date, datetime, timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from sqlalchemy import Connection

from io_fhir_adapter import __version__
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.standing import years_under
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import quarantine_reasons, tally_procedures
from io_fhir_adapter.ledger.jobs import stored_jobs
from io_fhir_adapter.ledger.outbox import items, pending
from io_fhir_adapter.ledger.runs import last_complete, last_ended, read_state
from io_fhir_adapter.notify.book import BOOK, Book
from io_fhir_adapter.notify.incidents import TITLES
from io_fhir_adapter.report.readiness_facts import Year

__all__ = ["Metrics"]

_PREFIX: Final = "io_fhir_adapter"
_STATES: Final = ("held", "queued", "sending", "sent", "accepted", "rejected", "parked", "returned", "superseded")
_SHARE_OF: Final = timedelta(days=365)


class Metrics:
    """The service's metrics: the runs since it began are counted, all else is what the ledger says when asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._counted_for: tuple[str, date] | None = None
        self.runs = Counter(f"{_PREFIX}_runs", "Nightly runs by outcome", ["outcome"], registry=self.registry)
        self.info = self._gauge("build_info", "Always 1; the version stands in its label", "version")
        self.info.labels(__version__).set(1)
        self.last_success = self._gauge("last_success_timestamp_seconds", "End of the last complete run")
        self.run_seconds = self._gauge("run_seconds", "How long the last run took that ended")
        self.requests = self._gauge("pull_requests", "HTTP requests of that run", "source")
        self.retried = self._gauge("pull_retries", "Those of them that were made again", "source")
        self.read = self._gauge("pull_resources", "Resources read in that run", "source", "resource_type")
        self.complete = self._gauge("pull_complete", "Whether everything reconciles in that run", "source")
        self.quarantined = self._gauge("quarantined", "Resources set aside", "resource_type")
        self.outbox = self._gauge("outbox", "Submissions by state", "state")
        self.pending = self._gauge("outbox_pending", "Submissions that are still to leave")
        self.counted = self._gauge("counted", "Counted sessions of the reported year")
        self.so_far = self._gauge("year_counted", "Counted sessions of the year under way, so far")
        self.projected = self._gauge("year_projected", "What a straight line comes to by its end")
        self.threshold = self._gauge("year_threshold", "What the programme asks for in a year")
        self.unmapped = self._gauge(
            "unmapped_share",
            "Of the completed Procedures of the last 365 days, those without a row or a table",
            "without",
        )
        self.due = self._gauge("job_due_timestamp_seconds", "When a job of the service is due", "job")
        self.ended = self._gauge("job_ended_timestamp_seconds", "When it ended last", "job", "outcome")
        self.incidents = self._gauge("incidents", "What needs a person, by kind; needs a notify section", "kind")

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", words, labels, registry=self.registry)

    def see(self, done: bool) -> None:
        """Counts a night: one of which all was done, or one that failed."""
        self.runs.labels("complete" if done else "failed").inc()

    def show(self, ledger: Ledger, ruleset: Ruleset, today: date) -> bytes:
        """All metrics in Prometheus' text form.

        Args:
            ledger: What is shown is read from it; numbers that take long to count once a run and day.
            ruleset: Has the threshold.
            today: The local date.

        Raises:
            LedgerError: The ledger could not be read.
        """
        with self._lock, ledger.read() as connection:
            self._last_run(connection)
            self._outbox(connection)
            self._open(connection)
            self._jobs(connection)
            state = (last_complete(connection), today)
            if state[0] and state != self._counted_for:
                self.last_success.set(_moment(state[0]))
                self._counts(connection, ruleset, today)
                self._counted_for = state
            return generate_latest(self.registry)

    def _last_run(self, connection: Connection) -> None:
        run = last_ended(connection)
        if run is None or run.finished is None:
            return
        self.run_seconds.set(_moment(run.finished) - _moment(run.started))
        if "counted" in run.summary and run.state == "complete":
            self.counted.set(run.summary["counted"])
        for gauge in (self.requests, self.retried, self.read, self.complete):
            gauge.clear()
        for source in run.summary.get("sources", ()):
            self._source(source)

    def _source(self, source: dict[str, Any]) -> None:
        name = source["source"]
        self.requests.labels(name).set(source["requests"])
        self.retried.labels(name).set(source["retried"])
        self.complete.labels(name).set(source["complete"])
        for kind, numbers in source["types"].items():
            self.read.labels(name, kind).set(numbers["read"])

    def _outbox(self, connection: Connection) -> None:
        states = Tally(item.state for item in items(connection))
        for state in _STATES:
            self.outbox.labels(state).set(states[state])
        self.pending.set(len(pending(connection)))
        self.quarantined.clear()
        aside: Tally[str] = Tally()
        for (kind, _), number in quarantine_reasons(connection).items():
            aside[kind or "unknown"] += number
        for kind in {"Procedure", *aside}:
            self.quarantined.labels(kind).set(aside[kind])

    def _open(self, connection: Connection) -> None:
        kinds = Tally(key.partition(" ")[0] for key in Book.read(read_state(connection, BOOK)).open)
        for kind in TITLES:
            self.incidents.labels(kind).set(kinds[kind])

    def _jobs(self, connection: Connection) -> None:
        self.due.clear()
        self.ended.clear()
        for job in stored_jobs(connection).values():
            self.due.labels(job.name).set(_moment(job.due))
            if job.finished:
                self.ended.labels(job.name, job.outcome).set(_moment(job.finished))

    def _counts(self, connection: Connection, ruleset: Ruleset, today: date) -> None:
        (volume, groups), _ = years_under(connection, ruleset, today)
        year = Year.of(volume, today, groups)
        self.so_far.set(year.so_far)
        self.projected.set(year.projected or 0)
        self.threshold.set(year.threshold)
        since = (today - _SHARE_OF).isoformat()
        completed, row, table = 0, 0, 0
        for day, status, mapped, known, number in tally_procedures(connection):
            if status == "completed" and day >= since:
                completed += number
                row += 0 if mapped else number
                table += 0 if mapped or known else number
        self.unmapped.labels("row").set(row / completed if completed else 0)
        self.unmapped.labels("table").set(table / completed if completed else 0)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
