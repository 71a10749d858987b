"""Two services on one PostgreSQL ledger, killed at any moment: each night once, each submission once, nothing lost.

Shortened in ``make interop``; ``make replicas`` goes on for an hour (``REPLICAS=full``, or so many seconds).
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.campaigns.replica_worker import as_in_the_campaign
from tests.campaigns.replicas import Campaign, Stint, content, stints
from tests.campaigns.year import Clock, Facility, Growing, moving, rules_of_few, undated
from tests.conftest import Postgres

from io_fhir_adapter.ledger.audit import verify_audit
from io_fhir_adapter.ledger.chain import check_chain
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.runs import recent_runs
from io_fhir_adapter.ledger.soundness import check_database
from io_fhir_adapter.receiver.journal import store_problems
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital

LENGTH = os.environ.get("REPLICAS", "")
SECONDS = 3600.0 if LENGTH == "full" else float(LENGTH or 0)
NIGHTS = 2
SEED = 20260130
FIRST = date(2025, 1, 30)
"""The first night on which the year 2024 is reported."""
LATE = {"2024-11": FIRST + timedelta(days=1)}
KEY = "5a" * 32

pytestmark = [
    pytest.mark.interop,
    pytest.mark.xdist_group("postgresql"),
    pytest.mark.timeout(2 * SECONDS + 300),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="services are forked here"),
]


class Beside(Facility):
    """A facility whose ledger may be PostgreSQL's, and where nobody is told anything."""

    def __init__(self, folder: Path, hospital: Growing, clock: Clock, url: str = "") -> None:
        self._url = url
        folder.mkdir()
        (folder / "pseudonym.key").write_text(KEY, encoding="ascii")
        (folder / "pseudonym.key").chmod(0o600)
        super().__init__(folder, hospital, clock, ())
        self.rules = rules_of_few(self.config)

    def document(self) -> dict[str, Any]:
        document = super().document()
        document.pop("notify")
        document["schedule"] = {"jitter_s": 0}
        document["submission"]["nonce"] = "local"
        if self._url:
            document["ledger"] = {"url": self._url}
        return document


def disturbed(hospital: Hospital, folder: Path, url: str) -> tuple[Campaign, Beside, Ledger, int]:
    """The campaign; gives how many nights it took."""
    night = Clock(datetime.combine(FIRST - timedelta(days=1), datetime.min.time(), UTC))
    with ExitStack() as stack:
        undated(stack.enter_context(pytest.MonkeyPatch.context()))
        growing = Growing(hospital, night, LATE)
        facility = Beside(folder, growing, night, url)
        for server in (growing.server, facility.body):
            stack.enter_context(server)
        ledger = open_ledger(facility.config.ledger)
        campaign = Campaign(facility, ledger, night, SEED)
        stack.callback(campaign.stop)
        began = time.monotonic()
        for number in count():
            over = time.monotonic() - began > SECONDS if SECONDS else number == NIGHTS
            # the last night is a quiet one, on which everything that was cut off is made up for
            campaign.run_night(FIRST + timedelta(days=number), 0 if over else campaign.rng.randint(1, 2))
            if over:
                return campaign, facility, ledger, number + 1
    raise AssertionError


def undisturbed(hospital: Hospital, folder: Path, nights: int) -> tuple[Beside, dict[str, list[tuple[object, ...]]]]:
    """The same nights in this process, on SQLite, with nobody killed."""
    night = Clock(datetime.combine(FIRST - timedelta(days=1), datetime.min.time(), UTC))
    with ExitStack() as stack:
        stack.enter_context(moving(night))
        growing = Growing(hospital, night, LATE)
        facility = Beside(folder, growing, night)
        as_in_the_campaign(stack.enter_context(pytest.MonkeyPatch.context()))
        for server in (growing.server, facility.body):
            stack.enter_context(server)
        for number in range(nights):
            night.true = datetime.combine(FIRST + timedelta(days=number), datetime.min.time(), UTC)
            growing.arrive()
            night.off = timedelta(hours=2, minutes=30)
            facility.night()
            night.off = timedelta()
    assert facility.runs == {"complete": nights}
    ledger = open_ledger(facility.config.ledger)
    with ledger.read() as connection:
        found = content(connection)
    ledger.close()
    return facility, found


def overlapping(found: list[Stint]) -> list[tuple[Stint, Stint]]:
    """Stints of one job of which the second began before the first ended."""
    by_job: dict[str, list[Stint]] = {}
    for stint in found:
        by_job.setdefault(stint.job, []).append(stint)
    return [(one, other) for group in by_job.values() for one, other in pairwise(group) if other.begin < one.end]


def test_two_services_do_each_night_once_and_send_each_submission_once(postgres: Postgres, tmp_path: Path) -> None:
    hospital = build_hospital(11, patients=60, procedures=400)
    with postgres.database() as url:
        campaign, facility, ledger, nights = disturbed(hospital, tmp_path / "replicas", url)
        with ledger.read() as connection:
            check_database(connection, ledger.name)
            check_chain(connection)
            verify_audit(connection)
            runs = recent_runs(connection, 100_000)
            found = content(connection)
        ledger.close()
    other, expected = undisturbed(hospital, tmp_path / "undisturbed", nights)

    complete = [run.summary["as_of"] for run in reversed(runs) if run.state == "complete"]
    assert complete == [(FIRST + timedelta(days=number)).isoformat() for number in range(nights)]
    done = stints(campaign.witness, campaign.killed)
    assert overlapping(done) == []
    cut_off = sum(stint.cut_off and stint.job == "nightly" for stint in done)
    sent, received = other.received.submissions(), facility.received.submissions()
    sys.stdout.write(
        f"\n{nights} nights, {len(runs)} runs, {cut_off} of them cut off; killed {dict(campaign.kills)};"
        f"\n{len(received)} submissions, received {sum(one.times for one in received)} times\n"
    )
    assert cut_off, "nobody was killed at work, so nothing was shown"
    assert [one.identifier for one in received] == [one.identifier for one in sent]
    assert len(received) > 1
    with facility.received.reading() as connection:
        assert list(store_problems(connection)) == []
    assert found == expected
    for one in (facility, other):
        one.received.close()
