"""The frame and the draw in FHIR: a Group of tokens, and a List of those drawn, in the order of the draw.

Before there is a nonce the Group is announced without its tokens: its digest is enough to hold the facility to them,
and nothing about a single patient leaves before somebody approved of it.

All can be checked by anyone who has the submission (:mod:`io_fhir_adapter.trust.verify`). That an accreditation body
takes them so is this project's proposal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from io_fhir_adapter.canonical_urls import (
    DRAW_ORDER,
    DRAW_ROLE,
    DRAW_SYSTEM,
    FACILITY_SYSTEM,
    FRAME_CODES,
    FRAME_DESIGN,
    FRAME_SYSTEM,
    PATIENT_TOKEN,
    PROGRAMME_SYSTEM,
    RULESET_SYSTEM,
)
from io_fhir_adapter.trust.drawn import Place
from io_fhir_adapter.trust.frame import Commitment, draw_digest

__all__ = ["draw_list", "frame_announcement", "frame_group"]

Json = dict[str, Any]


def _token(value: str) -> Json:
    return {"identifier": {"system": PATIENT_TOKEN, "value": value}}


def frame_group(commitment: Commitment) -> Json:
    """The commitment to the sampling frame: everybody who could be drawn, as tokens, and the digest over them."""
    return {
        "resourceType": "Group",
        "meta": {"tag": [{"system": PROGRAMME_SYSTEM, "code": commitment.programme}]},
        "identifier": [
            {"system": FRAME_SYSTEM, "value": commitment.digest},
            {"system": RULESET_SYSTEM, "value": commitment.ruleset_digest},
        ],
        "type": "person",
        "actual": True,
        "quantity": len(commitment.tokens),
        "managingEntity": {
            "type": "Organization",
            "identifier": {"system": FACILITY_SYSTEM, "value": commitment.facility_code},
        },
        "characteristic": [
            {
                "code": {"coding": [{"system": FRAME_CODES, "code": "review-window"}]},
                "valueBoolean": True,
                "exclude": False,
                "period": {"start": commitment.start, "end": commitment.end},
            },
            *(
                {
                    "code": {"coding": [{"system": FRAME_CODES, "code": code}]},
                    "valueQuantity": {"value": number},
                    "exclude": False,
                }
                for code, number in zip(FRAME_DESIGN, commitment.design or (), strict=False)
            ),
        ],
        "member": [{"entity": _token(token)} for token in commitment.tokens],
    }


def frame_announcement(commitment: Commitment) -> Json:
    """The same Group without its members: what is said of the frame before there is a nonce."""
    return {name: value for name, value in frame_group(commitment).items() if name != "member"}


def draw_list(frame: str, nonce: str, origin: str, drawn: Iterable[Place]) -> Json:
    """Who was drawn.

    Args:
        frame: Digest of the frame.
        nonce: The nonce, hexadecimal.
        origin: Where it came from, ``local`` or ``task``.
        drawn: The drawn tokens in order.
    """
    return {
        "resourceType": "List",
        "identifier": [{"system": DRAW_SYSTEM, "value": draw_digest(frame, nonce)}],
        "status": "current",
        "mode": "snapshot",
        "orderedBy": {"coding": [{"system": DRAW_ORDER, "code": f"nonce-{origin}"}]},
        "entry": [
            {"flag": {"coding": [{"system": DRAW_ROLE, "code": place.role}]}, "item": _token(place.token)}
            for place in drawn
        ],
    }
