"""Dashboard, readiness, submissions and dossier of a small facility that had its night: what each says, and to whom."""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from tests.pipeline.test_approval import Facility, facility_in
from tests.pipeline.test_approval import begun as begun  # noqa: PLC0414 - the fixture
from tests.serve.conftest import PASSWORD, Browser

from io_fhir_adapter.config import Role, StandingConfig
from io_fhir_adapter.demo import AS_OF
from io_fhir_adapter.engine.standing import years_under
from io_fhir_adapter.ledger.accounts import Actor, add_account
from io_fhir_adapter.ledger.audit import entries
from io_fhir_adapter.ledger.outbox import Receipt, item, items, put_receipt, settle
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.ledger.verdicts import BodyVerdict, put_verdict
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.report import dossier_files as papers
from io_fhir_adapter.serve.pages import figures, install_pages
from io_fhir_adapter.serve.web import Web

pytestmark = pytest.mark.xdist_group("approval")
SCRIPT = "<script>alert(1)</script>"
PEOPLE: dict[str, tuple[Role, ...]] = {
    "vogt": ("viewer",), "weber": ("reviewer",), "lang": ("approver",), "adler": ("administrator",),
}  # fmt: skip
NOW = datetime(2026, 1, 30, 8, tzinfo=UTC)


@dataclass
class Pages:
    """The pages of a facility, and who looks at them."""

    facility: Facility
    app: FastAPI
    runner: asyncio.Runner
    browsers: dict[str, Browser]

    def at(self, account: str) -> Browser:
        if account not in self.browsers:
            self.browsers[account] = Browser(self.app, self.runner, "http://localhost")
            assert self.browsers[account].sign_in(account).status_code == 303
        return self.browsers[account]

    def text(self, path: str, account: str = "vogt", **more: Any) -> str:
        answer = self.at(account).get(path, **more)
        assert answer.status_code == 200, path
        return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())

    def audit(self) -> list[tuple[str, str, str, str]]:
        with self.facility.ledger.read() as connection:
            return [(one.agent, one.action, one.entity, one.detail) for one in entries(connection)]

    def close(self) -> None:
        for browser in self.browsers.values():
            browser.close()


Open = Callable[..., Pages]


@pytest.fixture
def opened(begun: Path, tmp_path: Path, hasher: PasswordHasher) -> Iterator[Open]:
    """Opens the pages of a facility of one's own after its first night; with ``standing`` and sealed where asked."""
    shutil.copytree(begun, tmp_path / "facility")
    made: list[Pages] = []
    with facility_in(tmp_path / "facility") as facility, asyncio.Runner() as runner:

        def open_pages(*, sealed: bool = False, standing: dict[str, str] | None = None) -> Pages:
            if sealed:
                facility.sign_all()
                asyncio.run(facility.desk().propose())
            told = (StandingConfig.model_validate({"programme": "iasios", **standing}),) if standing else ()
            config = facility.config.model_copy(update={"standing": told})
            passwords = Passwords(hasher)
            web = Web(config, facility.ledger, passwords=passwords, clock=lambda: NOW)
            app = FastAPI(openapi_url=None)
            web.install(app)
            install_pages(app, web, facility.job().ruleset, AS_OF)
            with facility.ledger.begin() as connection:
                for name, roles in PEOPLE.items():
                    hashed = passwords.hash(PASSWORD)
                    add_account(
                        connection, name, name.title(), hashed, roles, one_time=False, by=Actor("console", ""), at=NOW
                    )
            made.append(Pages(facility, app, runner, {}))
            return made[-1]

        yield open_pages
        for one in made:
            one.close()


def test_the_first_page_has_the_numbers_of_the_night_for_every_role(opened: Open) -> None:
    pages = opened()
    night = pages.facility.job()
    volume = night.count(night.period)
    for account in PEOPLE:
        text = pages.text("/", account)
        assert f"Volume 2025 {volume.counted} of 150 counted" in text
        assert f"{volume.possible} possible, with {volume.review} for review" in text
        assert "0 of 3 signed" in text
        assert "Nothing was sealed yet" in text
    page = pages.at("vogt").get("/").text
    assert page.count('<svg class="wide"') == page.count('<details class="behind">') == 2
    table = page.partition('aria-label="Counted sessions by month"')[2].partition("</table>")[0]
    assert sum(map(int, re.findall(r"<strong>(\d+)</strong>", table))) == volume.counted
    steps = {step.code: step for step in volume.funnel}
    assert f"{steps['read'].count:,}" in pages.text("/")
    assert "Proof that nothing is missing" in page
    assert re.findall(r"Patient/|Procedure/\w", page) == []
    german = pages.text("/", headers={"Accept-Language": "de"})
    assert f"{volume.counted} von 150 gezählt" in german
    assert "2026 bisher" in german
    assert "Volume 2026 0 of 150 counted" in pages.text("/?year=2026")


def test_years_are_counted_once_for_each_state_of_the_ledger(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = opened()
    asked: list[str] = []
    count = years_under

    def counted(connection: Any, rules: Any, today: Any) -> Any:
        asked.append(rules.programme.id)
        return count(connection, rules, today)

    monkeypatch.setattr(figures, "years_under", counted)
    for _ in range(3):
        pages.text("/")
        pages.text("/readiness")
    assert asked == ["iasios"]
    with pages.facility.ledger.begin() as connection:
        finish_run(connection, start_run(connection, NOW), NOW + timedelta(minutes=1), "complete", {})
    pages.text("/")
    assert asked == ["iasios", "iasios"]


def test_a_page_does_not_wait_for_a_long_count(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = opened()
    may_end, count = threading.Event(), years_under

    def slow(*arguments: Any) -> Any:
        assert may_end.wait(60)
        return count(*arguments)

    monkeypatch.setattr(figures, "years_under", slow)
    monkeypatch.setattr(figures, "_PATIENCE_S", 0.01)
    for path in ("/", "/readiness?programme=degir"):
        answer = pages.at("vogt").get(path)
        assert (answer.status_code, answer.headers["refresh"]) == (200, "4")
        assert "loads itself again" in answer.text
    may_end.set()
    monkeypatch.setattr(figures, "_PATIENCE_S", 60)
    assert "refresh" not in pages.at("vogt").get("/").headers


def test_readiness_says_what_is_missing_and_shows_other_programmes(opened: Open) -> None:
    pages = opened()
    for account in PEOPLE:
        text = pages.text("/readiness", account)
        assert "Still missing: Annual volume, Core requirements of the standards, Internal case review" in text
        assert "Only people know: enter the day as standing.approved in the configuration." in text
        assert "Not answered: there is no self-assessment yet." in text
        assert "3 of 3 drawn" in text
    german = pages.text("/readiness", headers={"Accept-Language": "de"})
    assert "Kernanforderungen der Standards noch nicht" in german
    degir = pages.text("/readiness?programme=degir")
    for module in "ABC":
        assert f"Module {module}, training site" in degir
    assert "Annual volume" in degir  # module D's is the programme's own threshold
    assert "Module D, centre unknown" in degir
    assert "All modules, centre unknown" in degir
    assert pages.text("/readiness?programme=../../etc") == pages.text("/readiness")


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        ({"enrolled": "2025-02-03"}, "Enrolled Centre since 3 February 2025"),
        ({"enrolled": "2023-02-03", "accredited": "2024-02-29"}, "after 4 years. Not before 29 February 2028."),
        ({"enrolled": "2019-02-03", "accredited": "2021-02-03"}, "extended requirements (23 not said to be met)"),
    ],
)
def test_the_way_to_the_seal_knows_the_four_years(opened: Open, standing: dict[str, str], said: str) -> None:
    assert said in opened(standing=standing).text("/readiness")


def test_submissions_are_told_in_words_and_nothing_of_them_is_markup(opened: Open) -> None:
    pages = opened(sealed=True)
    ledger, identifier = pages.facility.ledger, pages.facility.proposal().identifier
    assert "Submission for 2025 waits for approval" in pages.text("/submissions")
    with ledger.begin() as connection:
        settle(connection, identifier, "parked", f"gave up {SCRIPT}")
        for number, kind in enumerate(("transient", "rejected")):
            moment = (NOW + timedelta(minutes=number)).isoformat()
            put_receipt(connection, Receipt(identifier, moment, 503, kind, f"no {SCRIPT}", b"{}"))
        put_verdict(
            connection, BodyVerdict(identifier, "correction-asked", f"why {SCRIPT}", "", NOW.isoformat(), b"{}")
        )
    text = pages.text("/submissions")
    assert "sending was given up for now" in text
    assert "What the body says asks for a correction" in text
    assert text.index("rejected no") < text.index("to be tried again no")
    for account in PEOPLE:
        page = pages.at(account).get("/submissions").text
        assert "<script" not in page
        assert page.count("&lt;script&gt;") == 4
        assert ("Try once more" in page) == (account in ("lang", "adler"))
    assert SCRIPT not in pages.at("vogt").get("/").text


def test_what_was_parked_is_tried_again_by_who_may_and_that_is_noted(opened: Open) -> None:
    pages = opened(sealed=True)
    ledger, identifier = pages.facility.ledger, pages.facility.proposal().identifier
    again = {"identifier": identifier}

    def state() -> str:
        with ledger.read() as connection:
            found = item(connection, identifier)
        return found.state if found is not None else ""

    assert pages.at("adler").fill("/submissions", again, "/submissions/retry").status_code == 409
    with ledger.begin() as connection:
        settle(connection, identifier, "parked", "gave up")
    assert pages.at("vogt").fill("/submissions", again, "/submissions/retry").status_code == 403
    assert pages.at("adler").post("/submissions/retry", again).status_code == 403
    assert state() == "parked"
    answer = pages.at("adler").fill("/submissions", again, "/submissions/retry")
    assert (answer.status_code, answer.headers["location"]) == (303, "/submissions?done=retried")
    assert state() == "queued"
    assert pages.audit()[-1] == ("adler", "E", f"Submission/{identifier}", "tried once more")


def test_an_approver_withdraws_what_was_accepted_for_a_reason_and_once(opened: Open) -> None:
    pages = opened(sealed=True)
    ledger, identifier = pages.facility.ledger, pages.facility.proposal().identifier
    taken = {"identifier": identifier, "reason": "counted-wrongly"}
    assert "Withdraw this submission" not in pages.text("/submissions", "lang")  # nobody has it yet
    assert pages.at("lang").fill("/submissions", taken, "/submissions/withdraw").status_code == 409
    with ledger.begin() as connection:
        settle(connection, identifier, "accepted")
    for account in PEOPLE:
        assert ("Withdraw this submission" in pages.text("/submissions", account)) == (account == "lang")
        if account != "lang":
            assert pages.at(account).fill("/submissions", taken, "/submissions/withdraw").status_code == 403
    unsaid = pages.at("lang").fill("/submissions", {**taken, "reason": ""}, "/submissions/withdraw")
    assert (unsaid.status_code, "Give a reason" in unsaid.text) == (422, True)
    for reason in ("counted-wrongly", "other"):
        answer = pages.at("lang").fill("/submissions", {**taken, "reason": reason}, "/submissions/withdraw")
        assert (answer.status_code, answer.headers["location"]) == (303, "/submissions?done=withdrawn")
        with ledger.begin() as connection:
            made, _ = items(connection)
            settle(connection, made.identifier, "accepted")
    assert pages.audit()[-1] == ("lang", "E", f"Submission/{identifier}", "withdrawn: counted-wrongly")
    text = pages.text("/submissions?done=withdrawn", "lang")
    assert "Withdrawal for 2025" in text
    assert "The withdrawal is made" in text


def test_the_dossier_is_made_from_the_sealed_submission_for_an_approver(opened: Open) -> None:
    assert "Nothing is sealed yet" in opened().text("/dossier", "lang")


def test_each_paper_has_the_digest_of_the_submission_and_each_download_is_noted(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = opened(sealed=True)
    identifier = pages.facility.proposal().identifier
    text = pages.text("/dossier", "lang")
    assert identifier in text
    assert "These papers are a draft: nobody approved the submission yet." in text

    def download(name: str) -> httpx.Response:
        answer = pages.at("lang").get(f"/dossier/{name}")
        assert (answer.status_code, "attachment" in answer.headers["content-disposition"]) == (200, True)
        assert pages.audit()[-1] == ("lang", "R", f"Submission/{identifier}", f"dossier downloaded: {name}")
        return answer

    assert identifier in download("method.csv").text
    made = download("dossier.zip").content
    assert made == download("dossier.zip").content
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert set(archive.namelist()) == {
            "volume.csv", "cases.csv", "standards.csv", "method.csv", "dossier.xlsx", "dossier.pdf"
        }  # fmt: skip
        assert archive.read("dossier.pdf").startswith(b"%PDF")
    noted = len(pages.audit())
    for account in ("vogt", "weber", "adler"):
        assert pages.at(account).get("/dossier/method.csv").status_code == 403
    assert pages.at("lang").get("/dossier/passwd").status_code == 404
    assert len(pages.audit()) == noted + 3  # the sign-ins
    monkeypatch.setattr(papers, "find_spec", lambda name: None if name == "typst" else True)
    assert "dossier.pdf cannot be made here: its library is not installed (pip install &#39;io" in (
        pages.at("lang").get("/dossier").text
    )
    assert pages.at("lang").get("/dossier/dossier.pdf").status_code == 404
