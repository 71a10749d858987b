"""The standards self-assessment in the browser: who answers, drafts that cannot overwrite each other, and evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.serve.conftest import Browser

from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.classify.ruleset import rules_for
from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.assessments import (
    Evidence,
    add_evidence,
    assessment_of,
    draft_of,
    drop_evidence,
    evidence_of,
    put_assessment,
    put_evidence,
    save_draft,
)
from io_fhir_adapter.report.standards import checklist, questionnaire, requirements, tally
from io_fhir_adapter.review.completing import accept
from io_fhir_adapter.review.forms import canonical, items
from io_fhir_adapter.serve.language import translator
from io_fhir_adapter.serve.pages import install_pages
from io_fhir_adapter.serve.pages.standards_form import asked_form, shown_form

Json = dict[str, Any]
Site = Any  # of conftest
Make = Callable[..., Site]
IASIOS = load_programme("iasios")
FORM = asked_form(IASIOS)
CODES = next(item for item in items(FORM) if item.get("answerOption"))["answerOption"][0]["valueCoding"]["system"]
CORE = [one.link_id for one in requirements(IASIOS) if one.kind == "core"]
SHA = "0a" * 32


@pytest.fixture
def here(site: Make) -> Site:
    """A facility with pages, and somebody of each role."""
    made = site()
    install_pages(made.app, made.web, rules_for(made.config))
    for name, role in (("vogt", "viewer"), ("weber", "reviewer"), ("lang", "approver"), ("adler", "administrator")):
        made.account(name, role)
    return made


def someone(here: Site, account: str) -> Browser:
    browser: Browser = here.browser()
    browser.sign_in(account)
    return browser


def answers(links: list[str], code: str = "met") -> Json:
    """A response to the form as a browser would post it."""

    def inside(node: Json) -> list[Json]:
        made = []
        for item in node.get("item", ()):
            if item["linkId"] in links:
                made.append({"linkId": item["linkId"], "answer": [{"valueCoding": {"system": CODES, "code": code}}]})
            elif inner := inside(item):
                made.append({"linkId": item["linkId"], "item": inner})
        return made

    return {"resourceType": "QuestionnaireResponse", "questionnaire": canonical(FORM), "item": inside(FORM)}


def post(browser: Browser, path: str, revision: int, posted: Json) -> httpx.Response:
    headers = {"X-CSRF-Token": browser.token("/standards?read=1"), "Accept": "application/json"}
    return browser.ask("POST", path, json={"revision": revision, "answers": posted}, headers=headers)


def known(here: Site) -> tuple[Any, Any, Any]:
    with here.ledger.read() as connection:
        return assessment_of(connection, "iasios"), draft_of(connection, "iasios"), evidence_of(connection, "iasios")


def test_everybody_reads_and_only_approvers_and_administrators_answer(here: Site) -> None:
    for account in ("vogt", "weber", "lang", "adler"):
        browser = someone(here, account)
        page = browser.get("/standards?read=1").text
        assert page.count("not answered") >= len(CORE)
        saved = post(browser, "/standards/draft", known(here)[1].revision, answers(CORE[:1]))
        named = browser.fill("/standards?read=1", {"link": CORE[0], "name": "a", "size": 1, "sha256": SHA},
                             "/standards/evidence")  # fmt: skip
        may = account in ("lang", "adler")
        assert (saved.status_code, named.status_code) == ((200, 303) if may else (403, 403))
        assert ('id="evidence-file"' in browser.get("/standards").text) == may
    assert known(here)[1].by == "adler"


def test_drafts_do_not_overwrite_each_other(here: Site) -> None:
    lang, adler = someone(here, "lang"), someone(here, "adler")
    assert post(lang, "/standards/draft", 0, answers(CORE[:2])).json() == {"revision": 1}
    answer = post(adler, "/standards/draft", 0, answers(CORE[:1]))
    assert (answer.status_code, answer.json()["code"]) == (409, "IOA-LED-080")
    checked = post(adler, "/standards/check", 1, answers(CORE[:3])).json()
    assert (checked["revision"], len(checked["open"])) == (2, 50 - 3)
    assert checked["open"][0]["text"] == "Standard 1, Core requirement 4 (letter f)"
    taken, draft, _ = known(here)
    assert (taken, draft.by, tally(checklist(IASIOS, draft.response), "core").met) == (None, "adler", 3)
    strange = post(adler, "/standards/draft", 2, {**answers(CORE[:1]), "item": [{"linkId": "<b>", "item": []}]})
    assert (strange.status_code, known(here)[1]) == (422, draft)


def test_answers_are_taken_once_every_core_requirement_has_one(here: Site) -> None:
    lang = someone(here, "lang")
    lang.fill("/standards?read=1", {"link": CORE[0], "name": "C:\\x\\plan.pdf", "size": 7, "sha256": SHA},
              "/standards/evidence")  # fmt: skip
    refused = post(lang, "/standards/take", 0, answers(CORE[1:]))
    assert (refused.status_code, refused.json()["message"]) == (422, "Core requirements without an answer: 1")
    assert known(here)[0] is None
    done = post(lang, "/standards/take", refused.json()["revision"], answers(CORE))
    assert done.json() == {"next": "/standards?done=taken"}
    taken, draft, _ = known(here)
    assert (taken.response["status"], draft.response) == ("completed", None)
    lines = checklist(IASIOS, taken.response)
    assert tally(lines, "core").met == 27
    assert lines[0].evidence == (("plan.pdf", SHA),)
    stale = post(lang, "/standards/draft", refused.json()["revision"] + 1, answers(CORE[:1]))
    assert stale.status_code == 409  # whoever still had the draft open is told
    assert [(one.agent, one.detail) for one in here.audit()][-2:] == [
        ("lang", "evidence named"), ("lang", "self-assessment taken"),
    ]  # fmt: skip
    assert "plan.pdf" not in str([(one.entity, one.detail) for one in here.audit()])
    page = someone(here, "vogt").get("/standards", headers={"Accept-Language": "de"}).text
    assert page.count("answer-met") == 27
    assert "Selbsteinschätzung zu den Standards" in page


def test_evidence_is_a_name_a_size_and_a_digest(here: Site) -> None:
    lang = someone(here, "lang")
    good = {"link": CORE[0], "name": "Dienst\x00plan <b>.pdf", "size": 12_345, "sha256": SHA}
    bad: list[Json] = [
        {"sha256": "zz" * 32}, {"sha256": SHA[:-1]}, {"link": "standard-1.further"}, {"link": "section-I"},
        {"name": "/"}, {"size": -1}, {"name": "a" * 5_000},
    ]  # fmt: skip
    for change in bad:
        answer = lang.fill("/standards?read=1", {**good, **change}, "/standards/evidence")
        assert answer.status_code in (400, 422), change
    for _ in range(2):
        assert lang.fill("/standards?read=1", good, "/standards/evidence").status_code == 303
    (kept,) = known(here)[2]
    assert (kept.link_id, kept.name, kept.size, kept.sha256, kept.by) == (
        CORE[0], "Dienstplan <b>.pdf", 12_345, SHA, "lang",
    )  # fmt: skip
    page = lang.get("/standards").text
    assert "Dienstplan &lt;b&gt;.pdf" in page
    assert '<input type="file" id="evidence-file" required>' in page  # without a name no browser sends the file
    told = lang.get("/standards/evidence.json").json()
    (document,) = (entry["resource"] for entry in told["entry"])
    assert document["resourceType"] == "DocumentReference"
    assert document["content"][0]["attachment"] == {"title": "Dienstplan <b>.pdf", "size": 12_345}
    assert SHA in json.dumps(document["identifier"])
    assert here.audit()[-1].detail == "evidence downloaded"
    lang.fill("/standards?read=1", {"link": CORE[0], "sha256": SHA}, "/standards/evidence/remove")
    assert known(here)[2] == ()


def test_the_shown_form_is_answered_into_the_same_codes(here: Site) -> None:
    german = shown_form(IASIOS, translator("de"))
    texts = [item["text"] for item in items(german)]
    assert "Abschnitt I: Staff and Facilities" in texts
    assert "Kernanforderung 1 (Buchstabe a)" in texts
    assert [item["linkId"] for item in items(german)] == [item["linkId"] for item in items(FORM)]
    assert not re.search("evidence", json.dumps(german["item"]))
    posted = json.loads(json.dumps(answers(CORE)))
    for node in items(posted):
        for answer in node.get("answer", ()):
            answer["valueCoding"]["display"] = "erfüllt"
    head = {"resourceType": "QuestionnaireResponse", "questionnaire": canonical(FORM)}
    assert "erfüllt" not in json.dumps(accept(FORM, posted, head), ensure_ascii=False)


def test_a_programme_without_standards_has_no_such_page(site: Make) -> None:
    made = site()
    install_pages(made.app, made.web, rules_for(made.config.model_copy(update={"programme": "degir"})))
    made.account("lang", "approver")
    browser = someone(made, "lang")
    assert browser.get("/standards").status_code == 404
    assert 'href="/standards"' not in browser.get("/submissions").text


def test_what_is_imported_ends_a_draft_and_keeps_what_is_known_of_evidence(here: Site) -> None:
    now = here.clock()
    whole = {**answers(CORE), "questionnaire": canonical(questionnaire(IASIOS))}
    with here.ledger.begin() as connection:
        add_evidence(connection, "iasios", Evidence(CORE[0], "a.pdf", 9, SHA, "then", "lang"))
        add_evidence(connection, "iasios", Evidence(CORE[1], "b.pdf", 9, SHA, "then", "lang"))
        save_draft(connection, "iasios", answers(CORE[:1]), revision=0, by="lang", now=now)
        put_assessment(connection, "iasios", whole, now)
        put_evidence(connection, "iasios", [Evidence(CORE[0], "a.pdf", 0, SHA), Evidence(CORE[2], "c.pdf", 0, SHA)])
        assert [(one.name, one.size) for one in evidence_of(connection, "iasios")] == [("a.pdf", 9), ("c.pdf", 0)]
        drop_evidence(connection, "iasios", CORE[2], SHA)
        assert len(evidence_of(connection, "iasios")) == 1
        assert (draft_of(connection, "iasios").revision, draft_of(connection, "iasios").response) == (2, None)
        with pytest.raises(LedgerError, match="changed in the meantime"):
            save_draft(connection, "iasios", answers([]), revision=1, by="lang", now=now)
        many = [Evidence(CORE[0], str(number), 0, f"{number:064x}") for number in range(500)]
        put_evidence(connection, "iasios", many)
        with pytest.raises(LedgerError, match="500 files"):
            add_evidence(connection, "iasios", Evidence(CORE[0], "one more", 0, SHA))
