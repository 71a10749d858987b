from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.submit.outbox_policy import (
    FIRST_DELAY,
    LEASE,
    MAX_AGE,
    MAX_ATTEMPTS,
    MAX_DELAY,
    MAX_RETRY_AFTER,
    give_up,
    lease_expired,
    next_attempt,
    state_after,
)

NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
attempts = st.integers(min_value=1, max_value=10_000)
seeds = st.integers(min_value=0, max_value=2**32)


@given(attempts, seeds)
def test_the_delay_is_jittered_and_capped(made: int, seed: int) -> None:
    delay = next_attempt(NOW, made, None, Random(seed)) - NOW
    assert FIRST_DELAY / 2 <= delay <= MAX_DELAY
    if made == 1:
        assert delay <= FIRST_DELAY


@given(st.integers(min_value=1, max_value=30), seeds)
def test_delays_do_not_shrink_but_for_jitter(made: int, seed: int) -> None:
    assert next_attempt(NOW, made + 1, None, Random(seed)) >= next_attempt(NOW, made, None, Random(seed))


@given(attempts, st.floats(min_value=0, allow_infinity=True, allow_nan=False), seeds)
def test_the_receivers_wish_is_kept_within_a_day(made: int, wish: float, seed: int) -> None:
    delay = next_attempt(NOW, made, wish, Random(seed)) - NOW
    assert delay >= timedelta(seconds=min(wish, MAX_RETRY_AFTER.total_seconds()))
    assert delay <= MAX_RETRY_AFTER + timedelta(minutes=1)


def test_the_same_random_numbers_give_the_same_time() -> None:
    assert next_attempt(NOW, 3, 5.0, Random(1)) == next_attempt(NOW, 3, 5.0, Random(1))


@given(attempts, st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)))
def test_giving_up_never_reverts(made: int, age: timedelta) -> None:
    if give_up(made, NOW - age, NOW):
        assert give_up(made + 1, NOW - age - timedelta(days=1), NOW)


def test_neither_age_nor_a_few_attempts_alone_park_an_item() -> None:
    assert not give_up(1, NOW - 10 * MAX_AGE, NOW)
    assert not give_up(MAX_ATTEMPTS - 1, NOW - timedelta(days=1), NOW)
    assert give_up(MAX_ATTEMPTS, NOW, NOW)
    assert give_up(20, NOW - MAX_AGE, NOW)


def test_verdicts_lead_to_states() -> None:
    assert state_after("accepted", MAX_ATTEMPTS, NOW, NOW) == "accepted"
    assert state_after("rejected", 1, NOW, NOW) == "rejected"
    assert state_after("transient", 1, NOW, NOW) == "queued"
    assert state_after("transient", MAX_ATTEMPTS, NOW, NOW) == "parked"


def test_leases_run_out_and_do_not_outlive_a_clock_set_back() -> None:
    assert not lease_expired(NOW, NOW + LEASE / 2)
    assert lease_expired(NOW, NOW + LEASE)
    assert lease_expired(NOW + timedelta(seconds=1), NOW)
