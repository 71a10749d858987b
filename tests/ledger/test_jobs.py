"""Jobs in the ledger: however many processes look at the same moment, one of them has it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.jobs import claim, end_job, lease_name, put_jobs, stored_jobs
from io_fhir_adapter.ledger.lease import give_back, new_holder

NOW = datetime(2026, 1, 31, 1, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def test_one_of_many_has_it(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        put_jobs(connection, {"nightly": ("daily", NOW)})
    for night in range(5):
        now, together = NOW + night * DAY, threading.Barrier(4)
        had: list[str] = []

        def look(now: datetime = now, together: threading.Barrier = together, had: list[str] = had) -> None:
            holder = new_holder()
            together.wait()
            with ledger.begin() as connection:
                if claim(connection, "nightly", holder, now, now + DAY):
                    had.append(holder)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(had) == 1
        with ledger.begin() as connection:
            end_job(connection, "nightly", now, "complete")
            give_back(connection, had[0], lease_name("nightly"))
    with ledger.read() as connection:
        assert stored_jobs(connection)["nightly"].due == timestamp(NOW + 5 * DAY)
