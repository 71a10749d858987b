"""Globs: what matches, which pattern wins, which two cannot stand side by side."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.classify.globs import Glob, overlap, parse_glob
from io_fhir_adapter.errors import MappingError

ALPHABET = "ab1"
LONGEST = 4
CODES = ["".join(chars) for length in range(LONGEST + 1) for chars in product(ALPHABET, repeat=length)]

place = st.sampled_from(["a", "b", "1", "?", "[ab]", "[b1]", "[a-b]", "[1]"])
patterns = st.builds(
    lambda places, tail: "".join(places) + tail, st.lists(place, min_size=1, max_size=3), st.sampled_from(["", "*"])
)


def matched(glob: Glob) -> set[str]:
    regex = glob.regex()
    return {code for code in CODES if regex.match(code)}


@pytest.mark.parametrize(
    ("pattern", "code", "hit"),
    [
        ("8-836.?a", "8-836.ka", True),
        ("8-836.?a", "8-836.a", False),
        ("0F5[012]3Z?", "0F523ZF", True),
        ("0F5[012]3Z?", "0F533ZF", False),
        ("5-501*", "5-501", True),
        ("5-501*", "5-501.93", True),
        ("5-501", "5-501.93", False),
        ("04L[B-D]3", "04LC3", True),
        ("8-836.?a", "8-836xka", False),
        ("47382", "47382\n", False),
    ],
)
def test_match(pattern: str, code: str, hit: bool) -> None:
    assert bool(parse_glob(pattern).regex().match(code)) is hit


@pytest.mark.parametrize("text", ["", "a*b", "**", "[", "]", "a[b", "[]", "[b-a]", "a**"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(MappingError, match=r"pattern|backwards"):
        parse_glob(text)


@given(patterns, patterns)
def test_overlap_is_what_brute_force_finds(first: str, second: str) -> None:
    one, other = parse_glob(first), parse_glob(second)
    assert overlap(one, other) == bool(matched(one) & matched(other))
    assert overlap(other, one) == overlap(one, other)


@given(patterns)
def test_a_pattern_without_choices_is_literal(text: str) -> None:
    glob = parse_glob(text)
    assert glob.is_literal == (len(matched(glob)) == 1 and not glob.open_tail)
    assert all(code.startswith(glob.prefix) for code in matched(glob))


def test_specificity_counts_literals_then_sets_then_the_tail() -> None:
    order = ["8-836.ka", "8-836.[km]a", "8-836.?a", "8-836.k", "8-836.*", "8-83*"]
    ranks = [parse_glob(text).specificity for text in order]
    assert ranks == sorted(ranks, reverse=True)
