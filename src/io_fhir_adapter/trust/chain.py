"""A hash chain: a list that can be added to, in which nothing can be changed, left out or put in without being seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from io_fhir_adapter.trust.canonical import digest

__all__ = ["START", "Link", "first_broken", "link_digest"]

START: Final = "sha256:" + "0" * 64
"""What stands before the first link."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link.

    Attributes:
        number: Its place, from 1.
        at: When it was added, UTC.
        kind: What it tells of.
        body: What it says, a JSON value.
        digest: Hash over the digest before it and over all of the above but ``number``.
    """

    number: int
    at: str
    kind: str
    body: Any
    digest: str


def link_digest(previous: str, at: str, kind: str, body: Any) -> str:
    """The digest of a link that follows ``previous``: SHA-256 of the RFC 8785 form of all four."""
    return digest([previous, at, kind, body])


def first_broken(links: Iterable[Link]) -> int | None:
    """The number of the first link that does not follow from those before it; None where the chain holds.

    A chain that was cut off at its end holds: who keeps a later digest sees it.
    """
    previous, expected = START, 1
    for link in links:
        if link.number != expected or link.digest != link_digest(previous, link.at, link.kind, link.body):
            return expected
        previous, expected = link.digest, expected + 1
    return None
