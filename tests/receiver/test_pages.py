"""The accreditation body's pages: what they show, who may look, verdicts, exports, and that nothing of it is markup."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from io_fhir_adapter.canonical_urls import (
    APPROVER_SYSTEM,
    DRAW_SYSTEM,
    FACILITY_SYSTEM,
    FRAME_SYSTEM,
    PROGRAMME_SYSTEM,
    ROLE_CODES,
    SUBMISSION_SYSTEM,
)
from io_fhir_adapter.look.language import LANGUAGES
from io_fhir_adapter.look.shell import Shell
from io_fhir_adapter.look.walls import Cookies, csrf_token
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver import app as receiver
from io_fhir_adapter.receiver import browse
from io_fhir_adapter.receiver.app import Programme, create_app
from io_fhir_adapter.receiver.checks import Submission, Withdrawal, check_submission
from io_fhir_adapter.receiver.draws import NONCES, check_announcement
from io_fhir_adapter.receiver.pages.charts import years_chart
from io_fhir_adapter.receiver.reading import Tally, Volume
from io_fhir_adapter.receiver.registry import Facility, Registry
from io_fhir_adapter.receiver.schema import KEYS, SEALS, SUBMISSIONS, VERDICTS, VERSIONS
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.verdicts import give_verdict, verdicts_of
from io_fhir_adapter.trust.frame import draw_digest

Json = dict[str, Any]
Make = Callable[..., Json]
ROOT = Path(receiver.__file__).parent
PROGRAMMES = {"iasios": Programme("IASIOS", 150)}
REGISTRY = Registry((Facility("F-001", "Synthetic Department"), Facility("F-002")))
PASSWORD = "a password of the body"
EVERY_PAGE = (
    "/", "/submissions", "/facilities/F-001", "/submissions/1", "/submissions/1/cases/1", "/submissions/1/bundle.json",
    "/exports", "/exports/volumes.csv", "/exports/submissions.csv", "/exports/case-reviews.ndjson",
)  # fmt: skip
FORM = {
    "resourceType": "Questionnaire",
    "url": "https://body.example/Questionnaire/review",
    "version": "1",
    "title": "A form of the body",
    "status": "active",
    "item": [
        {"linkId": "a", "type": "group", "text": "First part", "item": [
            {"linkId": "a1", "type": "choice", "text": "Kind", "answerOption": [
                {"valueCoding": {"system": "urn:k", "code": "x", "display": "The kind of this form"}}]},
            {"linkId": "a2", "type": "boolean", "text": "Seen"},
            {"linkId": "a3", "type": "string", "text": "If not seen: why",
             "enableWhen": [{"question": "a2", "operator": "=", "answerBoolean": False}]},
        ]},
        {"linkId": "b", "type": "group", "text": "Second part",
         "item": [{"linkId": "b1", "type": "decimal", "text": "Dose"}]},
    ],
}  # fmt: skip
ANSWERS = [
    {"linkId": "b", "item": []},
    {"linkId": "a", "item": [
        {"linkId": "a2", "answer": [{"valueBoolean": True}]},
        {"linkId": "a1", "answer": [{"valueCoding": {"system": "urn:k", "code": "x"}}]},
    ]},
]  # fmt: skip


def said(bundle: Json, **changes: Any) -> Submission:
    return replace(check_submission(bundle), **changes)


def with_form(bundle: Json) -> Json:
    """The Bundle, its first case answered on a form of another body, approved by a person."""
    made = copy.deepcopy(bundle)
    made["entry"].append({"fullUrl": "urn:uuid:f", "resource": FORM, "request": {}})
    response = next(e["resource"] for e in made["entry"] if e["resource"]["resourceType"] == "QuestionnaireResponse")
    response.update(questionnaire=f"{FORM['url']}|1", item=ANSWERS)
    statement = next(e["resource"] for e in made["entry"] if e["resource"]["resourceType"] == "Provenance")
    statement["agent"].append(
        {
            "role": [{"coding": [{"system": ROLE_CODES, "code": "approver"}]}],
            "who": {
                "type": "PractitionerRole",
                "identifier": {"system": APPROVER_SYSTEM, "value": "0f0f0f"},
                "display": "Dr. Synthetic",
            },
        }
    )
    earlier = {"system": SUBMISSION_SYSTEM, "value": "sha256:" + "e" * 64}
    statement["entity"].append({"role": "revision", "what": {"identifier": earlier}})
    return made


@pytest.fixture
def memory() -> Iterator[ReceiverStore]:
    store = ReceiverStore()
    yield store
    store.close()


@pytest.fixture
def body(memory: ReceiverStore) -> Iterator[Callable[..., httpx.Client]]:
    """A browser at the pages: ``body(registry=…)``; whoever opens them where no registry is given."""
    opened: list[tuple[LoopbackServer, httpx.Client]] = []

    def start(**options: Any) -> httpx.Client:
        server = LoopbackServer(create_app(memory, **({"programmes": PROGRAMMES} | options)))
        server.__enter__()
        client = httpx.Client(base_url=server.base_url, trust_env=False, headers={"Accept": "text/html"})
        opened.append((server, client))
        return client

    yield start
    for server, client in opened:
        client.close()
        server.__exit__(None, None, None)


def token(client: httpx.Client, path: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get(path).text)
    assert found is not None
    return found[1]


def words(text: str) -> str:
    """What a page says, without its markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_the_first_page_has_every_facility_against_the_threshold(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed(counted=140), period_start="2024-01-01", period_end="2024-12-31"))
    memory.accept(said(sealed(counted=163)))
    memory.accept(said(sealed(facility="F-002", counted=90)))
    page = words(body(registry=REGISTRY, operator_token=PASSWORD).get("/", auth=("vogt", PASSWORD)).text)
    assert "Synthetic Department F-001 · IASIOS 163 + 2 150 reached 140 + 2 150 not reached" in page
    assert "F-002 IASIOS 90 + 2 150 not reached –" in page
    assert "1 / 2 have reached the threshold in 2025" in page
    assert "3 wait for a verdict" in page


def test_what_is_rejected_or_withdrawn_does_not_stand(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    bundles = [sealed(counted=counted) for counted in (151, 160, 170)]
    for bundle in bundles:
        memory.accept(said(bundle))
    first, second, third = (bundle["identifier"]["value"] for bundle in bundles)
    assert [row.number for row in browse.standing(browse.listed(memory))] == [3]
    give_verdict(memory, third, "rejected", "no", "vogt")
    memory.accept(Withdrawal("sha256:w", "F-001", "iasios", second, "counted-wrongly", (), {"entry": []}))
    rows = browse.listed(memory)
    assert [row.counted for row in browse.standing(rows)] == [151]
    assert [row.verdict.state for row in rows] == ["rejected", "withdrawn", "received"]
    client = body()
    assert "counted-wrongly" in client.get("/submissions/2").text
    assert 'name="verdict"' not in client.get("/submissions/2").text
    assert "no. 3" not in client.get("/submissions/1").text
    assert first in client.get("/submissions/1").text
    listed = words(client.get("/submissions?state=withdrawn").text)
    assert "160 + 2" in listed
    assert "151 + 2" not in listed


def test_stores_of_every_kind_are_read_alike(store: ReceiverStore, sealed: Make, synthetic_draw: Any) -> None:
    """Receipt, state, signature and frames by way of SQL, on each database."""
    draw, unused = synthetic_draw(3), synthetic_draw(3, seed="another")
    for one in (draw, unused):
        group = {**one.group, "meta": {"tag": [{"system": PROGRAMME_SYSTEM, "code": "iasios"}]}}
        group.pop("member", None)
        group["managingEntity"] = {"identifier": {"system": FACILITY_SYSTEM, "value": "F-001"}}
        query = f"identifier={group['identifier'][0]['system']}%7C{one.commitment.digest}"
        store.announce(check_announcement(group, query, None))
    store.accept(said(sealed(), nonce=None))
    store.accept(said(sealed(counted=152), nonce=None))
    give_verdict(store, browse.listed(store)[0].identifier, "correction-asked", "Please count again.", "vogt")
    with store.writing() as connection:
        connection.execute(sa.update(SEALS).where(SEALS.c.number == 2).values(signed="valid", kid="key-1"))
    newest, first = browse.listed(store, "F-001")
    assert (newest.number, newest.key, newest.signed, newest.counted) == (2, "key-1", "valid", 152)
    assert (newest.verdict.state, newest.verdict.note, newest.verdict.by) == (
        "correction-asked", "Please count again.", "vogt",
    )  # fmt: skip
    assert (first.verdict.state, first.times, first.period) == ("received", 1, "2025")
    assert browse.listed(store, number=1) == [first]
    assert browse.listed(store, "F-002") == []
    assert [one.state for one in browse.history(store, newest)] == ["received", "correction-asked"]
    reports = browse.reports(store, [1, 2])
    assert [reports[number]["group"][0]["population"][0]["count"] for number in (1, 2)] == [151, 152]
    frames = browse.frames(store, "F-001")
    assert {frame.digest for frame in frames} == {draw.commitment.digest, unused.commitment.digest}
    assert {(frame.programme, frame.patients, len(frame.nonce), frame.used) for frame in frames} == {
        ("iasios", 120, 64, False)
    }
    assert browse.frames(store, "F-002") == []


def test_a_frame_whose_nonce_was_drawn_with_is_told_from_one_that_was_not(memory: ReceiverStore) -> None:
    digest, nonce = "sha256:" + "a" * 64, "cd" * 32
    drawn = draw_digest(digest, nonce)
    with memory.writing() as connection:
        for frame in (digest, "sha256:" + "b" * 64):
            row = {"facility": "F-001", "frame": frame, "nonce": nonce, "task": "t"}
            connection.execute(sa.insert(NONCES).values(row))
            key = {"kind": "Group", "id": frame, "by": "identifier", "system": FRAME_SYSTEM, "value": frame}
            connection.execute(sa.insert(KEYS).values(facility="F-001", **key))
            version = {"kind": "Group", "id": frame, "version": 1, "updated": frame, "content": {"quantity": 1}}
            connection.execute(sa.insert(VERSIONS).values(version))
        key = {"kind": "List", "id": "l", "by": "identifier", "system": DRAW_SYSTEM, "value": drawn}
        connection.execute(sa.insert(KEYS).values(facility="F-001", **key))
    assert [(frame.digest[7], frame.used) for frame in browse.frames(memory, "F-001")] == [("b", False), ("a", True)]


def test_a_facility_has_its_years_by_category(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    year_before = sealed(counted=140)
    for entry in year_before["entry"]:
        if entry["resource"]["resourceType"] == "MeasureReport":
            entry["resource"]["identifier"][0]["value"] += "-2024"
            entry["request"]["url"] += "-2024"
    submission = replace(said(sealed(counted=140)), bundle=year_before, identifier="sha256:2024")
    targets = tuple(replace(t, value=f"{t.value}-2024") if t.kind == "MeasureReport" else t for t in submission.targets)
    memory.accept(replace(submission, targets=targets, period_start="2024-01-01", period_end="2024-12-31"))
    memory.accept(said(sealed(counted=163)))
    page = body(registry=REGISTRY, operator_token=PASSWORD).get("/facilities/F-001", auth=("vogt", PASSWORD))
    text = words(page.text)
    assert "Category 2025 2024 Transarterial chemoembolisation 162 + 2 139 + 2 Portal or hepatic vein" in text
    assert "Total 163 + 2 140 + 2 Threshold reached 10 missing" in text
    assert page.text.count('class="piece k-chemoembolisation"') == 2
    assert "This facility has announced no frame." in text


def test_bars_are_as_high_as_what_they_count() -> None:
    volume = Volume(Tally(30, 5), {"tace": Tally(20, 5), "pve": Tally(7)}, {}, 20, ())
    chart = years_chart([("2024", volume), ("2025", volume)], 40)
    zero, unit = chart.bottom, (chart.bottom - chart.ticks[-1][1]) / chart.ticks[-1][0]
    pieces = {piece.kind: piece for piece in chart.bars[1].pieces}
    # three counted sessions lie in no category, and are drawn all the same
    assert {kind: piece.count for kind, piece in pieces.items()} == {
        "chemoembolisation": 20, "vascular": 7, "other": 3, "review": 5,
    }  # fmt: skip
    assert all(piece.height == pytest.approx(piece.count * unit, abs=0.02) for piece in pieces.values())
    assert pieces["review"].top == pytest.approx(zero - 35 * unit, abs=0.02)
    assert chart.line == pytest.approx(zero - 40 * unit, abs=0.02)
    assert chart.ticks[-1][0] >= 40
    assert years_chart([], None).bars == ()


def test_a_submission_says_how_it_came_about(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    bundle = with_form(sealed())
    memory.accept(replace(said(sealed()), bundle={**bundle, "entry": bundle["entry"][:-1]}))
    with memory.writing() as connection:
        connection.execute(sa.update(SUBMISSIONS).values(bundle=bundle))
        connection.execute(sa.update(SEALS).values(signed="valid", kid="key-1"))
    client = body()
    page = words(client.get("/submissions/1").text)
    statement = next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Provenance")
    for entity in statement["entity"]:
        assert entity["what"]["identifier"]["value"] in page
    assert "151 + 2 for review 150 reached" in page
    assert "Approved by Dr. Synthetic 0f0f0f" in page
    assert "Valid, by key key-1" in page
    assert "io-fhir-adapter 0.1.0" in page
    assert "corrects one that is not here sha256:eeee" in page
    assert "120 patients" in page
    assert "drawn by the facility itself" in page
    assert "holds Draw 3 cases, 2 reserves" in page
    # the digest was made before the Bundle was changed: the page checks again, and says so
    assert "fails Digest" in page
    given = client.get("/submissions/1/bundle.json")
    assert given.json() == bundle
    assert given.headers["content-disposition"] == 'attachment; filename="submission-1.json"'


def test_a_case_is_read_in_the_order_of_its_form(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed()))
    with memory.writing() as connection:
        connection.execute(sa.update(SUBMISSIONS).values(bundle=with_form(sealed())))
    client = body()
    pages = [words(client.get(f"/submissions/1/cases/{number}").text) for number in (1, 2, 3)]
    answered = next(page for page in pages if "A form of the body" in page)
    assert "First part Kind The kind of this form Seen Yes Second part Dose no answer" in answered
    assert "If not seen" not in answered  # ruled out by the answer before it
    assert sum("The form that was answered is not here" in page for page in pages) == 2
    assert "2 of 3 answered" not in pages[0]
    assert "2 of 4 answered" in words(client.get("/submissions/1").text)
    for path in (
        "/submissions/1/cases/0",
        "/submissions/1/cases/4",
        "/submissions/9/cases/1",
        "/submissions/x/cases/1",
    ):
        assert client.get(path).status_code in (400, 404), path


def test_a_verdict_is_given_in_the_name_of_who_gives_it(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed()))
    identifier = browse.listed(memory)[0].identifier
    client = body()
    fields = {"csrf": token(client, "/submissions/1"), "verdict": "correction-asked", "note": "Line one\r\nand <two>"}
    answer = client.post("/submissions/1/verdict", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/submissions/1#verdict")
    (given,) = verdicts_of(memory, identifier)
    assert (given.verdict, given.note, given.by) == ("correction-asked", "Line one\nand <two>", "operator")
    page = client.get("/submissions/1").text
    assert "Line one\nand &lt;two&gt;" in page
    assert "correction asked" in words(page)
    (task,) = client.get(f"/fhir/Task?identifier={identifier}", headers={"Accept": "application/json"}).json()["entry"]
    assert task["resource"]["status"] == "on-hold"
    client.post("/submissions/1/verdict", data={**fields, "verdict": "accepted", "note": ""})
    assert [one.verdict for one in verdicts_of(memory, identifier)] == ["correction-asked", "accepted"]
    assert words(client.get("/submissions/1").text).count("operator") >= 2


def test_a_verdict_that_cannot_be_given_changes_nothing(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed()))
    client = body()
    csrf = token(client, "/submissions/1")
    for fields, says in (
        ({}, "Choose one of the verdicts."),
        ({"verdict": "withdrawn"}, "Choose one of the verdicts."),
        ({"verdict": "rejected", "note": "  "}, "Say in the note"),
        ({"verdict": "accepted", "note": "x" * 4_001}, "The note is too long"),
        ({"verdict": "accepted", "note": "bell \x07"}, "holds characters that are no text"),
    ):
        answer = client.post("/submissions/1/verdict", data={"csrf": csrf, **fields})
        assert (answer.status_code, says) == (422, says)
        assert says in answer.text
    assert verdicts_of(memory, browse.listed(memory)[0].identifier) == []


def test_a_verdict_on_what_was_withdrawn_meanwhile_is_refused(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed()))
    client = body()
    fields = {"csrf": token(client, "/submissions/1"), "verdict": "accepted"}
    identifier = browse.listed(memory)[0].identifier
    memory.accept(Withdrawal("sha256:w", "F-001", "iasios", identifier, "other", (), {"entry": []}))
    refused = client.post("/submissions/1/verdict", data=fields)
    assert refused.status_code == 422
    assert "The facility withdrew this submission meanwhile." in refused.text
    assert client.post("/submissions/2/verdict", data=fields).status_code == 404
    assert verdicts_of(memory, identifier) == []


def test_a_form_of_another_site_is_refused(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed()))
    client = body()
    right = {"csrf": token(client, "/submissions/1"), "verdict": "accepted"}
    path = "/submissions/1/verdict"
    refused = [
        client.post(path, data={**right, "csrf": "0" * 64}),
        client.post(path, data={"verdict": "accepted"}),
        client.post(path, data=right, headers={"Origin": "https://elsewhere.example"}),
        client.post(path, data=right, headers={"Sec-Fetch-Site": "cross-site"}),
    ]
    assert [answer.status_code for answer in refused] == [403] * 4
    assert verdicts_of(memory, browse.listed(memory)[0].identifier) == []
    assert client.post(path, data=right).status_code == 303


def test_only_people_of_the_body_see_anything(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed()))
    client = body(tokens={"a-token-of-the-facility": "F-001"}, operator_token=PASSWORD)
    for path in EVERY_PAGE:
        answer = client.get(path)
        assert (answer.status_code, path) == (401, path)
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert "IASIOS" not in answer.text
        assert "151" not in answer.text
    facility = {"Authorization": "Bearer a-token-of-the-facility"}
    assert client.get("/", headers=facility).status_code == 401
    assert client.post("/submissions/1/verdict", data={"verdict": "accepted"}).status_code == 403
    fields = {"csrf": token_of_a_stranger(client), "verdict": "accepted"}
    assert client.post("/submissions/1/verdict", data=fields).status_code == 401
    assert verdicts_of(memory, browse.listed(memory)[0].identifier) == []
    for path in EVERY_PAGE:
        assert client.get(path, auth=("vogt", PASSWORD)).status_code == 200, path


def token_of_a_stranger(client: httpx.Client) -> str:
    """The form token of a browser that nobody signed in with: its cookie is known, so it is right."""
    client.get("/")
    return csrf_token(client.cookies["io-form"])


def test_every_page_carries_the_walls(body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make) -> None:
    memory.accept(said(sealed()))
    client = body()
    for path in (*EVERY_PAGE, "/facilities/nobody", "/submissions/99", "/exports/absent", "/language/fr"):
        answer = client.get(path)
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        if answer.headers["content-type"].startswith("text/html"):
            assert "<script" not in answer.text
            assert "style=" not in answer.text
            addresses = re.findall(r'(?:src|href|action)="([^"]*)"', answer.text)
            assert [one for one in addresses if not re.match(r"/(?!/)|#|data:,$", one)] == []
    for path in ("/facilities/nobody", "/submissions/99", "/exports/absent"):
        assert client.get(path).status_code == 404
        assert "There is no such page" in client.get(path).text
    css = re.findall(r'href="(/assets/[0-9a-f]{16}/[a-z]+\.css)"', client.get("/").text)
    assert [path.rpartition("/")[2] for path in css] == ["style.css", "charts.css", "body.css"]
    assert all(client.get(path).headers["content-type"].startswith("text/css") for path in css)
    # what is no page is answered as FHIR is
    assert client.get("/nothing", headers={"Accept": "*/*"}).json()["resourceType"] == "OperationOutcome"


POISON = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>'
KEPT = {"resourceType", "system", "url", "fullUrl", "reference", "linkId", "questionnaire", "type"}


def poisoned(value: Any, name: str = "", whole: bool = False) -> Any:
    """A copy with markup in every string; without ``whole`` those that lead somewhere keep what they were."""
    if isinstance(value, dict):
        return {key: poisoned(item, key, whole) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, name, whole) for item in value]
    if not isinstance(value, str) or name == "resourceType" or (name in KEPT and not whole):
        return value
    return POISON if whole else f"{value}{POISON}"


@pytest.mark.parametrize("whole", [False, True], ids=["behind", "instead"])
def test_markup_in_every_string_of_a_submission_stays_text(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make, whole: bool
) -> None:
    memory.accept(said(sealed()))
    give_verdict(memory, browse.listed(memory)[0].identifier, "rejected", "words", "vogt")
    with memory.writing() as connection:
        bundle = poisoned(with_form(sealed()), whole=whole)
        text = {"programme": POISON, "period_start": POISON, "period_end": POISON, "received": POISON}
        connection.execute(sa.update(SUBMISSIONS).values(bundle=bundle, populations=[[POISON, 1]], **text))
        connection.execute(sa.update(SEALS).values(signed=POISON[:16], kid=POISON, replaces=[POISON]))
        connection.execute(sa.update(VERDICTS).values(note=POISON, given_by=POISON, at=POISON))
        for row in connection.execute(sa.select(VERSIONS)).all():
            here = sa.and_(VERSIONS.c.kind == row.kind, VERSIONS.c.id == row.id)
            connection.execute(sa.update(VERSIONS).where(here).values(content=poisoned(row.content, whole=whole)))
    client = body(
        registry=Registry((Facility("F-001", POISON),)), operator_token=PASSWORD,
        programmes={POISON: Programme(POISON, 150)},
    )  # fmt: skip
    shown = 0
    for path in EVERY_PAGE:
        if path.startswith("/submissions/1/cases") and whole:
            continue  # nothing leads to the cases any more
        answer = client.get(path, auth=(POISON.replace(":", ""), PASSWORD))
        assert answer.status_code == 200, path
        if answer.headers["content-type"].startswith("text/html"):
            assert "<script" not in answer.text, path
            assert "<img" not in answer.text, path
            assert not re.search(r"<[^>]*\sonerror=", re.sub(r'"[^"]*"', '""', answer.text)), path
            shown += answer.text.count("&lt;script&gt;")
    assert shown > (20 if whole else 45)


def table(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_exports_hold_what_the_pages_show(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed(counted=160)))
    memory.accept(said(sealed(counted=163)))
    memory.accept(said(sealed(facility="F-002", counted=90), programme="degir", period_end="2024-12-31"))
    give_verdict(memory, browse.listed(memory)[-1].identifier, "correction-asked", "=HYPERLINK(1)", "@vogt")
    registry = Registry((Facility("F-001", "+Synthetic"), Facility("F-002")))
    client = body(registry=registry, operator_token=PASSWORD)
    client.auth = ("vogt", PASSWORD)
    volumes = table(client.get("/exports/volumes.csv"))
    standing = [row for row in volumes if row["category"] == "all"]
    assert [(row["facility"], row["counted"], row["review"], row["threshold"]) for row in standing] == [
        ("F-001", "163", "2", "150"), ("F-002", "90", "2", ""),
    ]  # fmt: skip
    assert {row["title"] for row in volumes if row["category"] == "tace"} == {"Transarterial chemoembolisation"}
    assert sum(int(row["counted"]) for row in volumes if row["category"] != "all") == 163 + 90
    rows = table(client.get("/exports/submissions.csv"))
    assert [row["number"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["facility_name"] == "'+Synthetic"
    assert (rows[0]["note"], rows[0]["operator"], rows[0]["state"]) == ("'=HYPERLINK(1)", "'@vogt", "correction-asked")
    assert rows[0]["identifier"].startswith("sha256:")
    assert [row["number"] for row in table(client.get("/exports/submissions.csv?programme=degir&year=2024"))] == ["3"]
    reviews = client.get("/exports/case-reviews.ndjson?programme=iasios&year=2025")
    lines = [json.loads(line) for line in reviews.text.splitlines()]
    assert [line["resourceType"] for line in lines] == ["QuestionnaireResponse"] * 3
    assert client.get("/exports/case-reviews.ndjson?year=1999").text == ""
    chosen = client.get("/exports?programme=degir&year=2024").text
    assert 'href="/exports/volumes.csv?programme=degir&amp;year=2024"' in chosen


def test_the_pages_speak_german_where_it_is_asked_for(
    body: Callable[..., httpx.Client], memory: ReceiverStore, sealed: Make
) -> None:
    memory.accept(said(sealed()))
    client = body()
    assert "Einrichtungen und Fallzahlen" in client.get("/", headers={"Accept-Language": "de-AT, en"}).text
    switched = client.get("/language/de?next=/submissions/1")
    assert (switched.status_code, switched.headers["location"]) == (303, "/submissions/1")
    page = client.get("/submissions/1").text
    assert '<html lang="de">' in page
    assert "wartet auf ein Urteil" in page
    assert "Transarterielle Chemoembolisation" in page
    assert client.get("/language/de?next=//elsewhere.example").headers["location"] == "/"


def test_every_text_stands_in_both_languages_and_is_there_where_a_template_names_it() -> None:
    shell = Shell(ROOT, Cookies(secure=False))
    english, german = (shell.words.texts(language) for language in LANGUAGES)
    assert set(english) == set(german)
    holes = [{key: set(re.findall(r"\{(\w+)\}", text)) for key, text in one.items()} for one in (english, german)]
    assert holes[0] == holes[1]
    assert all(text.strip() and text not in ("True", "False") for one in (english, german) for text in one.values())
    named = [
        key
        for path in (ROOT / "templates").glob("*.html")
        for key in re.findall(r"""\bt\(["']([a-z_.]+)["']\s*[,)]""", path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 80
    assert [key for key in named if key not in english] == []
