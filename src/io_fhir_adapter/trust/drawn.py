"""A draw as a stranger sees it: in which order the tokens came out, who is in the sample, and who left it and why.

The order is that of :func:`io_fhir_adapter.trust.frame.rank`. The first so many are the cases, the next the reserves.
A case leaves with a reason from :data:`LEAVING`, and the next reserve takes its place; so the sample at any time is the
start of the order, up to the last reserve that came in, without those who left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from io_fhir_adapter.trust.frame import Commitment, rank

__all__ = ["LEAVING", "SUPERSEDING", "Place", "draw_problems"]

LEAVING: Final = {
    "file-unavailable": "the patient's file cannot be had",
    "patient-objects": "the patient objects",
    "not-io": "no interventional-oncology procedure after all",
    "duplicate": "the same patient as another case",
    "recognisable": "too few others look like the case, so that the patient might be told from it",
}
"""Why a case may leave the sample; this project's proposal."""

SUPERSEDING: Final = {
    "frame-wrong": "patients were missing from the frame, or did not belong to it",
    "rules-corrected": "the mapping or the rules were corrected after the draw",
    "body-asked": "the accreditation body asked for another draw",
    "key-lost": "the facility's key was lost, so that nobody can tell who was drawn",
}
"""Why a draw may be made again; this project's proposal."""

_CASE, _RESERVE = "case", "reserve"


@dataclass(frozen=True, slots=True)
class Place:
    """One drawn token; ``role`` is ``case``, ``reserve``, or the reason why it left."""

    token: str
    role: str


def draw_problems(commitment: Commitment, nonce: str, drawn: Sequence[Place]) -> Iterator[str]:
    """What does not follow from the commitment and the nonce, in words; nothing where everything does.

    Args:
        commitment: The frame that was committed to.
        nonce: The 256-bit nonce, 64 hexadecimal digits.
        drawn: The drawn tokens in order.
    """
    try:
        number = bytes.fromhex(nonce)
    except ValueError:
        number = b""
    if len(number) != 32:
        yield "the nonce is not 256 bits in hexadecimal"
        return
    order = rank(number, commitment.tokens)[: len(drawn)]
    if [place.token for place in drawn] != order:
        yield "the drawn tokens are not the first in the order that frame and nonce give"
        return
    strange = sorted({place.role for place in drawn} - {_CASE, _RESERVE} - LEAVING.keys())
    if strange:
        yield "a case left without a reason from the list"
    if commitment.design is not None:
        cases, waiting = commitment.design
        if len(drawn) != min(cases + waiting, len(commitment.tokens)):
            yield "another number of tokens was drawn than the frame was committed to with"
            return
        stayed = sum(place.role in {_CASE, _RESERVE} for place in drawn)
        if sum(place.role == _CASE for place in drawn) != min(cases, stayed):
            yield "another number of cases is in the sample than the frame was committed to with"
            return
    reserves = [place.role == _RESERVE for place in drawn]
    if reserves != sorted(reserves):
        yield "a reserve was passed over"
    if not any(place.role == _CASE for place in drawn) and drawn:
        yield "nobody is left in the sample"
