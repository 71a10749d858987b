"""The dossier as files: tables as CSV and XLSX, the whole as PDF. The same dossier gives the same bytes.

XLSX and PDF need one library each, which a plain installation does not bring (extras ``xlsx`` and ``pdf``); without
them the CSV files are made all the same, and a sentence says what is missing.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Final

from io_fhir_adapter.look.csv_file import Cell, csv_file
from io_fhir_adapter.look.theme import LIGHT
from io_fhir_adapter.report.case_sheets import CaseSheet
from io_fhir_adapter.report.dossier import Dossier
from io_fhir_adapter.report.standards import ANSWERS, Line, tally
from io_fhir_adapter.report.typeset import typeset
from io_fhir_adapter.report.wording import day_words, number

__all__ = ["LIBRARIES", "Made", "Table", "archive", "dossier_files", "lacking_libraries", "shown_data", "tables"]


_PROPOSAL: Final = "Proposal of the io-fhir-adapter project; no accreditation body publishes or has adopted this form"
_NEEDS: Final = "the {what} needs {library}, which is not installed: pip install 'io-fhir-adapter[{extra}]'"
_WIDEST: Final = 60
_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Table:
    """One table: a file name without ending, a title, a head and rows."""

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Made:
    """The files by name, and why others were not made."""

    files: dict[str, bytes]
    missing: tuple[str, ...]


def dossier_files(dossier: Dossier, *, evidence: bool = False, only: str = "") -> Made:
    """Every file of the dossier.

    Args:
        dossier: What it shows.
        evidence: Whether the evidence of the standards is named too; else it stays in the facility.
        only: The one of :data:`LIBRARIES` that is wanted, every one where empty; tables are made in any case.
    """
    made = tables(dossier, evidence=evidence)
    files = {f"{table.name}.csv": csv_file(table.head, table.rows) for table in made}
    missing = []
    lacking = lacking_libraries()
    for name, what, library, extra, make in LIBRARIES:
        if only and name != only:
            continue
        if name in lacking:
            missing.append(_NEEDS.format(what=what, library=library, extra=extra))
        else:
            files[name] = make(dossier, made, evidence)
    return Made(files, tuple(missing))


def lacking_libraries() -> tuple[str, ...]:
    """The files of :data:`LIBRARIES` that cannot be made, since their library is not installed."""
    return tuple(name for name, _, library, _, _ in LIBRARIES if find_spec(library) is None)


def archive(files: Mapping[str, bytes]) -> bytes:
    """All files in one ZIP archive, its members dated by no clock."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def tables(dossier: Dossier, *, evidence: bool = False) -> tuple[Table, ...]:
    """The tables of the dossier, in its order."""
    now, before = dossier.period, dossier.before
    found = [
        Table(
            "volume",
            "Volume",
            ("Group", "Category", f"{now} counted", f"{now} for review", f"{before} counted", f"{before} for review"),
            tuple(_volume_rows(dossier)),
        ),
        Table(
            "cases",
            "Case review",
            ("Section", "Item", "Question", *(f"Case {case.number}" for case in dossier.cases)),
            tuple(_case_rows(dossier.cases)),
        ),
    ]
    if dossier.standards:
        head = ("Section", "Standard", "Kind", "Requirement", "Answer")
        found.append(
            Table(
                "standards",
                "Standards",
                (*head, "Evidence") if evidence else head,
                tuple(_standard_row(line, evidence=evidence) for line in dossier.standards),
            )
        )
    method = [(line.name, line.value) for line in dossier.method]
    method += [
        (f"Check: {check.check}", f"{'holds' if check.holds else 'FAILS'}: {check.words}") for check in dossier.checks
    ]
    method += [("Note", note) for note in (_PROPOSAL, *dossier.notes)]
    method += [("Draft", dossier.draft)] if dossier.draft else []
    found.append(Table("method", "Method", ("Fact", "Value"), tuple(method)))
    return tuple(found)


def _volume_rows(dossier: Dossier) -> Iterator[tuple[Cell, ...]]:
    group = ""
    for line in dossier.volume:
        group = line.title if line.is_group else group
        name = "all" if line.is_group else line.title
        yield (group, name, line.counted, line.review, line.before_counted, line.before_review)
    yield (
        "All groups", "all", dossier.counted, dossier.review, dossier.before_counted, dossier.before_review,
    )  # fmt: skip
    yield ("Asked for in a year", "", dossier.threshold, "", dossier.threshold, "")


def _case_rows(cases: Sequence[CaseSheet]) -> Iterator[tuple[Cell, ...]]:
    if not cases:
        return
    yield ("", "", "Pseudonym of the patient", *(case.token for case in cases))
    yield ("", "", "Age band", *(case.age for case in cases))
    yield ("", "", "Made coarser", *(", ".join(case.coarser) for case in cases))
    for at, section in enumerate(cases[0].sections):
        for place, (link, text, _) in enumerate(section.rows):
            yield (section.title, link, text, *(case.sections[at].rows[place][2] for case in cases))


def _standard_row(line: Line, *, evidence: bool) -> tuple[Cell, ...]:
    one = line.requirement
    row = (one.section, one.standard, one.kind, one.text, ANSWERS[line.answer] if line.answer else "")
    return (*row, _evidence(line)) if evidence else row


def _evidence(line: Line) -> str:
    return "; ".join(f"{name} (SHA-256 {digest})" if digest else name for name, digest in line.evidence)


def _xlsx(dossier: Dossier, made: Sequence[Table], _evidence: bool) -> bytes:
    from openpyxl import Workbook  # noqa: PLC0415 - an extra
    from openpyxl.styles import Alignment, Font, PatternFill  # noqa: PLC0415
    from openpyxl.utils import get_column_letter  # noqa: PLC0415
    from openpyxl.writer.excel import ExcelWriter  # noqa: PLC0415

    book = Workbook()
    book.remove(book.active)
    for table in made:
        sheet = book.create_sheet(table.title)
        for place, row in enumerate((table.head, *table.rows), start=1):
            for column, value in enumerate(row, start=1):
                cell = sheet.cell(place, column)
                cell.value = value
                if isinstance(value, str):
                    cell.data_type = "s"  # never a formula
                cell.alignment = Alignment(vertical="top", wrap_text=isinstance(value, str))
                if place == 1:
                    cell.font = Font(bold=True, color="FFFFFF")
                    cell.fill = PatternFill("solid", fgColor=LIGHT["accent"].removeprefix("#"))
                elif table.name == "volume" and row[1] == "all":
                    cell.font = Font(bold=True)
        for column in range(1, len(table.head) + 1):
            longest = max(len(str(row[column - 1])) for row in (table.head, *table.rows))
            sheet.column_dimensions[get_column_letter(column)].width = min(_WIDEST, max(10, longest + 2))
        sheet.freeze_panes = "D2" if table.name == "cases" else "A2"
        sheet.page_setup.orientation, sheet.page_setup.fitToHeight = "landscape", 0
        sheet.sheet_properties.pageSetUpPr.fitToPage = True
        sheet.oddFooter.left.text = f"{dossier.code}  {dossier.identifier}"
    moment = _sealed(dossier).replace(tzinfo=None)
    book.properties.creator = "io-fhir-adapter"
    book.properties.title = f"{dossier.facility}: {dossier.programme}, {dossier.period}"
    book.properties.created = book.properties.modified = moment
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as written:
        ExcelWriter(book, written).write_data()
    with zipfile.ZipFile(raw) as source:
        return archive({name: source.read(name) for name in source.namelist()})


def _sealed(dossier: Dossier) -> datetime:
    return datetime.fromisoformat(dossier.sealed).astimezone(UTC)


def _pdf(dossier: Dossier, _made: Sequence[Table], evidence: bool) -> bytes:
    return typeset("dossier.typ", shown_data(dossier, evidence=evidence), _sealed(dossier))


LIBRARIES: Final[tuple[tuple[str, str, str, str, Callable[[Dossier, Sequence[Table], bool], bytes]], ...]] = (
    ("dossier.xlsx", "workbook", "openpyxl", "xlsx", _xlsx),
    ("dossier.pdf", "PDF", "typst", "pdf", _pdf),
)
"""File, what it is, the library that it needs, the extra that brings it, and what makes it."""


def shown_data(dossier: Dossier, *, evidence: bool = False) -> dict[str, Any]:
    """All that the PDF shows, as JSON values; the template adds fixed words alone."""
    # Here, because what draws takes 50 MiB and most of a second to load, and a service makes few dossiers.
    from io_fhir_adapter.report.charts import cumulative_chart, monthly_chart  # noqa: PLC0415

    volume, core = dossier.charted, tally(dossier.standards, "core")
    return {
        "facility": dossier.facility,
        "code": dossier.code,
        "programme": dossier.programme,
        "period": dossier.period,
        "before": dossier.before,
        "threshold": dossier.threshold,
        "counted": dossier.counted,
        "review": dossier.review,
        "before_counted": dossier.before_counted,
        "before_review": dossier.before_review,
        "volume": [asdict(line) for line in dossier.volume],
        "charts": [cumulative_chart(volume, previous=dossier.previous), monthly_chart(volume)] if volume else [],
        "cases": [asdict(case) for case in dossier.cases],
        "standards": [_checked(line, evidence=evidence) for line in dossier.standards],
        "assessed": dossier.assessed,
        "core": core.total,
        "answered": core.answered,
        "met": core.met,
        "method": [asdict(line) for line in dossier.method],
        "checks": [asdict(check) for check in dossier.checks],
        "identifier": dossier.identifier,
        "sealed": day_words(dossier.sealed[:10]),
        "draft": dossier.draft,
        "notes": list(dossier.notes),
        "proposal": _PROPOSAL,
        "signer": dossier.signer[0],
        "duty": dossier.signer[1],
        "words": {"counted": number(dossier.counted), "threshold": number(dossier.threshold)},
        "colours": LIGHT,
    }


def _checked(line: Line, *, evidence: bool) -> dict[str, Any]:
    one = line.requirement
    return {
        "section": one.section, "standard": one.standard, "kind": one.kind, "text": one.text,
        "answer": ANSWERS[line.answer] if line.answer else "", "evidence": _evidence(line) if evidence else "",
    }  # fmt: skip
