"""Drawing the sample of a period in the ledger: commitment first, nonce after it, cases last.

The nonce comes from outside, between the two functions. Each of the three steps is its own transaction and is done
once, so that a run that dies in between goes on where it stopped and nobody can draw until the result pleases. Who is
in the frame is kept with the commitment, so that what is decided later changes nothing about who is drawn; whoever
counts no more then leaves the sample with that reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import (
    StoredCase,
    StoredDraw,
    cases_of,
    commit_frame,
    find_draw,
    leave_case,
    put_cases,
    supersede,
)
from io_fhir_adapter.ledger.facts import decisions_between
from io_fhir_adapter.review.draw import Case, Draw, Frame, Session, build_frame, draw_cases, review_window
from io_fhir_adapter.trust.canonical import canonical_json
from io_fhir_adapter.trust.drawn import LEAVING, SUPERSEDING
from io_fhir_adapter.trust.frame import Commitment

__all__ = ["Design", "Sample", "commit_sample", "draw_sample", "frame_of", "leave_sample", "not_drawn"]

_NO_NONCE = bytes(32)


@dataclass(frozen=True, slots=True)
class Sample:
    """The drawn sample of a period; ``fresh`` says whether it was drawn just now.

    Nobody is drawn where ``waits`` says why there is no nonce yet. ``wanted`` is how many cases the programme asks for.
    """

    draw: StoredDraw
    cases: tuple[StoredCase, ...]
    fresh: bool
    wanted: int
    waits: str = ""

    @property
    def short(self) -> bool:
        """Whether the frame held fewer patients than were wanted, so that all of them are in the sample."""
        return self.draw.frame_size < self.wanted


@dataclass(frozen=True, slots=True)
class Design:
    """What a sample is drawn with beside the frame and the nonce.

    Attributes:
        programme: Gives size, reserves and window.
        facility_code: The facility's code from registration.
        key: The facility's secret key.
        ruleset_digest: What decided who counts.
    """

    programme: Programme
    facility_code: str
    key: bytes
    ruleset_digest: str

    def draw(self, frame: Frame, nonce: bytes, sizes: tuple[int, int] | None = None) -> Draw:
        """The draw that frame and nonce give; ``sizes`` of a commitment take the place of the programme's."""
        rule = self.programme.sample
        size, reserves = sizes or (rule.size, rule.reserves)
        return draw_cases(
            frame, key=self.key, facility_code=self.facility_code, programme=self.programme.id,
            ruleset_digest=self.ruleset_digest, nonce=nonce, size=size, reserves=reserves,
        )  # fmt: skip


def commit_sample(
    ledger: Ledger, design: Design, *, period: str, as_of: date, now: datetime, supersede_because: str = ""
) -> StoredDraw:
    """The draw of a period that stands, committed to and perhaps drawn already; else a new commitment.

    Args:
        ledger: Holds decisions and draws.
        design: What is drawn with.
        period: Label of the reporting period that the sample belongs to.
        as_of: The local date of the draw; the window ends the programme's number of days before it.
        now: The time written down.
        supersede_because: Commit anew although there is a draw, for this reason; it stays on record.

    Raises:
        ReviewError: Nobody could be drawn, or the reason is none of the list.
    """
    if supersede_because and supersede_because not in SUPERSEDING:
        raise ReviewError(
            f"{supersede_because!r} is no reason to draw again", do=f"give one of {', '.join(SUPERSEDING)}", number=7
        )
    with ledger.begin() as connection:
        stored = find_draw(connection, design.programme.id, period)
        if stored is not None and supersede_because:
            supersede(connection, stored, supersede_because, now)
            stored = None
    return stored or _commit(ledger, design, period, as_of, now)


def draw_sample(ledger: Ledger, design: Design, stored: StoredDraw, now: datetime) -> Sample:
    """The sample of a committed frame that has its nonce: the stored one where it is drawn, else drawn now.

    Raises:
        ReviewError: The key is not the one that the frame was committed to with.
    """
    with ledger.read() as connection:
        everybody = cases_of(connection, stored.id, None)
    wanted = design.programme.sample.size
    if everybody:
        return Sample(stored, tuple(case for case in everybody if case.role == "case"), fresh=False, wanted=wanted)
    committed = Commitment.from_json(json.loads(stored.commitment))
    outcome = design.draw(frame_of(stored), bytes.fromhex(stored.nonce), committed.design)
    if outcome.commitment.tokens != committed.tokens:
        raise ReviewError(
            "the pseudonym key is not the one that the frame was committed to with",
            where=f"draw of {stored.period}",
            do="restore the key that review.key_file had, or draw again with --supersede key-lost",
            number=6,
        )
    with ledger.begin() as connection:
        chosen = [*_stored(outcome.cases, "case"), *_stored(outcome.reserves, "reserve")]
        put_cases(connection, stored, chosen, now)
        return Sample(stored, tuple(cases_of(connection, stored.id)), fresh=True, wanted=wanted)


def not_drawn(sample: Sample) -> ReviewError:
    """The error for whoever needs the cases of a sample that waits for its nonce."""
    return ReviewError(
        "nobody is drawn yet, because the nonce is awaited",
        do=f"{sample.waits}; it is asked for again in the next night",
        number=13,
        transient=True,
    )


def leave_sample(ledger: Ledger, sample: Sample, number: int, reason: str, now: datetime) -> None:
    """Takes a case out of a sample; the next reserve takes its place.

    Raises:
        ReviewError: The reason is none of the list, or there is no such case.
    """
    if reason not in LEAVING:
        raise ReviewError(
            f"{reason!r} is no reason for a case to leave", do=f"give one of {', '.join(LEAVING)}", number=8
        )
    with ledger.begin() as connection:
        cases = {case.number: case for case in cases_of(connection, sample.draw.id)}
        if number not in cases:
            raise ReviewError(
                f"there is no case {number} in the sample", do="give the number of a case, see the draw", number=9
            )
        leave_case(connection, sample.draw, cases[number], reason, now)


def _commit(ledger: Ledger, design: Design, period: str, as_of: date, now: datetime) -> StoredDraw:
    rule = design.programme.sample
    window = review_window(as_of, rule.window_months, rule.ends_days_before)
    with ledger.begin() as connection:
        frame = build_frame(decisions_between(connection, *window), *window)
        if not frame.size:
            raise ReviewError(
                "no patient has a counted session in the review window",
                where=f"{window[0]} to {window[1]}",
                do="nothing can be drawn; check the count of that time",
                number=5,
            )
        commitment = design.draw(frame, _NO_NONCE).commitment  # which does not depend on the nonce
        return commit_frame(
            connection, design.programme.id, period, window, canonical_json(commitment.to_json()), commitment.digest,
            frame.size, now, _frame_json(frame),
        )  # fmt: skip


def _frame_json(frame: Frame) -> bytes:
    patients = {
        patient: [[session.date, session.category, list(session.procedures), session.source] for session in sessions]
        for patient, sessions in frame.patients.items()
    }
    return json.dumps({"start": frame.start, "end": frame.end, "patients": patients}).encode()


def frame_of(draw: StoredDraw) -> Frame:
    """Who was committed to, as it was kept with the commitment."""
    stored = json.loads(draw.frame)
    patients = {
        patient: tuple(Session(day, category, tuple(procedures), source) for day, category, procedures, source in rows)
        for patient, rows in stored["patients"].items()
    }
    return Frame(stored["start"], stored["end"], patients)


def _stored(drawn: tuple[Case, ...], role: str) -> list[StoredCase]:
    return [
        StoredCase(case.number, role, case.token, case.patient, case.date, case.category, case.procedures)
        for case in drawn
    ]
