"""Is the draw fair? Over many seeded draws everybody is drawn, drawn first and kept in reserve equally often.

``DRAW_ROUNDS`` says over how many; ``make draws`` takes more than the usual ten thousand.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.model import Decision
from io_fhir_adapter.review.draw import Draw, Frame, build_frame, draw_cases
from io_fhir_adapter.trust.frame import Commitment, rank

pytestmark = pytest.mark.xdist_group("draws")  # the rounds are drawn once
ROUNDS = int(os.environ.get("DRAW_ROUNDS", "10000"))
PATIENTS, SIZE, RESERVES = 48, 30, 10
LEAST_P = 0.001
KEY = b"k" * 32


def p_value(statistic: float, freedom: int) -> float:
    """The chance that a chi-square variable of so many degrees of freedom is larger: Q(freedom / 2, statistic / 2).

    The regularised incomplete gamma function, by its series below the mean and by its continued fraction above
    (Abramowitz and Stegun 6.5.29, 6.5.31).
    """
    a, x = freedom / 2, statistic / 2
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > total * 1e-15:
            n += 1
            term *= x / n
            total += term
        return 1 - scale * total
    b = x + 1 - a
    c, d = 1e300, 1 / b
    fraction = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b)
        c = b + step / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return scale * fraction


def fit(counts: Counter[str], names: Iterable[str], rounds: int, chosen: int) -> float:
    """p of Pearson's test that each name came up equally often, ``chosen`` different names in each round.

    Choosing without replacement makes the counts less variable than Pearson's test takes them for, by
    (names - chosen) / (names - 1).
    """
    every = list(names)
    expected = rounds * chosen / len(every)
    statistic = sum((counts[name] - expected) ** 2 / expected for name in every)
    return p_value(statistic * (len(every) - 1) / (len(every) - chosen), len(every) - 1)


def nonce(seed: int) -> bytes:
    return hashlib.sha256(f"draw {seed}".encode()).digest()


def frame_of(patients: int) -> Frame:
    decisions = [
        Decision("his", f"Patient/{number}", "2025-03-01", "tace", "counted", "counted") for number in range(patients)
    ]
    return build_frame(decisions, "2025-01-01", "2025-12-31")


class Counted(NamedTuple):
    """How often each patient was a case, a reserve, the first, and two of some few both cases."""

    cases: Counter[str]
    reserves: Counter[str]
    firsts: Counter[str]
    pairs: Counter[tuple[str, str]]


def drawn(seed: int) -> Draw:
    return draw_cases(
        frame_of(PATIENTS), key=KEY, facility_code="F-1", programme="iasios", ruleset_digest="sha256:0",
        nonce=nonce(seed), size=SIZE, reserves=RESERVES,
    )  # fmt: skip


TOKENS = drawn(0).commitment.tokens
WATCHED = TOKENS[:12]


@pytest.fixture(scope="module")
def counted() -> Counted:
    """What came of all rounds; made once. The tokens are the same in each, so that only the order is made anew."""
    found = Counted(Counter(), Counter(), Counter(), Counter())
    for seed in range(ROUNDS):
        order = rank(nonce(seed), TOKENS)
        cases = set(order[:SIZE])
        found.cases.update(cases)
        found.reserves.update(order[SIZE : SIZE + RESERVES])
        found.firsts[order[0]] += 1
        found.pairs.update(pair for pair in combinations(WATCHED, 2) if cases.issuperset(pair))
    return found


def test_a_draw_is_the_start_of_that_order() -> None:
    for seed in range(0, ROUNDS, max(ROUNDS // 100, 1)):
        result, order = drawn(seed), rank(nonce(seed), TOKENS)
        assert [case.token for case in result.cases] == order[:SIZE]
        assert [case.token for case in result.reserves] == order[SIZE : SIZE + RESERVES]
        assert result.commitment.tokens == TOKENS


def test_every_patient_is_a_case_equally_often(counted: Counted) -> None:
    assert sum(counted.cases.values()) == ROUNDS * SIZE
    assert fit(counted.cases, TOKENS, ROUNDS, SIZE) > LEAST_P


def test_every_patient_is_a_reserve_equally_often(counted: Counted) -> None:
    assert fit(counted.reserves, TOKENS, ROUNDS, RESERVES) > LEAST_P


def test_every_patient_is_the_first_equally_often(counted: Counted) -> None:
    assert fit(counted.firsts, TOKENS, ROUNDS, 1) > LEAST_P


def test_no_two_patients_are_drawn_together_more_often_than_others(counted: Counted) -> None:
    together = SIZE * (SIZE - 1) / (PATIENTS * (PATIENTS - 1))
    deviation = math.sqrt(ROUNDS * together * (1 - together))
    # of 66 pairs none is 4.5 standard deviations away, which a fair draw does once in 2,000 times
    assert all(abs(counted.pairs[pair] - ROUNDS * together) < 4.5 * deviation for pair in combinations(WATCHED, 2))


def test_the_frequency_fits_in_large_frames_too() -> None:
    tokens = sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(400))
    rounds = max(ROUNDS // 20, 1)
    counts = Counter(token for seed in range(rounds) for token in rank(nonce(seed), tokens)[:SIZE])
    assert fit(counts, tokens, rounds, SIZE) > LEAST_P


def _by_token(_: bytes, tokens: Sequence[str]) -> list[str]:
    return sorted(tokens)


def _by_first_bytes(value: bytes, tokens: Sequence[str]) -> list[str]:
    return sorted(tokens, key=lambda token: (int(token[:2], 16) ^ value[0]) & 0xF7)


def _mostly_fair(value: bytes, tokens: Sequence[str]) -> list[str]:
    order = rank(value, tokens)
    favourite = min(tokens)
    if value[0] < 32:  # one draw in eight puts one patient first
        order.remove(favourite)
        order.insert(0, favourite)
    return order


@pytest.mark.parametrize("unfair", [_by_token, _by_first_bytes, _mostly_fair])
def test_an_unfair_order_is_found(unfair: Callable[[bytes, Sequence[str]], list[str]]) -> None:
    counts = Counter(token for seed in range(10_000) for token in unfair(nonce(seed), TOKENS)[:SIZE])
    assert fit(counts, TOKENS, 10_000, SIZE) < LEAST_P


@pytest.mark.parametrize(
    ("statistic", "freedom", "p"),
    [(3.841459, 1, 0.05), (10.827566, 1, 0.001), (31.264134, 11, 0.001), (5.0, 2, math.exp(-2.5)),
     (20.515006, 5, 0.001), (100.0, 100, 0.4811917), (149.449253, 100, 0.001), (70.064893, 100, 0.99), (0.0, 3, 1.0)],
)  # fmt: skip
def test_the_chi_square_distribution_is_the_one_of_the_tables(statistic: float, freedom: int, p: float) -> None:
    assert p_value(statistic, freedom) == pytest.approx(p, rel=1e-5)


@given(st.data())
def test_one_other_token_is_another_digest(data: st.DataObject) -> None:
    token = st.text("0123456789abcdef", min_size=64, max_size=64)
    tokens = data.draw(st.lists(token, min_size=1, max_size=20, unique=True))
    other = data.draw(token.filter(lambda value: value not in tokens))
    place = data.draw(st.integers(0, len(tokens) - 1))
    changed = [*tokens[:place], other, *tokens[place + 1 :]]

    def digest(of: list[str]) -> str:
        return Commitment("iasios", "F-1", "2025-01-01", "2025-12-31", "sha256:0", tuple(sorted(of))).digest

    assert digest(tokens) != digest(changed)
    assert digest(tokens) != digest([*tokens, other])
    assert digest(tokens) == digest(tokens[::-1])
