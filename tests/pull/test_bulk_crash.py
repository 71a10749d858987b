"""A pull by export that dies: the next one goes on with the same export and ends with the same ledger."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.pull.bulk import pull_bulk
from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.faults import Faults, PageFault
from io_fhir_adapter.transport.client import FhirClient

Make = Callable[..., Any]
QUICK = {"poll_min_s": 0, "poll_max_s": 0.01, "concurrency": 1}
MANY_FILES = Faults(bulk=BulkFaults(per_file=3, per_manifest=2, polls=2))


class Died(BaseException):
    """The process is gone: nothing handles it."""


class DyingLedger(Ledger):
    """A ledger whose process dies at one of its transactions: before it is committed, or just after."""

    at = 0
    committed = False
    begun = 0
    last_wish: Callable[[], object] = staticmethod(lambda: False)  # it also dies after the first commit that fulfils it

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        self.begun += 1
        number = self.begun
        with super().begin() as connection:
            yield connection
            if number == self.at and not self.committed:
                raise Died
        if number == self.at or self.last_wish():
            raise Died


def under_way(site: Any, *, done: bool = False) -> Callable[[], object]:
    """Whether an export has been kicked off, or is done on the server, as the ledger has it."""
    return lambda: [row for row in site._rows("select manifest from bulk_jobs") if bool(row[0]) == done]


def bulk(site: Any, **more: Any) -> Any:
    """One pull by export."""
    return site.pull(strategy="bulk", bulk=QUICK, overlap_minutes=0, **more)


def kick_offs(site: Any) -> int:
    """How many exports were asked for."""
    return sum(one["path"].endswith("$export") for one in site.requests())


def files(site: Any) -> list[str]:
    """The files that were fetched."""
    return [one["path"] for one in site.requests() if "bulk-file" in one["path"]]


@pytest.fixture
def whole(make_site: Make) -> tuple[list[Any], int]:
    """The facts of a pull that nothing disturbs, and the number of its transactions."""
    site = make_site()
    site.switch(MANY_FILES)
    site.ledger.__class__ = DyingLedger
    assert bulk(site).error == ""
    return site.facts(), site.ledger.begun


@pytest.mark.parametrize("committed", [False, True])
def test_dying_at_any_transaction(make_site: Make, whole: tuple[list[Any], int], committed: bool) -> None:
    facts, transactions = whole
    assert transactions > 8
    for at in range(2, transactions + 1):  # the first one numbers the run
        other = make_site()
        other.switch(MANY_FILES)
        other.ledger.__class__ = DyingLedger
        other.ledger.at, other.ledger.committed = at, committed
        with pytest.raises(Died):
            bulk(other)
        other.ledger.at = 0
        other.switch(MANY_FILES)
        assert bulk(other).error == ""
        assert other.facts() == facts
        assert other.stale() == {"Patient/a", "Patient/b", "Patient/c"}
        assert other._rows("select * from bulk_jobs") == []
        assert not other.ledger_path.with_name(f"{other.ledger_path.name}-bulk-s").exists()


def test_what_was_downloaded_is_not_downloaded_again(make_site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site()
    site.switch(MANY_FILES)
    real, left = os.replace, [4]

    def dying(source: Any, target: Any) -> None:
        if not left[0]:
            raise Died
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(Died):
        bulk(site)
    monkeypatch.undo()
    outcome = bulk(site)
    assert outcome.error == ""
    assert outcome.notes == ["an export that an earlier run had begun was gone on with"]
    assert kick_offs(site) == 1
    assert len(files(site)) == len(set(files(site))) + 1  # the one that was being downloaded


def test_an_export_that_expired_meanwhile_is_made_again(make_site: Make, whole: tuple[list[Any], int]) -> None:
    site = make_site(own=True)
    site.switch(MANY_FILES)
    site.ledger.__class__ = DyingLedger
    site.ledger.last_wish = under_way(site, done=True)
    with pytest.raises(Died):
        bulk(site)
    del site.ledger.last_wish
    site.app._bulk._jobs.clear()
    outcome = bulk(site)
    assert outcome.error == ""
    assert "the server's export had expired; it was made once more" in outcome.notes
    assert site.facts() == whole[0]


def test_another_wish_does_not_go_on_with_an_old_export(make_site: Make) -> None:
    site = make_site()
    site.switch(MANY_FILES)
    site.ledger.__class__ = DyingLedger
    site.ledger.last_wish = under_way(site)
    with pytest.raises(Died):
        bulk(site)
    del site.ledger.last_wish
    outcome = site.pull(strategy="bulk", bulk={**QUICK, "level": "patient"})
    assert (outcome.error, outcome.notes) == ("", [])
    assert kick_offs(site) == 2
    assert sum(one["method"] == "DELETE" for one in site.requests()) == 2


WORKER = """
import asyncio, json, os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull.sources import pull_sources
config = Config.model_validate(json.loads(sys.argv[1]))
left = int(sys.argv[2])
def progress(what, done, total):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
ledger = open_ledger(config.ledger)
with ledger.begin() as connection:
    run = start_run(connection, datetime.now(UTC))
(outcome,) = asyncio.run(pull_sources(config, ledger, load_ruleset(), run, progress))
ledger.close()
sys.exit(outcome.error)
"""


@pytest.mark.parametrize("steps", [1, 5, 9, 15])
def test_kill_minus_nine(make_site: Make, whole: tuple[list[Any], int], steps: int) -> None:
    site = make_site()
    site.switch(MANY_FILES)
    source = {
        "name": "s", "kind": "fhir", "url": f"{site.url}/fhir", "strategy": "bulk", "bulk": QUICK, "page_size": 5,
        "overlap_minutes": 0,
    }  # fmt: skip
    config = {"facility": {"code": "F"}, "sources": [source], "ledger": {"path": str(site.ledger_path)}}
    command = [sys.executable, "-c", WORKER, json.dumps(config), str(steps)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    outcome = bulk(site)
    assert outcome.error == ""
    assert site.facts() == whole[0]
    assert kick_offs(site) == 1
    assert site._rows("select * from bulk_jobs") == []


@pytest.mark.parametrize("searches", [True, False])
def test_dying_while_a_new_patient_is_read(make_site: Make, kit: Any, searches: bool) -> None:
    """Whoever is on record is one whose Conditions were read; so nobody is left without them."""
    refused = tuple(
        PageFault("error", token=f"/fhir/{kind}?", status=403, times=None)
        for kind in ("Patient", "Condition", "Encounter")
    )
    faults = Faults(page_faults=() if searches else refused, bulk=BulkFaults(polls=0))

    def night(at: int) -> Any:
        site = make_site()
        site.switch(Faults(bulk=BulkFaults(polls=0)))
        assert bulk(site).error == ""
        site.store.put(kit.procedure("fresh", "d", encounter={"reference": "Encounter/e3"}, meta={}))
        site.store.put(kit.person("d", gender="male", meta={}))
        site.switch(faults)
        site.ledger.__class__ = DyingLedger
        site.ledger.at = at
        if at:
            with pytest.raises(Died):
                bulk(site)
            site.ledger.at = 0
            site.switch(faults)
        assert bulk(site).error == ""
        return site

    whole = night(0)
    assert {"c3", "c7"} <= set(whole.ids("Condition"))
    for at in range(2, whole.ledger.begun + 1):
        assert night(at).facts() == whole.facts()


def test_a_full_disk_leaves_nothing_behind(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    outcome = bulk(site)
    monkeypatch.undo()
    assert "the downloaded files cannot be kept (No space left on device)" in outcome.error
    assert not site.ledger_path.with_name(f"{site.ledger_path.name}-bulk-s").exists()
    assert (site.facts(), site.cursor()) == ([], "")
    assert bulk(site).error == ""


def test_a_folder_that_cannot_be_made(site: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = site.pull(strategy="bulk", bulk={**QUICK, "folder": str(tmp_path / "file")})
    assert "the downloaded files cannot be kept" in outcome.error


def test_a_folder_of_its_own_is_for_its_owner_alone(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = Path.replace

    def noting(self: Path, target: Any) -> Any:
        modes.extend([self.parent.stat().st_mode & 0o777, self.parent.parent.stat().st_mode & 0o777])
        return real(self, target)

    monkeypatch.setattr(Path, "replace", noting)
    assert site.pull(strategy="bulk", bulk={**QUICK, "folder": str(tmp_path / "spool")}).error == ""
    assert set(modes) == {0o700}
    assert list((tmp_path / "spool").iterdir()) == []
    assert not site.ledger_path.with_name(f"{site.ledger_path.name}-bulk-s").exists()


def test_a_ledger_that_is_no_file_needs_a_folder(site: Any) -> None:
    config = site._config({"strategy": "bulk"})

    async def pull() -> Any:
        source = config.sources[0]
        async with FhirClient(source, "sources.s") as client:
            postgres = LedgerConfig(url="postgresql+psycopg://user@db.example/ledger")
            return await pull_bulk(source, postgres, client, site.ledger, None, UTC, 1, print)  # type: ignore[arg-type]

    assert "bulk.folder is missing" in asyncio.run(pull()).error


def test_an_older_export_of_records_is_not_mixed_with_a_newer_one_of_changes(make_site: Make, kit: Any) -> None:
    site = make_site(own=True)
    refused = tuple(PageFault("error", token=f"/fhir/{kind}?", status=403, times=None)
                    for kind in ("Patient", "Condition", "Encounter"))  # fmt: skip
    faults = Faults(page_faults=refused, bulk=BulkFaults(polls=0))
    site.switch(faults)
    assert bulk(site).error == ""
    site.store.put(kit.procedure("fresh", "d", encounter={"reference": "Encounter/e3"}, meta={}))
    site.ledger.__class__ = DyingLedger
    assert bulk(site).error == ""

    site.store.put(kit.procedure("p03", "d", "5-501.a3", meta={}))
    site.store.put(kit.procedure("other", "e", encounter={"reference": "Encounter/e11"}, meta={}))
    site.ledger.last_wish = lambda: site._rows("select key from bulk_jobs where purpose = 'background'")
    with pytest.raises(Died):
        bulk(site)
    assert [row[1] for row in site._rows("select source, purpose from bulk_jobs")] == ["background", "changes"]
    connection = sqlite3.connect(site.ledger_path)
    connection.execute("delete from bulk_jobs where purpose = 'changes'")  # it had expired
    connection.commit()
    connection.close()
    del site.ledger.last_wish
    before = kick_offs(site)
    assert bulk(site).error == ""
    assert kick_offs(site) == before + 2


def test_older_records_of_new_patients_are_not_read(make_site: Make, kit: Any) -> None:
    site = make_site()
    refused = tuple(PageFault("error", token=f"/fhir/{kind}?", status=403, times=None)
                    for kind in ("Patient", "Condition", "Encounter"))  # fmt: skip
    faults = Faults(page_faults=refused, bulk=BulkFaults(polls=0))
    site.switch(faults)
    assert bulk(site).error == ""
    site.store.put(kit.procedure("fresh", "d", meta={}))
    site.ledger.__class__ = DyingLedger
    site.ledger.last_wish = lambda: site._rows("select key from bulk_jobs where purpose = 'background'")
    with pytest.raises(Died):
        bulk(site)
    del site.ledger.last_wish
    site.switch(Faults(page_faults=refused, bulk=BulkFaults(polls=0, transaction_time="2020-01-01T00:00:00Z")))
    assert "older than what is on record" in bulk(site).error
    assert "c3" not in site.ids("Condition")
    site.switch(faults)
    assert bulk(site).error == ""
    assert {"c3", "c7"} <= set(site.ids("Condition"))


@pytest.mark.parametrize("token", ["bulk-status", "bulk-file"])
def test_an_export_that_has_failed_for_good_is_made_anew_by_the_next_run(site: Any, token: str) -> None:
    site.switch(Faults(page_faults=(PageFault("error", token=token, times=None),)))
    assert "(HTTP 500" in bulk(site, retries=0).error
    ((url,),) = site._rows("select status_url from bulk_jobs")
    broken = f"{token}/{url.rpartition('/')[2]}"
    site.switch(Faults(page_faults=(PageFault("error", token=broken, times=None),)))
    outcome = bulk(site, retries=0)
    assert outcome.error == ""
    assert "the server fails at an export that an earlier run had begun; it was made once more" in outcome.notes
    assert kick_offs(site) == 2
    assert site._rows("select * from bulk_jobs") == []


@pytest.mark.parametrize("token", ["bulk-status", "bulk-file"])
def test_an_export_that_a_busy_server_does_not_give_is_kept(site: Any, token: str) -> None:
    for _ in range(2):
        site.switch(Faults(page_faults=(PageFault("error", token=token, status=503, times=None),)))
        assert "(HTTP 503" in bulk(site, retries=0).error
    site.switch(Faults())
    assert bulk(site, retries=0).error == ""
    assert kick_offs(site) == 1
