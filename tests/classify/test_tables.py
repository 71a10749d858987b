"""Code tables: every mistake is named with file and line, and the most specific row wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.classify.globs import overlap, parse_glob
from io_fhir_adapter.classify.tables import COLUMNS, CodeRow, GlobIndex, load_code_table
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding

TECHNIQUES = {"microwave": 1, "none": 1}
GOOD = "5-501.a3,microwave,liver,percutaneous,none,main,expected,,,own words,seen,"


def row(pattern: str, rule: str = "t.csv:2", start: str = "", end: str = "") -> CodeRow:
    finding = Finding("microwave", "liver", "percutaneous", "none", "main", "expected", "ops", pattern, rule)
    return CodeRow(parse_glob(pattern), finding, start, end, rule)


def table(tmp_path: Path, *lines: str, header: str = ",".join(COLUMNS)) -> Path:
    path = tmp_path / "ops.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_row_says_what_its_columns_say(tmp_path: Path) -> None:
    (found,) = load_code_table(table(tmp_path, GOOD), "ops", TECHNIQUES, "codes/ops.csv")
    assert found.finding == Finding(
        "microwave", "liver", "percutaneous", "none", "main", "expected", "ops", "5-501.a3", "codes/ops.csv:2"
    )


def test_a_spreadsheet_s_byte_order_mark_and_quotes_are_taken(tmp_path: Path) -> None:
    path = table(tmp_path, GOOD.replace("own words", '"own, words"'))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(load_code_table(path, "ops", TECHNIQUES)) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (GOOD.replace("microwave", "magic"), "'magic' is no technique"),
        (GOOD.replace("liver", "livre"), "'livre' is no site"),
        (GOOD.replace("percutaneous", "through"), "'through' is no approach"),
        (GOOD.replace(",none,", ",water,"), "'water' is no agent"),
        (GOOD.replace(",main,", ",boss,"), "'boss' is no role"),
        (GOOD.replace("expected", "hoped"), "'hoped' is no indication"),
        (GOOD.replace("5-501.a3", "5-501.[a"), "is no code pattern"),
        (GOOD.replace("5-501.a3", "5-[9-1]"), "runs backwards"),
        (GOOD.replace("5-501.a3", ""), "is no code pattern"),
        (GOOD + ",more", "too many or too few columns"),
        ("5-501.a3,microwave", "too many or too few columns"),
        (GOOD.replace(",,,own", ",2025-13-01,,own"), "'2025-13-01' is no date"),
        (GOOD.replace(",,,own", ",,1.1.2025,own"), "'1.1.2025' is no date"),
        (GOOD.replace(",,,own", ",2026-01-01,2025-01-01,own"), "ends before it begins"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(MappingError) as caught:
        load_code_table(table(tmp_path, GOOD.replace("a3", "93"), line), "ops", TECHNIQUES, "codes/ops.csv")
    assert words in caught.value.sentence
    assert caught.value.where == "codes/ops.csv:3"
    assert caught.value.exit_code == 2


def test_wrong_columns_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"ops\.csv:1: the columns"):
        load_code_table(table(tmp_path, header="code,what"), "ops", TECHNIQUES, "ops.csv")
    with pytest.raises(MappingError, match="cannot be read"):
        load_code_table(tmp_path / "absent.csv", "ops", TECHNIQUES)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(",".join(COLUMNS).encode() + b"\n\xe4,")
    with pytest.raises(MappingError, match="UTF-8"):
        load_code_table(latin, "ops", TECHNIQUES)


def test_the_most_specific_row_wins() -> None:
    index = GlobIndex([row("8-836*"), row("8-836.ka"), row("8-836.?a"), row("8-836.[kq]a"), row("8*")])
    assert [found.glob.text for found in index.match("8-836.ka")] == [
        "8-836.ka", "8-836.[kq]a", "8-836.?a", "8-836*", "8*",
    ]  # fmt: skip
    assert [found.glob.text for found in index.match("8-836.ma")] == ["8-836.?a", "8-836*", "8*"]
    assert index.match("7") == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [("8-836.k?", "8-836.?k"), ("04L[12]3", "04L[23]3"), ("8-836.ka", "8-836.ka"), ("a?c*", "ab?*"), ("?b", "a?")],
)
def test_two_equally_specific_rows_for_one_code_are_refused(one: str, other: str) -> None:
    with pytest.raises(MappingError) as caught:
        GlobIndex([row(one, "codes/ops.csv:7"), row(other, "codes/ops.csv:9")])
    assert "codes/ops.csv:7" in caught.value.sentence
    assert "codes/ops.csv:9" in caught.value.sentence


def test_rows_of_separate_years_stand_side_by_side() -> None:
    index = GlobIndex([row("32405", end="2020-12-31"), row("32405", start="2021-01-01")])
    assert len(index.match("32405")) == 2


places = st.sampled_from(["a", "b", "?", "[ab]", "[bc]"])
some_patterns = st.lists(
    st.builds(
        lambda parts, tail: "".join(parts) + tail, st.lists(places, min_size=1, max_size=4), st.sampled_from(["", "*"])
    ),
    min_size=1,
    max_size=6,
)


@given(some_patterns, st.text("abc", max_size=5))
def test_the_index_finds_what_looking_at_every_row_finds(texts: list[str], code: str) -> None:
    rows = [row(text, f"t.csv:{number}") for number, text in enumerate(texts, start=2)]
    clash = any(
        one.glob.specificity == other.glob.specificity and overlap(one.glob, other.glob)
        for place, one in enumerate(rows)
        for other in rows[place + 1 :]
    )
    if clash:
        with pytest.raises(MappingError):
            GlobIndex(rows)
        return
    found = GlobIndex(rows).match(code)
    assert {item.rule for item in found} == {item.rule for item in rows if item.glob.regex().match(code)}
    ranks = [item.glob.specificity for item in found]
    assert ranks == sorted(ranks, reverse=True)
