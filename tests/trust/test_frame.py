from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.trust.frame import Commitment, case_pseudonym, patient_token, rank, rank_key

KEY = bytes(range(32))
TOKENS = [patient_token(KEY, "F-1", f"Patient/{number}") for number in range(40)]
nonces = st.binary(min_size=32, max_size=32)


def commitment(tokens: list[str] = TOKENS) -> Commitment:
    return Commitment("iasios", "F-1", "2025-01-01", "2025-12-31", "sha256:00", tuple(sorted(tokens)))


def test_token_is_hmac_sha256_of_facility_and_patient() -> None:
    expected = hmac.new(KEY, b'["F-1","Patient/1"]', hashlib.sha256).hexdigest()
    assert patient_token(KEY, "F-1", "Patient/1") == expected


def test_tokens_differ_by_key_facility_and_patient_even_where_parts_could_run_together() -> None:
    tokens = {
        patient_token(KEY, "F-1", "Patient/1"),
        patient_token(KEY[::-1], "F-1", "Patient/1"),
        patient_token(KEY, "F-2", "Patient/1"),
        patient_token(KEY, "F-1", "Patient/2"),
        patient_token(KEY, "F-1Patient", "/1"),
    }
    assert len(tokens) == 5


@given(nonces, st.randoms(use_true_random=False))
def test_rank_does_not_depend_on_the_order_or_repetition_of_the_input(nonce: bytes, random: Random) -> None:
    shuffled = [*TOKENS, *TOKENS[:5]]
    random.shuffle(shuffled)
    assert rank(nonce, shuffled) == rank(nonce, TOKENS)
    assert sorted(rank(nonce, shuffled)) == sorted(TOKENS)


def test_rank_can_be_computed_again_with_nothing_but_hmac() -> None:
    nonce = b"\x07" * 32
    by_hand = sorted(TOKENS, key=lambda token: hmac.new(nonce, token.encode(), hashlib.sha256).hexdigest())
    assert rank(nonce, TOKENS) == by_hand
    assert rank_key(nonce, TOKENS[0], "2025-03-01") == (
        hmac.new(nonce, f"{TOKENS[0]}2025-03-01".encode(), hashlib.sha256).hexdigest()
    )


def test_removing_a_patient_leaves_the_order_of_the_others() -> None:
    nonce = b"\x01" * 32
    without = [token for token in TOKENS if token != TOKENS[3]]
    assert rank(nonce, without) == [token for token in rank(nonce, TOKENS) if token != TOKENS[3]]


def test_commitment_digest_is_over_canonical_json_and_survives_a_round_trip() -> None:
    original = commitment()
    published = json.loads(json.dumps(original.to_json()))
    assert Commitment.from_json(published) == original
    assert Commitment.from_json(dict(reversed(published.items()))).digest == original.digest
    assert original.digest.startswith("sha256:")


@pytest.mark.parametrize(
    "changed",
    [
        {"programme": "degir"},
        {"facility_code": "F-2"},
        {"start": "2025-01-02"},
        {"end": "2025-12-30"},
        {"ruleset_digest": "sha256:01"},
        {"design": (30, 10)},
        {"tokens": tuple(sorted(TOKENS))[1:]},
        {"tokens": tuple(sorted([*TOKENS[1:], patient_token(KEY, "F-1", "Patient/x")]))},
    ],
)
def test_any_change_changes_the_digest(changed: dict[str, object]) -> None:
    assert replace(commitment(), **changed).digest != commitment().digest  # type: ignore[arg-type]


def test_how_many_are_drawn_is_committed_to() -> None:
    with_design = replace(commitment(), design=(30, 10))
    published = json.loads(json.dumps(with_design.to_json()))
    assert (published["format"], published["sample"]) == ("io-fhir-adapter frame 2", {"cases": 30, "reserves": 10})
    assert Commitment.from_json(published) == with_design
    assert replace(with_design, design=(30, 9)).digest != with_design.digest
    for sample in ({"cases": 0, "reserves": 1}, {"cases": 1, "reserves": -1}, {"cases": 30}, [30, 10], None):
        with pytest.raises(ValueError, match=r"a sample has at least|not a frame commitment"):
            Commitment.from_json({**published, "sample": sample})


@pytest.mark.parametrize("tokens", [tuple(sorted(TOKENS))[::-1], (TOKENS[0], TOKENS[0]), ("Patient/1",), ("A" * 64,)])
def test_tokens_must_be_sorted_distinct_and_tokens(tokens: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="token"):
        Commitment("iasios", "F-1", "2025-01-01", "2025-12-31", "sha256:00", tokens)


@pytest.mark.parametrize("value", [None, [], {}, {"format": "io-fhir-adapter frame 1"}])
def test_what_is_no_commitment_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a frame commitment"):
        Commitment.from_json(value)


def test_a_commitment_with_another_format_or_more_members_is_refused() -> None:
    for change in ({"format": "other"}, {"extra": 1}):
        with pytest.raises(ValueError, match="format"):
            Commitment.from_json({**commitment().to_json(), **change})


def test_pseudonyms_differ_between_draws_and_are_not_the_token() -> None:
    first, second = case_pseudonym(b"\x01" * 32, TOKENS[0]), case_pseudonym(b"\x02" * 32, TOKENS[0])
    assert first != second
    assert len(first) == 16
    assert first not in TOKENS[0]
