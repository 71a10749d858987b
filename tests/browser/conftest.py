"""One synthetic facility at which people sign in, its service, and a real browser before it, for all tests here.

The facility has had one night: its cases are drawn and pre-filled, and wait for the reviewers. The browser speaks to
nobody but the service; whatever it asks another for is a fault, and so is everything that its console complains of.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

from io_fhir_adapter.demo import TryOut, try_out
from io_fhir_adapter.ledger.audit import AuditEntry, entries
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.shipped import lacking_forms

FETCH = Path(__file__).resolve().parents[2] / ".ci" / "fetch_forms.py"
PATIENCE_MS = 90_000
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Watch:
    """What a browser did that it must not: requests to others, complaints in the console, dialogs."""

    origin: str
    elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        page.on("request", self._asked)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(error.stack or str(error)))
        page.on("dialog", self._asked_back)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:", "about:")):
            self.elsewhere.append(request.url)

    def _asked_back(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        # Chromium tells of every answer that is an error; which ones are wanted, the tests say themselves.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)


@dataclass
class Site:
    """The facility and its service, the receiver, and a browser."""

    shown: TryOut
    browser: Browser
    watch: Watch

    @property
    def url(self) -> str:
        return self.shown.url

    def visitor(self, **options: Any) -> Page:
        """A browser of somebody who was never here."""
        context = self.browser.new_context(**{"locale": "en", "viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        self.watch.on(page)
        context.on("page", self.watch.on)
        return page

    def signed_in(self, account: str, **options: Any) -> Page:
        """A browser of somebody who is signed in."""
        page = self.visitor(**options)
        page.goto(f"{self.url}/sign-in")
        page.get_by_label("Name", exact=True).fill(account)
        page.get_by_label("Password").fill(self.shown.password)
        page.locator("main").get_by_role("button").click()
        page.get_by_role("heading", level=1).wait_for()
        return page

    def audit(self) -> list[AuditEntry]:
        with self.shown.ledger.read() as connection:
            return list(entries(connection))


@pytest.fixture(scope="module")
def forms() -> None:
    """LHC-Forms' files, fetched where they are not there yet."""
    if not lacking_forms():
        return
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    if subprocess.run([sys.executable, str(FETCH)], capture_output=True, check=False).returncode:
        pytest.skip("npm cannot fetch packages")


@pytest.fixture(scope="module")
def chromium() -> str:
    """The program."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    return program


@contextmanager
def running(program: str) -> Iterator[Browser]:
    """A browser. As long as it runs, no other event loop runs in this thread: start it last, and end it soon."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS])
        yield browser
        browser.close()


def shown_form(page: Page) -> None:
    """Waits until LHC-Forms shows the form."""
    page.locator("#form[aria-busy=false]").wait_for()


@pytest.fixture(scope="module")
def site(forms: None, chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hospital = build_hospital(3, patients=600, procedures=3_000)
    folder = tmp_path_factory.mktemp("facility")
    with try_out(folder, lambda *_: None, hospital) as shown:
        assert (shown.night.problem, shown.night.submission, shown.received.submissions()) == (None, None, [])
        with running(chromium) as browser:
            yield Site(shown, browser, Watch(shown.url))


@pytest.fixture(autouse=True)
def _quiet_browser(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no request went elsewhere, and the console complained of nothing."""
    yield
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
        elsewhere, complaints = list(site.watch.elsewhere), list(site.watch.complaints)
        site.watch.elsewhere.clear()
        site.watch.complaints.clear()
        for context in site.browser.contexts:
            context.close()
        assert (elsewhere, complaints) == ([], [])
