"""The quick way to canonical JSON writes what the slow one writes, byte for byte."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.trust.canonical import canonical_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats()
    | st.floats(1e-7, 1e-3)
    | st.floats(1e14, 1e17)
    | st.decimals(0, 10_000, places=2).map(float)
    | st.text(max_size=6)
    | st.characters(max_codepoint=0x9F)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=5)
)


def written(write: Any, value: Any) -> bytes | None:
    with contextlib.suppress(ValueError):
        made: bytes = write(value)
        return made
    return None


@settings(max_examples=400)
@given(VALUES)
def test_both_ways_write_the_same(value: Any) -> None:
    assert written(canonical_json, value) == written(rfc8785.dumps, value)


@pytest.mark.parametrize(
    "value", ["\ud800", {"\udfff": 1}, [float("nan")], float("inf"), 2**53, {1: 2}, {"a": object()}]
)
def test_what_json_cannot_carry_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match="not canonical JSON"):
        canonical_json(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1.0, "a": [0.5, 1e21, 1e-7, -0.0]}, '{"a":[0.5,1e+21,1e-7,0],"b":1}'),
        ({"\U0001f600": 1, "\ufb33": 2}, '{"\U0001f600":1,"\ufb33":2}'),  # ordered by UTF-16 units
        ('\x7f\u2028\x01"\\/\n', '"\x7f\u2028\\u0001\\"\\\\/\\n"'),
    ],
)
def test_as_the_standard_has_it(value: Any, text: str) -> None:
    assert canonical_json(value) == text.encode()
