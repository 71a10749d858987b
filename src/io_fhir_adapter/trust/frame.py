"""The sampling frame as a stranger sees it: patient tokens, the commitment to them, and the ranking of a draw.

Everything here can be computed again from published values; only :func:`patient_token` needs the
facility's secret key. The construction (this project's proposal):

* token = HMAC-SHA-256(key, canonical JSON of ``[facility code, patient reference]``), in hexadecimal;
* commitment digest = SHA-256 over the RFC 8785 form of :meth:`Commitment.to_json`;
* rank of a token in a draw = HMAC-SHA-256(nonce, token), smallest first;
* rank of a session of a patient = HMAC-SHA-256(nonce, token followed by the local date);
* pseudonym of a case = the first 16 hexadecimal digits of HMAC-SHA-256(nonce, ``case:`` and the token).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from io_fhir_adapter.trust.canonical import canonical_json, digest

__all__ = ["Commitment", "case_pseudonym", "draw_digest", "patient_token", "rank", "rank_key"]

_FORMAT = "io-fhir-adapter frame 2"
_WITHOUT_DESIGN = "io-fhir-adapter frame 1"  # earlier: how many are drawn was not committed to
_TOKEN = re.compile(r"[0-9a-f]{64}\Z")
_PSEUDONYM_DIGITS = 16


def _hmac_hex(key: bytes, message: bytes) -> str:
    return hmac.digest(key, message, "sha256").hex()


def patient_token(key: bytes, facility_code: str, patient: str) -> str:
    """The token of a patient: 64 hexadecimal digits that only the holder of ``key`` can link to the patient.

    Args:
        key: The facility's secret key.
        facility_code: The facility code from registration, so that facilities sharing a key share no token.
        patient: The patient's reference in the source, such as ``Patient/1``.
    """
    return _hmac_hex(key, canonical_json([facility_code, patient]))


def rank_key(nonce: bytes, token: str, day: str = "") -> str:
    """What a token (or, with ``day``, one session of its patient) is ordered by in a draw."""
    return _hmac_hex(nonce, f"{token}{day}".encode())


def rank(nonce: bytes, tokens: Iterable[str]) -> list[str]:
    """The distinct tokens in the order of the draw; the order they come in makes no difference."""
    return sorted(set(tokens), key=lambda token: (rank_key(nonce, token), token))


def case_pseudonym(nonce: bytes, token: str) -> str:
    """The pseudonym of a case: another one in every draw, so that forms of two draws are not linked by it."""
    return rank_key(nonce, f"case:{token}")[:_PSEUDONYM_DIGITS]


def draw_digest(frame: str, nonce: str) -> str:
    """What a draw is known by: ``sha256:`` and the hash of the frame's digest and the nonce."""
    return digest({"frame": frame, "nonce": nonce})


@dataclass(frozen=True)
class Commitment:
    """What is fixed and published before any randomness exists.

    Attributes:
        programme: Code of the accreditation programme.
        facility_code: The facility code from registration.
        start: First local date of the window, ``YYYY-MM-DD``.
        end: Last local date of the window, inclusive.
        ruleset_digest: Digest of the tables and rules that decided what counts.
        tokens: The tokens of all patients in the frame, sorted and distinct.
        design: How many cases and how many reserves are to be drawn; None in commitments that do not say.
    """

    programme: str
    facility_code: str
    start: str
    end: str
    ruleset_digest: str
    tokens: tuple[str, ...]
    design: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.design is not None and (self.design[0] < 1 or self.design[1] < 0):
            msg = "a sample has at least one case, and no fewer than no reserves"
            raise ValueError(msg)
        if any(not _TOKEN.match(token) for token in self.tokens):
            msg = "a token of the frame is not 64 lower-case hexadecimal digits"
            raise ValueError(msg)
        if any(first >= second for first, second in zip(self.tokens, self.tokens[1:], strict=False)):
            msg = "the tokens of the frame are not sorted and distinct"
            raise ValueError(msg)

    def to_json(self) -> dict[str, Any]:
        """The JSON value that is hashed and published."""
        design = {"sample": dict(zip(("cases", "reserves"), self.design, strict=True))} if self.design else {}
        return {
            "format": _FORMAT if self.design else _WITHOUT_DESIGN,
            "programme": self.programme,
            "facility": self.facility_code,
            "window": {"start": self.start, "end": self.end},
            "ruleset": self.ruleset_digest,
            "tokens": list(self.tokens),
            **design,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The commitment behind a published JSON value.

        Raises:
            ValueError: It is no commitment of this format, or its tokens are not sorted and distinct.
        """
        try:
            sample = value.get("sample") if value["format"] == _FORMAT else None
            commitment = cls(
                programme=value["programme"],
                facility_code=value["facility"],
                start=value["window"]["start"],
                end=value["window"]["end"],
                ruleset_digest=value["ruleset"],
                tokens=tuple(value["tokens"]),
                design=(sample["cases"], sample["reserves"]) if sample is not None else None,
            )
        except (KeyError, TypeError, AttributeError) as exc:
            msg = "not a frame commitment"
            raise ValueError(msg) from exc
        if commitment.to_json() != value:
            msg = f"not a frame commitment of the format {_FORMAT!r}"
            raise ValueError(msg)
        return commitment

    @property
    def digest(self) -> str:
        """``sha256:`` and the hash of the canonical form of :meth:`to_json`."""
        return digest(self.to_json())
