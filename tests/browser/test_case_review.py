"""Reviewers complete and sign thirty cases in a real browser, and an approver lets them leave."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from tests.browser.conftest import shown_form

from io_fhir_adapter.ledger.draws import cases_of, find_draw
from io_fhir_adapter.ledger.reviews import reviews_of
from io_fhir_adapter.trust.verify import signature_finding

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page
    from tests.browser.conftest import Site

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(600)]

# The days before the treatment that tests type (-404 to -423) are more than the synthetic hospital ever has: to type
# what the draw happened to bring would be no change, and nothing would be saved.
SCRIPT = "<script>alert('x')</script><img src=x onerror=alert(1)>"

# Answers whatever is open the way the form's own options allow. Questions that another answer makes appear are answered
# too; the service leaves them out where they did not appear.
ANSWER = """
(questionnaire, response) => {
  const find = (node, linkId) => {
    for (const item of node.item || []) {
      if (item.linkId === linkId) return item;
      const below = find(item, linkId);
      if (below) return below;
    }
    return null;
  };
  const answer = (item) => {
    const known = find(response, item.linkId);
    if (known && known.answer) return known.answer;
    if (item.type === "boolean") return [{ valueBoolean: false }];
    const options = (item.answerOption || []).map((option) => option.valueCoding);
    const adverse = item.linkId.startsWith("ae.");
    const chosen = adverse ? options.find((option) => option.code === "no") : options[0];
    return chosen ? [{ valueCoding: chosen }] : null;
  };
  const filled = (asked) => (asked.item || []).filter((item) => item.type !== "display").map((item) => (
    item.type === "group" ? { linkId: item.linkId, item: filled(item) } : { linkId: item.linkId, answer: answer(item) }
  )).filter((item) => item.answer || (item.item && item.item.length));
  return { ...response, item: filled(questionnaire) };
}
"""
COMPLETE_SHOWN = f"""
async () => {{
  const fill = {ANSWER};
  const page = JSON.parse(document.getElementById("case-data").textContent);
  const place = document.getElementById("form");
  const made = fill(page.questionnaire, LForms.Util.getFormFHIRData("QuestionnaireResponse", "R4", place));
  const asked = LForms.Util.convertFHIRQuestionnaireToLForms(page.questionnaire, "R4");
  const form = LForms.Util.mergeFHIRDataIntoLForms("QuestionnaireResponse", made, asked, "R4");
  place.setAttribute("aria-busy", "true");
  await LForms.Util.addFormToPage(form, place, {{ hideFormControls: true }});
  place.setAttribute("aria-busy", "false");
}}
"""
# The same for a case that is not shown: its page is loaded, answered and signed, without LHC-Forms, which is slow.
COMPLETE_OTHER = f"""
async (number) => {{
  const fill = {ANSWER};
  const text = await (await fetch(`/cases/${{number}}`)).text();
  const other = new DOMParser().parseFromString(text, "text/html");
  const page = JSON.parse(other.getElementById("case-data").textContent);
  const answers = fill(page.questionnaire, page.response);
  const answer = await fetch(page.signPath, {{
    method: "POST",
    headers: {{ "Content-Type": "application/json", Accept: "application/json", "X-CSRF-Token": page.csrf }},
    body: JSON.stringify({{ revision: page.revision, answers }}),
  }});
  return [answer.status, await answer.json()];
}}
"""


POST = """
async ([path, body]) => {
  const text = await (await fetch("/cases/30")).text();
  const token = (text + document.documentElement.innerHTML).match(/"?csrf"?:? ?(?:value=)?"([0-9a-f]{64})"/)[1];
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: JSON.stringify(body),
  });
  return [answer.status, await answer.text()];
}
"""


def item(page: Page, link_id: str) -> Locator:
    return page.locator(f'[id="{link_id}/1/1"]')


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id"))


def tab_to(page: Page, wanted: str, key: str = "Tab") -> None:
    """Goes on by the tabulator, or back by Shift+Tab, until the element of a CSS selector has the focus."""
    for _ in range(400):
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
            return
        page.keyboard.press(key)
    pytest.fail(f"the keyboard does not lead to {wanted}")


def sign_in_by_keyboard(site: Site, page: Page, account: str) -> None:
    page.goto(f"{site.url}/cases")
    tab_to(page, "input[name=name]")
    page.keyboard.type(account)
    tab_to(page, "input[name=password]")
    page.keyboard.type(site.shown.password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.url}/cases")


def open_case(site: Site, page: Page, number: int) -> None:
    page.goto(f"{site.url}/cases/{number}")
    shown_form(page)


def complete_and_sign(site: Site, page: Page, number: int) -> None:
    """Answers what is open on the case that is shown, and signs it."""
    page.evaluate(COMPLETE_SHOWN)
    page.get_by_role("button", name="Sign", exact=True).press("Enter")
    page.wait_for_url(f"{site.url}/cases?signed={number}")


def saved_draft(page: Page) -> None:
    page.locator("#draft-status[data-kind=good]").wait_for()


def answers(response: dict[str, Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}

    def walk(node: dict[str, Any]) -> None:
        for one in node.get("item", ()):
            for answer in one.get("answer", ()):
                found.setdefault(one["linkId"], []).append(next(iter(answer.values())))
            walk(one)

    walk(response)
    return found


def test_the_pages_and_the_form_speak_german_and_answers_are_kept_in_the_forms_own_words(site: Site) -> None:
    page = site.visitor(locale="de")
    sign_in_by_keyboard(site, page, "both")
    page.get_by_text("0 von 30 unterschrieben").wait_for()
    assert page.locator("html").get_attribute("lang") == "de"
    assert page.get_by_text("Image-guided biopsy").count() == 0
    open_case(site, page, 30)
    assert page.get_by_text("zu beantworten durch die prüfende Person").first.is_visible()
    assert page.get_by_text("Dosisflächenprodukt").first.is_visible()
    shown = page.locator("#form").inner_text()
    assert "Nicht beantwortet" in shown
    assert [word for word in ("Not Answered", "Not documented", "Procedure", "recorded") if word in shown] == []
    assert page.locator("#form [placeholder='Select one'], #form [placeholder='Type a number']").count() == 0
    item(page, "plan.antithrombotic").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert item(page, "plan.antithrombotic").input_value() == "Ja"
    page.keyboard.press("Control+s")
    saved_draft(page)
    with site.shown.ledger.read() as connection:
        draw = find_draw(connection, "iasios", "2025")
        assert draw is not None
        kept = reviews_of(connection, draw.id)[30].answers
    assert kept is not None
    assert answers(json.loads(kept))["plan.antithrombotic"][0]["display"] == "Yes"
    assert [word for word in ("Nicht", 'Ja"', "Leber") if word in kept.decode()] == []


def test_identity_is_for_reviewers_and_each_look_is_noted(site: Site) -> None:
    with site.shown.ledger.read() as connection:
        draw = find_draw(connection, "iasios", "2025")
        assert draw is not None
        case = cases_of(connection, draw.id)[28]
    page = site.signed_in("both")
    open_case(site, page, case.number)
    item(page, "plan.imaging").fill("-409")
    assert case.patient not in page.content()
    page.get_by_role("button", name="Show identity").click()
    page.get_by_text(case.patient, exact=True).wait_for()
    assert item(page, "plan.imaging").input_value() == "-409"
    looks = [(one.agent, one.entity) for one in site.audit() if one.detail == "identity"]
    assert looks == [("both", f"Case/{draw.id}/{case.number}")]

    for account, sees_cases in (("vogt", False), ("lang", True), ("adler", False)):
        other = site.signed_in(account)
        listed = other.goto(f"{site.url}/cases")
        assert listed is not None
        assert (listed.status, case.patient in other.content()) == (403 if account == "adler" else 200, False)
        shown = other.goto(f"{site.url}/cases/{case.number}")
        assert shown is not None
        assert (shown.status, case.patient in other.content()) == (200 if sees_cases else 403, False)
        posted = other.evaluate(POST, [f"/cases/{case.number}/identity", {}])
        assert (posted[0], case.patient in posted[1]) == (403, False)
    assert len([one for one in site.audit() if one.detail == "identity"]) == 1


def test_two_tabs_never_overwrite_each_other(site: Site) -> None:
    first = site.signed_in("both")
    second = first.context.new_page()
    for page in (first, second):
        open_case(site, page, 28)
    item(first, "plan.imaging").fill("-405")
    first.keyboard.press("Control+s")
    saved_draft(first)
    item(second, "plan.imaging").fill("-406")
    second.keyboard.press("Control+s")
    second.get_by_text("Somebody changed this case meanwhile").wait_for()
    assert item(second, "plan.imaging").input_value() == "-406"
    open_case(site, first, 28)
    assert item(first, "plan.imaging").input_value() == "-405"


def test_what_was_typed_outlives_the_session(site: Site) -> None:
    page = site.signed_in("both")
    open_case(site, page, 27)
    item(page, "plan.imaging").fill("-408")
    page.context.clear_cookies()
    page.keyboard.press("Control+s")
    page.get_by_text("Your session has ended").wait_for()
    with page.expect_popup() as opening:
        page.get_by_role("link", name="Sign in again in another tab").click()
    again = opening.value
    again.get_by_label("Name", exact=True).fill("both")
    again.get_by_label("Password").fill(site.shown.password)
    again.locator("main").get_by_role("button").click()
    again.wait_for_url(f"{site.url}/cases/27")
    page.get_by_role("button", name="Save draft").click()
    saved_draft(page)
    open_case(site, page, 27)
    assert item(page, "plan.imaging").input_value() == "-408"


def test_a_draft_is_saved_by_itself_and_what_the_form_does_not_take_is_refused_in_words(site: Site) -> None:
    page = site.signed_in("both")
    open_case(site, page, 26)
    item(page, "plan.imaging").fill("-404")
    saved_draft(page)
    data = json.loads(page.locator("#case-data").inner_text())
    strange = {"resourceType": "QuestionnaireResponse", "item": [{"linkId": "before", "item": [
        {"linkId": "plan.mdt", "answer": [{"valueCoding": {"code": "made-up"}}]},
    ]}]}  # fmt: skip
    status, text = page.evaluate(POST, [data["draftPath"], {"revision": 1, "answers": strange}])
    assert (status, "Discussed by a tumour board" in text, "made-up" in text) == (422, True, False)


def test_nothing_is_asked_of_a_form_that_is_still_being_built(site: Site) -> None:
    # The watch over the console sees what LHC-Forms throws where it has no form to give the answers of.
    page = site.signed_in("both")
    page.clock.install()
    open_case(site, page, 25)
    page.evaluate("""() => {
      const place = document.getElementById("form");
      place.setAttribute("aria-busy", "true");
      place.replaceChildren();
      place.dispatchEvent(new Event("input"));
    }""")
    page.clock.run_for(10_000)
    page.keyboard.press("Control+s")
    page.clock.run_for(10_000)
    page.evaluate("dispatchEvent(new Event('beforeunload', { cancelable: true }))")
    assert page.locator("#draft-status[data-kind=bad]").count() == 0
    assert page.locator("#problem").is_hidden()


@pytest.mark.parametrize("account", ["adler", "both", "vogt"])
def test_no_page_is_wider_than_the_window(site: Site, account: str) -> None:
    page = site.signed_in(account)
    links = page.eval_on_selector_all("nav a", "found => found.map((one) => one.getAttribute('href'))")
    paths = [link for link in links if link.startswith("/") and not link.startswith("/language")]
    assert len(paths) > 5
    wider = []
    for path in paths:
        page.goto(f"{site.url}{path}")
        page.wait_for_function("!document.querySelector('[aria-busy=true]')")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            try:  # LHC-Forms lays a form out anew a moment after the window has changed
                page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=10_000)
            except PlaywrightTimeoutError:
                wider.append((path, width, page.evaluate("document.documentElement.scrollWidth")))
    assert wider == []


def test_thirty_cases_are_completed_signed_approved_by_another_and_sent(site: Site) -> None:
    reviewer = site.visitor()
    # one case by the keyboard alone, from signing in to the signature
    sign_in_by_keyboard(site, reviewer, "both")
    assert reviewer.get_by_text("0 of 30 signed").is_visible()
    tab_to(reviewer, "table a[href='/cases/1']")
    reviewer.keyboard.press("Enter")
    reviewer.wait_for_url(f"{site.url}/cases/1")
    shown_form(reviewer)
    tab_to(reviewer, "[id='plan.imaging/1/1']")
    reviewer.keyboard.press("Control+a")
    reviewer.keyboard.type("-417")
    tab_to(reviewer, "[id='plan.antithrombotic/1/1']")
    reviewer.keyboard.press("ArrowDown")
    reviewer.keyboard.press("ArrowDown")
    reviewer.keyboard.press("Tab")
    chosen = item(reviewer, "plan.antithrombotic").input_value()
    assert chosen
    tab_to(reviewer, "[id='rev.action/1/1']")
    reviewer.keyboard.type(SCRIPT)
    reviewer.keyboard.press("Control+s")
    saved_draft(reviewer)
    tab_to(reviewer, "#check")
    reviewer.keyboard.press("Enter")
    reviewer.locator("#draft-status").get_by_text("items are still open").wait_for()
    open_items = reviewer.locator("#open-items button.jump")
    assert open_items.count() == int(reviewer.locator("#open-count").inner_text())
    assert open_items.count() > 0
    first = str(open_items.first.get_attribute("data-item"))
    tab_to(reviewer, f"button[data-item='{first}']", "Shift+Tab")
    reviewer.keyboard.press("Enter")
    assert focused(reviewer).startswith(f"{first}/")
    # signing an incomplete case is refused, and says what is missing
    tab_to(reviewer, "#sign")
    reviewer.keyboard.press("Enter")
    reviewer.get_by_text("The case cannot be signed yet").wait_for()
    reviewer.evaluate(COMPLETE_SHOWN)
    tab_to(reviewer, "#sign")
    reviewer.keyboard.press("Enter")
    reviewer.wait_for_url(f"{site.url}/cases?signed=1")
    assert reviewer.get_by_text("Case 1 is signed.").is_visible()

    # a signed case is read-only, and what looks like a script is a text
    reviewer.goto(f"{site.url}/cases/1")
    assert reviewer.get_by_text(SCRIPT).is_visible()
    assert reviewer.get_by_role("button", name="Sign", exact=True).count() == 0

    open_case(site, reviewer, 2)
    item(reviewer, "plan.imaging").fill("-423")
    item(reviewer, "out.stay").fill("4")
    item(reviewer, "out.stay").press("Tab")
    complete_and_sign(site, reviewer, 2)
    open_case(site, reviewer, 3)
    for number in range(4, 31):
        assert reviewer.evaluate(COMPLETE_OTHER, number) == [200, {"next": f"/cases?signed={number}"}]
    complete_and_sign(site, reviewer, 3)
    assert reviewer.get_by_text("30 of 30 signed").is_visible()

    # who signed makes the submission, and is refused the approval: on the page, and by the service
    reviewer.goto(f"{site.url}/approval")
    reviewer.get_by_role("button", name="Make the submission").click()
    reviewer.get_by_role("heading", name="Decision").wait_for(timeout=120_000)
    assert reviewer.get_by_text("Who signed a case cannot approve the submission").is_visible()
    clear_rare_cases(reviewer)
    approve(reviewer)
    assert reviewer.get_by_role("alert").inner_text().startswith("Who signed one of its cases cannot approve")
    assert site.shown.received.submissions() == []

    # another approver returns one case with a comment; it is signed again, and the submission is another one
    approver = site.signed_in("lang")
    approver.goto(f"{site.url}/approval")
    approver.get_by_label("Comment to the reviewers").fill(f"Look at the stay again {SCRIPT}")
    approver.get_by_label("Only these cases").fill("2")
    approver.get_by_role("button", name="Return", exact=True).click()
    approver.get_by_text("The submission is returned").wait_for()
    open_case(site, reviewer, 2)
    assert reviewer.get_by_text(f"Returned by Prof. Jonas Lang: Look at the stay again {SCRIPT}").is_visible()
    item(reviewer, "out.stay").fill("5")
    item(reviewer, "out.stay").press("Tab")
    complete_and_sign(site, reviewer, 2)
    approver.goto(f"{site.url}/approval")
    approver.get_by_role("button", name="Make the submission").click()
    approver.get_by_role("heading", name="Decision").wait_for(timeout=120_000)
    looked_at = downloaded(approver)
    approve(approver)
    assert approver.get_by_text("The submission is approved.").is_visible()
    assert approver.get_by_text("accepted by the accreditation system").first.is_visible()

    (stored,) = site.shown.received.submissions()
    bundle = stored.bundle
    assert bundle == downloaded(approver)
    # beside what was looked at it says who approved, and is signed
    assert signature_finding(bundle, site.shown.jwks).holds
    assert unapproved(bundle) == looked_at
    forms = [one["resource"] for one in bundle["entry"] if one["resource"]["resourceType"] == "QuestionnaireResponse"]
    said = {found["case.no"][0]: found for found in map(answers, forms)}
    assert sorted(said) == list(range(1, 31))
    assert (said[1]["plan.imaging"], said[2]["plan.imaging"], said[2]["out.stay"]) == ([-417], [-423], [5])
    assert {form["status"] for form in forms} == {"completed"}
    assert "alert(" not in json.dumps(bundle)
    done = [(entry.agent, entry.detail.partition(":")[0], entry.outcome) for entry in site.audit()]
    assert done.count(("both", "signed", "0")) == 31
    assert ("both", "approved", "4") in done
    assert ("lang", "returned", "0") in done
    assert ("lang", "approved", "0") in done


def downloaded(page: Page) -> Any:
    """The submission as the page gives it away."""
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download the file").click()
    return json.loads(downloading.value.path().read_bytes())


def unapproved(bundle: dict[str, Any]) -> dict[str, Any]:
    """A submission without what its approval put into it: one agent, and the signature."""
    made = json.loads(json.dumps({name: value for name, value in bundle.items() if name != "signature"}))
    (statement,) = (one["resource"] for one in made["entry"] if one["resource"]["resourceType"] == "Provenance")
    assert [agent["type"]["coding"][0]["code"] for agent in statement["agent"]] == ["assembler", "legal"]
    statement["agent"].pop()
    return made  # type: ignore[no-any-return]


def clear_rare_cases(page: Page) -> None:
    """Says of each case that few others look like why it may leave."""
    while (select := page.locator("select[name=reason]")).count():
        select.first.select_option("not-recognisable")
        page.get_by_role("button", name="Let it leave").first.click()
        page.get_by_text("The case may leave.").wait_for()


def approve(page: Page) -> None:
    page.get_by_label("I have looked at what leaves.").check()
    page.get_by_role("button", name="Approve", exact=True).click()
    page.locator(".note[role]").first.wait_for()


def test_standards_are_answered_and_of_evidence_only_the_digest_leaves_the_browser(site: Site) -> None:
    page = site.signed_in("adler")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    page.goto(f"{site.url}/standards")
    shown_form(page)
    content = b"synthetic duty roster"
    page.locator("#evidence-file").set_input_files({"name": "roster.txt", "mimeType": "text/plain", "buffer": content})
    page.get_by_role("button", name="Name as evidence").press("Enter")
    page.locator(".files .mono").get_by_text(hashlib.sha256(content).hexdigest()).wait_for()
    page.get_by_role("radio").first.press("Space")
    page.get_by_role("button", name="Take the answers").press("Enter")
    page.locator("#problem").get_by_text("Core requirements without an answer: 26").wait_for()
    page.evaluate("document.querySelectorAll('input[type=radio]').forEach((one, at) => at % 4 || one.click())")
    page.get_by_role("button", name="Take the answers").press("Enter")
    page.wait_for_url(f"{site.url}/standards?done=taken")
    shown_form(page)
    assert any("roster.txt" in body for body in sent)
    assert not any("duty roster" in body for body in sent)
    assert ("adler", "self-assessment taken") in [(entry.agent, entry.detail) for entry in site.audit()]
