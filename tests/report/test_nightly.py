from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from io_fhir_adapter.model import Decision
from io_fhir_adapter.report.nightly import (
    CasesDrawn,
    QuarantineReason,
    ReportData,
    RunFact,
    SubmissionState,
    UnmappedCode,
    render_report,
)
from io_fhir_adapter.volume.count import Period, Seen, Volume, VolumeCounter

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;{{ 7*7 }}"
_VOID = {"meta", "br", "wbr", "img", "link", "input", "hr"}


def volume(number: int = 12, year: str = "2025", threshold: int = 10, first: str = "01") -> Volume:
    counter = VolumeCounter(Period.year(year), threshold, {"tace": "yes", "biliary": "review"})
    for day in range(number):
        counter.add(Decision("s", "Patient/secret-7", f"{year}-{first}-{day + 1:02d}", "tace", "counted", "counted"))
    counter.add(Decision("s", "Patient/secret-7", f"{year}-03-01", "biliary", "review", "category-for-review"))
    counter.add(Decision("s", "Patient/secret-7", f"{year}-03-02", "none", "not-counted", "look-alike"))
    return counter.result(Seen(40, 30, {"completed": 30, "not-done": 10}, 14, 25, 3, 0))


def data(**changes: Any) -> ReportData:
    made = ReportData(
        facility_name="Haus am See",
        facility_code="DEMO-1",
        programme_title="IASIOS",
        as_of="2025-12-31",
        volume=volume(),
        software_version="9.8.7",
        ruleset_digest="sha256:abc",
        previous=volume(8, "2024"),
        runs=(RunFact("Procedure", 1234, 3, 7, True, 75.2, 1240, 6, "sha256:" + "ab" * 32),),
        notes=("his: the server refuses _total; searches are read to their last page.",),
        quarantine=(
            QuarantineReason("the status is missing", 7, tuple(f"file.ndjson:{line}" for line in range(1, 8))),
        ),
        cases=CasesDrawn(30, 30, 214, "sha256:def"),
        submission=SubmissionState("urn:uuid:1", "accepted", "The receiver took all entries."),
        unmapped=(UnmappedCode("http://local.example/codes", "X-1", None, 31, 20),),
        unmapped_total=5,
        category_titles={"tace": "Transarterial chemoembolisation"},
        synthetic=True,
    )
    return replace(made, **changes)


class Page(HTMLParser):
    """The tags, words and unclosed elements of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in {"td", "th", "p", "dt", "dd", "h1", "h2", "h3", "span"}:
            self.words.append(" ")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(data())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "form"} & {
        tag for tag, _ in page.tags
    }
    for _, attributes in page.tags:
        assert not {"src", "href", "xlink:href", "srcset", "action", "background"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    policy = [attributes for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy"]
    assert (policy[0]["content"] or "").startswith("default-src 'none'")


def test_the_page_is_well_formed_and_its_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == 12


def test_the_page_says_the_numbers(page: Page) -> None:
    for words in (
        "12 of 10 IO procedures asked for",
        "Threshold reached",
        "The threshold was reached on 10 January 2025.",
        "Haus am See",
        "facility code DEMO-1",
        "as of 31 December 2025",
        "Synthetic demonstration data",
        "Transarterial chemoembolisation",
        "Procedure 1,234 1,240 6 3 7 yes 1 min 15 s",
        "Procedure sha256:abababababab…",
        "the server refuses _total; searches are read to their last page.",
        "30 of 30 patients were drawn at random from the 214",
        "The receiver took all entries.",
        "http://local.example/codes",
        "1 of 5 codes are shown.",
        "Look-alike of an IO code 1",
        "this project's proposals",
        "io-fhir-adapter 9.8.7",
        "sha256:abc",
    ):
        assert words in page.text, words


def test_at_most_five_positions_are_shown(page: Page) -> None:
    assert "file.ndjson:5" in page.text
    assert "file.ndjson:6" not in page.text


def test_no_patient_is_on_the_page(html: str) -> None:
    assert "secret" not in html


def test_light_dark_print_and_phone_are_provided_for(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert "max-width: 640px" in html
    assert 'name="viewport"' in html
    assert html.count('<div class="chart wide">') == html.count('<div class="chart narrow">') == 3


def test_every_chart_has_its_numbers_in_a_table(page: Page) -> None:
    assert [tag for tag, _ in page.tags].count("details") == 3
    assert "Dec 2025 0 12 8" in page.text


def test_hostile_words_stay_words() -> None:
    hostile = data(
        facility_name=HOSTILE,
        facility_code=HOSTILE,
        programme_title=HOSTILE,
        volume=replace(volume(), not_counted_by_reason={HOSTILE: 1}),
        ruleset_digest=HOSTILE,
        software_version=HOSTILE,
        runs=(RunFact(HOSTILE, 1, 1, 1, False, 0.1),),
        quarantine=(QuarantineReason(HOSTILE, 1, (HOSTILE,)),),
        cases=CasesDrawn(1, 30, 1, HOSTILE),
        submission=SubmissionState(HOSTILE, HOSTILE, HOSTILE),
        unmapped=(UnmappedCode(HOSTILE, HOSTILE, HOSTILE, 1, 1),),
        category_titles={"tace": HOSTILE},
    )
    page = Page(render_report(hostile))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.open == []
    assert page.text.count("{{ 7*7 }}") >= 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"volume": volume(4), "as_of": "2025-12-31"}, "6 more counted sessions are needed; the period has ended."),
        (
            {"volume": volume(4), "as_of": "2025-07-02"},
            "The count is behind even pace (5 by 2 July 2025); carried on in a straight line it would end at 7.",
        ),
        ({"volume": volume(4), "as_of": "2025-01-31"}, "The count is ahead of even pace"),
        (
            {"volume": volume(0), "as_of": "2024-12-31"},
            "10 more counted sessions are needed; the period has not begun.",
        ),
        ({"cases": None}, "No cases have been drawn for this period."),
        ({"cases": CasesDrawn(4, 30, 4, "x")}, "There are fewer than asked for, so all were taken."),
        ({"submission": None}, "Nothing has been submitted for this period."),
        ({"submission": SubmissionState("urn:uuid:1", "waiting")}, "none yet"),
        ({"unmapped": ()}, "Every code that was read has a row."),
        ({"quarantine": ()}, "Nothing: every resource could be read."),
        ({"runs": (RunFact("Procedure", 1, 0, 1, False, 1.0),)}, "lower bound until a complete run"),
        ({"volume": replace(volume(), unplaced=1)}, "1 further session with an IO category has no date"),
    ],
)
def test_each_state_has_its_sentence(changes: dict[str, Any], words: str, undrawn: None) -> None:
    assert words in Page(render_report(data(**changes))).text


def test_a_report_needs_a_date() -> None:
    with pytest.raises(ValueError, match="isoformat"):
        data(as_of="yesterday")


def test_a_report_without_anything_optional_renders() -> None:
    nothing = VolumeCounter(Period.year("2025"), 150, {}).result(Seen(0, 0, {}, 0, 0, 0, 0))
    page = Page(render_report(ReportData("A", "B", "IASIOS", "2025-06-01", nothing, "1", "sha256:0")))
    assert "Threshold not reached" in page.text
    assert "Synthetic" not in page.text
