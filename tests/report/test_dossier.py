"""The papers: numbers and sheets of one sealed submission, the same bytes for the same submission, no formula."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.errors import LedgerError, SubmitError
from io_fhir_adapter.model import Decision
from io_fhir_adapter.report import dossier_files as made_by
from io_fhir_adapter.report.dossier import Dossier, make_dossier
from io_fhir_adapter.report.dossier_files import dossier_files, shown_data, tables
from io_fhir_adapter.report.standards import checklist
from io_fhir_adapter.review.forms import load_questionnaire
from io_fhir_adapter.submit.seal import CaseContent, SubmissionContent, seal
from io_fhir_adapter.trust.canonical import canonical_json, digest_bytes
from io_fhir_adapter.volume.count import Period, Seen, Volume, VolumeCounter
from io_fhir_adapter.volume.measure import build_measure, build_measure_report

IASIOS = load_programme("iasios")
TITLES = {"tace": "Transarterial chemoembolisation", "biliary": "Percutaneous biliary drainage or stent"}
FACILITY = "Universitätsklinikum Süd, Interventionelle Onkologie"
FORMULA = '=HYPERLINK("https://evil.example")'
pytestmark = pytest.mark.xdist_group("dossier")


def volume_of(label: str, counted: int, review: int = 2) -> Volume:
    counter = VolumeCounter(Period.year(label), 150, {"tace": "yes", "biliary": "review"})
    for day in range(1, counted + 1):
        counter.add(Decision("s", "Patient/1", f"{label}-05-{day:02d}", "tace", "counted", "counted"))
    for day in range(1, review + 1):
        counter.add(Decision("s", "Patient/1", f"{label}-06-{day:02d}", "biliary", "review", "category-for-review"))
    return counter.result(Seen(40, 30, {"completed": 30, "not-done": 10}, 14, 25, 3, 0))


NOW, BEFORE = volume_of("2025", 12), volume_of("2024", 9, 1)
CODES = "https://io-fhir-adapter.example/fhir/CodeSystem/case-review"


def _case(number: int, token: str) -> CaseContent:
    coding = {"system": CODES, "code": "not-applicable", "display": "Not applicable"}
    band = "https://io-fhir-adapter.example/fhir/StructureDefinition/age-band"
    return CaseContent(
        number=number,
        token=token,
        patient={
            "resourceType": "Patient",
            "id": f"p{number}",
            "gender": "female",
            "extension": [{"url": band, "valueCode": "60-79"}],
        },
        procedures=(),
        conditions=(),
        questionnaire_response={
            "resourceType": "QuestionnaireResponse",
            "questionnaire": "https://io-fhir-adapter.example/fhir/Questionnaire/io-case-review|0.2.0",
            "status": "completed",
            "meta": {
                "tag": [{"system": "https://io-fhir-adapter.example/fhir/CodeSystem/generalised", "code": "widen-age"}]
            },
            "item": [
                {"linkId": "header", "item": [{"linkId": "case.no", "answer": [{"valueInteger": number}]}]},
                {
                    "linkId": "before",
                    "item": [{"linkId": "plan.imaging", "answer": [{"valueInteger": -13}]}],
                },
                {
                    "linkId": "delivery",
                    "item": [
                        {"linkId": "deliv.contrast", "answer": [{"valueQuantity": {"value": 175, "unit": "mL"}}]},
                        {"linkId": "rad.dap.absent", "answer": [{"valueCoding": coding}]},
                    ],
                },
                {"linkId": "conclusion", "item": [{"linkId": "rev.action", "answer": [{"valueString": FORMULA}]}]},
            ],
        },
    )


@pytest.fixture(scope="module")
def sealed(synthetic_draw: Callable[..., Any]) -> bytes:
    draw = synthetic_draw()
    content = SubmissionContent(
        facility_code="F-001",
        programme="iasios",
        period_start=date(2025, 1, 1),
        period_end=date(2025, 12, 31),
        measure=build_measure(IASIOS),
        measure_report=build_measure_report(
            NOW, programme_id="iasios", facility_code="F-001", facility_name=FACILITY, time_zone="Europe/Berlin",
            produced=datetime(2026, 1, 30, tzinfo=UTC), ruleset_digest="sha256:" + "b" * 64,
        ),
        group=draw.group,
        draw=draw.drawn,
        questionnaire=load_questionnaire(),
        cases=tuple(_case(number, token) for number, token in enumerate(draw.tokens, start=1)),
        method={
            "frame_digest": draw.commitment.digest, "nonce": draw.nonce, "ruleset_digest": "sha256:" + "b" * 64,
            "software_version": "0.1.0",
        },
    )  # fmt: skip
    return canonical_json(seal(content, datetime(2026, 1, 30, 2, 30, tzinfo=UTC)))


@pytest.fixture(scope="module")
def papers(sealed: bytes) -> Dossier:
    return make_dossier(
        sealed, IASIOS, TITLES, NOW, BEFORE, standards=checklist(IASIOS, None), delivery="queued",
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(papers: Dossier) -> dict[str, bytes]:
    made = dossier_files(papers)
    assert made.missing == ()
    return made.files


def rows(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))


def texts_of(pdf: bytes) -> str:
    """Every string that the PDF shows, read with each of its fonts' tables of characters."""
    streams = []
    for opening in re.finditer(rb"stream\r?\n", pdf):
        raw = pdf[opening.end() : pdf.find(b"endstream", opening.end())]
        try:
            streams.append(zlib.decompressobj().decompress(raw))
        except zlib.error:
            streams.append(raw)
    fonts = [dict(_characters(stream)) for stream in streams if b"beginbfchar" in stream or b"beginbfrange" in stream]
    shown = []
    for stream in (stream for stream in streams if b"TJ" in stream or b"Tj" in stream):
        for array in re.finditer(rb"\[((?:\((?:\\.|[^\\)])*\)|[^\]()])*)\]\s*TJ", stream, re.DOTALL):
            glyphs = b"".join(map(_literal, re.findall(rb"\(((?:\\.|[^\\)])*)\)", array[1], re.DOTALL)))
            numbers = [int.from_bytes(glyphs[at : at + 2]) for at in range(0, len(glyphs), 2)]
            shown += ["".join(font.get(number, "\N{REPLACEMENT CHARACTER}") for number in numbers) for font in fonts]
    return "\n".join(shown)


def _characters(cmap: bytes) -> Iterator[tuple[int, str]]:
    for block in re.findall(rb"beginbfchar(.*?)endbfchar", cmap, re.DOTALL):
        for glyph, text in re.findall(rb"<(\w+)>\s*<(\w+)>", block):
            yield int(glyph, 16), bytes.fromhex(text.decode()).decode("utf-16-be")


def _literal(text: bytes) -> bytes:
    named = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}

    def char(found: re.Match[bytes]) -> bytes:
        code = found[1]
        return bytes([int(code, 8)]) if code.isdigit() else named.get(code, code)

    return re.sub(rb"\\([0-7]{1,3}|.)", char, text, flags=re.DOTALL)


def test_the_volume_stands_by_the_bodys_own_groups_with_the_year_before(files: dict[str, bytes]) -> None:
    found = {(row[0], row[1]): row[2:] for row in rows(files["volume.csv"])}
    assert found["Group", "Category"] == ["2025 counted", "2025 for review", "2024 counted", "2024 for review"]
    assert found["Chemoembolisation", "all"] == ["12", "0", "9", "0"]
    assert found["Chemoembolisation", TITLES["tace"]] == ["12", "0", "9", "0"]
    assert found["Other therapeutic procedures", "all"] == ["0", "2", "0", "1"]
    assert found["All groups", "all"] == ["12", "2", "9", "1"]
    assert [title for title, name in found if name == "all"][:-1] == [group.title for group in IASIOS.groups]


def test_the_sheets_are_in_form_order_and_say_why_something_is_missing(files: dict[str, bytes]) -> None:
    found = rows(files["cases.csv"])
    assert found[0] == ["Section", "Item", "Question", "Case 1", "Case 2", "Case 3"]
    answers = {row[1]: row[3:] for row in found[4:]}
    form = [item["linkId"] for section in load_questionnaire()["item"] for item in section["item"]]
    asked = [link for link in form if not link.endswith(".absent")]
    assert list(answers) == asked
    assert answers["case.no"] == ["1", "2", "3"]
    assert answers["plan.imaging"] == ["\N{MINUS SIGN}13"] * 3
    assert answers["deliv.contrast"] == ["175 mL"] * 3
    assert answers["rad.dap"] == ["Not applicable"] * 3
    assert answers["plan.mdt"] == [""] * 3
    assert found[2][3:] == ["60-79"] * 3
    assert found[3][3:] == ["wider age band"] * 3


def test_papers_and_submission_are_shown_to_be_one(sealed: bytes, papers: Dossier, files: dict[str, bytes]) -> None:
    bundle = json.loads(sealed)
    stated = dict(row[:2] for row in rows(files["method.csv"]))
    assert stated["Submission (digest of what it says)"] == bundle["identifier"]["value"] == papers.identifier
    assert stated["SHA-256 of the Bundle as sealed"] == digest_bytes(sealed)
    assert stated["Origin of the nonce"] == "drawn by the facility itself after the frame was committed to"
    assert stated["Software"] == "io-fhir-adapter 0.1.0"
    assert {name: value[:5] for name, value in stated.items() if name.startswith("Check")} == {
        "Check: identifier": "holds", "Check: frame": "holds", "Check: draw": "holds", "Check: cases": "holds",
    }  # fmt: skip


def test_the_pdf_holds_it_all_with_umlauts(papers: Dossier, files: dict[str, bytes]) -> None:
    text = texts_of(files["dossier.pdf"])
    for words in (
        FACILITY, "Volume statement", "Chemoembolisation", "Signature", "Place and date", "Case review", "175 mL",
        "Standards checklist", "Core requirement 2 (letter c)", "Method statement", papers.identifier, FORMULA[:12],
        "no accreditation body publishes or has adopted this form",
    ):  # fmt: skip
        assert words in text, words


def test_the_same_submission_gives_the_same_bytes(papers: Dossier, files: dict[str, bytes]) -> None:
    assert dossier_files(papers).files == files
    with zipfile.ZipFile(io.BytesIO(files["dossier.xlsx"])) as book:
        assert {member.date_time for member in book.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_no_cell_is_a_formula(files: dict[str, bytes]) -> None:
    (action,) = (row for row in rows(files["cases.csv"]) if row[1] == "rev.action")
    assert action[3:] == [f"'{FORMULA}"] * 3
    with zipfile.ZipFile(io.BytesIO(files["dossier.xlsx"])) as book:
        sheets = [book.read(name) for name in book.namelist() if name.startswith("xl/worksheets/")]
    assert len(sheets) == 4
    assert not any(b"<f>" in sheet for sheet in sheets)


def test_evidence_stays_local_unless_asked_for(papers: Dossier) -> None:
    line = replace(papers.standards[0], answer="met", evidence=(("Dienstplan.pdf", "ab" * 32),))
    named = replace(papers, standards=(line, *papers.standards[1:]))
    assert "Dienstplan" not in json.dumps([shown_data(named), [table.rows for table in tables(named)]])
    assert "Dienstplan" in json.dumps(shown_data(named, evidence=True))
    assert any("Dienstplan.pdf (SHA-256 abab" in str(table.rows) for table in tables(named, evidence=True))


def test_a_ledger_that_moved_on_changes_no_number_and_draws_no_chart(sealed: bytes) -> None:
    found = make_dossier(sealed, IASIOS, TITLES, volume_of("2025", 13), BEFORE, delivery="queued")
    assert (found.counted, found.charted) == (12, None)
    assert any("now counts 13 for 2025" in note for note in found.notes)


def test_a_draft_says_so_on_every_table_of_facts_and_page(papers: Dossier) -> None:
    draft = replace(papers, draft="nobody approved the submission yet", cases=papers.cases[:1], charted=None)
    made = dossier_files(draft).files
    assert ["Draft", "nobody approved the submission yet"] in rows(made["method.csv"])
    assert "Draft: nobody approved the submission yet" in texts_of(made["dossier.pdf"])


def test_a_body_that_is_not_its_identifiers_is_refused(sealed: bytes) -> None:
    with pytest.raises(LedgerError, match="restore a backup"):
        make_dossier(sealed.replace(b"175", b"176"), IASIOS, TITLES, NOW, BEFORE)
    with pytest.raises(SubmitError, match="not of the programme degir"):
        make_dossier(sealed, load_programme("degir"), TITLES, NOW, BEFORE)


def test_without_the_libraries_there_are_csv_files_and_a_sentence_each(
    papers: Dossier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_by, "find_spec", lambda _: None)
    made = dossier_files(papers)
    assert sorted(made.files) == ["cases.csv", "method.csv", "standards.csv", "volume.csv"]
    assert [sentence.partition(";")[0].partition(", which")[0] for sentence in made.missing] == [
        "the workbook needs openpyxl", "the PDF needs typst",
    ]  # fmt: skip
