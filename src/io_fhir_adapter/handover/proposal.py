"""What an approver looks at before case data leave: the body itself, the counts, and what still needs their word."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.ledger.approvals import Approval, approval_of, approved_texts, cleared_of
from io_fhir_adapter.ledger.draws import cases_of
from io_fhir_adapter.ledger.facts import decisions_between
from io_fhir_adapter.ledger.outbox import item
from io_fhir_adapter.ledger.reviews import reviews_of, signers_of
from io_fhir_adapter.report.gather import unmapped_codes
from io_fhir_adapter.report.nightly import UnmappedCode
from io_fhir_adapter.review.answers import text_digest
from io_fhir_adapter.review.enabling import answered_values
from io_fhir_adapter.review.forms import questions
from io_fhir_adapter.review.profile import load_profile
from io_fhir_adapter.review.sample import Sample
from io_fhir_adapter.submit.resting import Noted, noted
from io_fhir_adapter.trust.canonical import digest_bytes
from io_fhir_adapter.volume.count import Volume

__all__ = ["HeldText", "Proposal", "RareCase", "ReviewLine", "free_texts", "gather_proposal", "rare_cases"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HeldText:
    """A free text of a signed form that a body asks for.

    Attributes:
        number: The case.
        link_id: The item.
        text: What the reviewer wrote.
        digest: What an approval of it names.
        verdict: ``held`` where the scan found nothing and it waits for approval, ``approved`` where it leaves,
            ``identifier`` where the scan found an identifier of a person, so that it never leaves.
    """

    number: int
    link_id: str
    text: str
    digest: str
    verdict: Literal["held", "approved", "identifier"]


@dataclass(frozen=True, slots=True)
class RareCase:
    """A case that too few others look like, also after generalising; it leaves only where an approver says so."""

    number: int
    alike: int
    steps: tuple[str, ...]
    cleared: bool


@dataclass(frozen=True, slots=True)
class ReviewLine:
    """Sessions that a responsible person may still add to the count: how many of a category for one reason."""

    category: str
    reason: str
    sessions: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an approver looks at: exactly what will leave, and what tells whether it should.

    Attributes:
        identifier: The submission.
        digest: Of the very bytes of ``body``; what an approval names.
        body: The Bundle as it will be sent.
        state: Where it stands in the outbox: ``held``, ``queued`` (approved), ``returned``, ``superseded`` …
        made: When it was sealed.
        volume: The counts of the reported year.
        previous: Those of the year before, None where nothing was counted in it.
        review_list: What is for review in the reported year; in none of the counted numbers.
        unmapped: Codes without a row in the tables, the most frequent first.
        unmapped_share: The share of completed Procedures of the year that no row matched, from 0 to 1.
        texts: Free texts that the body asks for.
        rare: Cases that block the approval until they are cleared or leave the sample.
        signers: Accounts of those who cannot approve it.
        approval: What was said of it last.
        stands: Whether it rests on what the ledger holds now; where not, it is made anew before it can be approved.
    """

    identifier: str
    digest: str
    body: bytes
    state: str
    made: str
    volume: Volume
    previous: Volume | None
    review_list: tuple[ReviewLine, ...]
    unmapped: tuple[UnmappedCode, ...]
    unmapped_share: float
    texts: tuple[HeldText, ...]
    rare: tuple[RareCase, ...]
    signers: frozenset[str]
    approval: Approval | None
    stands: bool


def gather_proposal(
    connection: Connection,
    sample: Sample,
    questionnaire: Json,
    *,
    volume: Volume,
    previous: Volume | None,
    ruleset: Ruleset,
    stands: bool,
) -> Proposal | None:
    """What an approver looks at, from the ledger alone; None where nothing was sealed yet.

    Args:
        connection: An open transaction.
        sample: The drawn sample.
        questionnaire: The form.
        volume: The counted year.
        previous: The year before it.
        ruleset: Knows the code tables.
        stands: Whether the submission rests on what the ledger holds now.
    """
    known = noted(connection, sample.draw.period)
    found = item(connection, known.identifier) if known is not None else None
    if known is None or found is None:
        return None
    lines = Counter(
        (one.category, one.reason)
        for one in decisions_between(connection, volume.period.start, volume.period.end)
        if one.decision == "review" and volume.period.contains(one.date)
    )
    seen = volume.seen
    return Proposal(
        identifier=found.identifier,
        digest=digest_bytes(found.body),
        body=found.body,
        state=found.state,
        made=found.created,
        volume=volume,
        previous=previous if previous is not None and previous.seen.procedures else None,
        review_list=tuple(ReviewLine(*line, number) for line, number in sorted(lines.items())),
        unmapped=tuple(unmapped_codes(connection, ruleset)),
        unmapped_share=(seen.completed - seen.mapped) / seen.completed if seen.completed else 0.0,
        texts=free_texts(connection, sample, questionnaire, known),
        rare=rare_cases(connection, sample, known),
        signers=signers_of(connection, sample.draw.id),
        approval=approval_of(connection, found.identifier),
        stands=stands,
    )


def rare_cases(connection: Connection, sample: Sample, known: Noted) -> tuple[RareCase, ...]:
    """The cases of a sample that block its approval, and whether an approver cleared them."""
    cleared, standing = cleared_of(connection, sample.draw.id), cases_of(connection, sample.draw.id)
    numbers = {case.number for case in standing}
    return tuple(
        RareCase(
            risk["case"], risk["alike"], tuple(risk["steps"]),
            cleared.get(risk["case"], risk["alike"] + 1) <= risk["alike"],
        )
        for risk in known.guarded.get("risks", ())
        if not risk["holds"] and risk["case"] in numbers
    )  # fmt: skip


def free_texts(connection: Connection, sample: Sample, questionnaire: Json, known: Noted) -> tuple[HeldText, ...]:
    """The free texts of the signed forms, where the profile lets any leave."""
    if load_profile().answers.text == "local":
        return ()
    free = [one["linkId"] for one in questions(questionnaire) if one["type"] in ("string", "text", "open-choice")]
    approved, said = approved_texts(connection, sample.draw.id), reviews_of(connection, sample.draw.id)
    found: list[HeldText] = []
    for one in known.guarded.get("texts", ()):
        review = said.get(one["case"])
        if review is None or review.answers is None:
            continue
        answers = answered_values(json.loads(review.answers))
        for link in free:
            for text in answers.get(link, ()):
                mark = text_digest(text) if isinstance(text, str) else ""
                if link in one["leaking"]:
                    found.append(HeldText(one["case"], link, text, mark, "identifier"))
                elif mark in approved:
                    found.append(HeldText(one["case"], link, text, mark, "approved"))
                elif mark in one["held"].values():
                    found.append(HeldText(one["case"], link, text, mark, "held"))
    return tuple(found)
