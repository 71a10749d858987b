"""Nights on which the accreditation system has not given the nonce yet: all else is done, and one line says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.cli.console import show_night
from io_fhir_adapter.demo import AS_OF, demo_config
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.ledger.chain import links
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.night import Night
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.trust.verify import verify_submission


class Slow:
    """The receiver, whose Tasks nobody finds until it is told so."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.slow = True

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if self.slow and scope.get("path") == "/fhir/Task":
            scope = {**scope, "query_string": b"identifier=nothing"}
        await self._app(scope, receive, send)


class Site:
    """A hospital, a receiver, and a job between them for each night."""

    def __init__(self, stack: ExitStack, hospital: Hospital, folder: Path) -> None:
        resources = [one for found in hospital.resources.values() for one in found]
        self.received = ReceiverStore()
        stack.callback(self.received.close)
        self.receiver = Slow(receiver_app(self.received))
        source = stack.enter_context(LoopbackServer(sandbox_app(SandboxStore.from_resources(resources, (), ()))))
        target = stack.enter_context(LoopbackServer(self.receiver))
        self.config = demo_config(f"{source.base_url}/fhir", f"{target.base_url}/fhir", folder)
        self.ledger: Ledger = open_ledger(self.config.ledger)
        stack.callback(self.ledger.close)
        self.rules = rules_for(self.config)

    @property
    def job(self) -> Nightly:
        return Nightly(self.config, self.ledger, self.rules, as_of=AS_OF)

    def night(self) -> Night:
        return asyncio.run(self.job.run())

    def kinds(self) -> list[str]:
        with self.ledger.read() as connection:
            return [link.kind for link in links(connection)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack, build_hospital(7, patients=60, procedures=300), tmp_path)


def test_a_waiting_draw_holds_up_nothing_else_and_is_made_when_the_nonce_comes(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    first = site.night()
    assert (first.problem, first.submission, first.delivered) == (None, None, [])
    assert first.volume is not None
    assert first.volume.counted > 0
    assert first.report is not None
    assert first.sample is not None
    assert (first.sample.cases, first.sample.draw.nonce) == ((), "")
    show_night(first)
    shown = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Case review")]
    assert len(shown) == 1
    assert "has given none yet" in shown[0]
    assert site.received.submissions() == []

    assert site.night().submission is None
    site.receiver.slow = False
    done = site.night()
    assert done.submission is not None
    assert done.submission.state == "accepted"
    assert done.sample is not None
    assert done.sample.draw.digest == first.sample.draw.digest
    assert site.kinds() == ["frame-committed", "frame-announced", "nonce", "drawn"]
    found = {finding.check: finding for finding in verify_submission(json.loads(done.submission.body))}
    assert all(finding.holds for finding in found.values())
    assert "nonce: task" in found["draw"].words
    assert len(site.received.submissions()) == 1


def test_what_needs_the_cases_says_that_they_are_not_drawn(site: Site) -> None:
    site.night()
    asked = asyncio.run(site.job.submit())
    assert isinstance(asked.problem, ReviewError)
    assert asked.problem.transient
    assert asyncio.run(site.job.draw()).cases == ()


def test_a_dry_run_announces_nothing(site: Site) -> None:
    asyncio.run(site.job.run(dry_run=True))
    assert site.kinds() == []
    assert site.received.search("Group", "identifier", None, "", None) == []


@pytest.mark.parametrize("at", ["put_announced", "put_nonce", "draw_sample"])
def test_a_run_that_dies_goes_on_with_the_same_commitment_and_nonce(
    site: Site, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    site.receiver.slow = False
    module = "io_fhir_adapter.pipeline" if at == "draw_sample" else "io_fhir_adapter.submit.announce"
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{at}", die)
        with pytest.raises(KeyboardInterrupt):
            site.night()
    (before,) = site.received.search("Task", "identifier", None, _frame(site), None)
    done = site.night()
    assert done.sample is not None
    assert site.kinds() == ["frame-committed", "frame-announced", "nonce", "drawn"]
    (after,) = site.received.search("Task", "identifier", None, _frame(site), None)
    assert before.content == after.content
    assert done.sample.draw.nonce == after.content["input"][0]["valueString"]
    assert done.submission is not None
    assert done.submission.state == "accepted"


def _frame(site: Site) -> str:
    with site.ledger.read() as connection:
        (committed,) = [link for link in links(connection) if link.kind == "frame-committed"]
    return str(committed.body["frame"])
