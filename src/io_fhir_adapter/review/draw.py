"""The draw: who could be drawn, who is, and one index session for each.

The frame is every distinct patient with a counted session in the window; it is committed to before the
nonce is used, and the nonce alone decides the order (see :mod:`io_fhir_adapter.trust.frame`).
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.fhir.dates import is_full
from io_fhir_adapter.model import Decision
from io_fhir_adapter.trust.frame import Commitment, case_pseudonym, patient_token, rank, rank_key

__all__ = ["Case", "Draw", "Frame", "Session", "build_frame", "draw_cases", "review_window"]

_NONCE_BYTES = 32
_KEY_BYTES = 16


@dataclass(frozen=True, order=True)
class Session:
    """A counted session that a patient could be reviewed for; ``date`` is a full local date."""

    date: str
    category: str
    procedures: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class Frame:
    """The sampling frame.

    Attributes:
        start: First local date of the window.
        end: Last local date of the window, inclusive.
        patients: Patient reference to the patient's sessions in the window, both in a stable order. Local only.
    """

    start: str
    end: str
    patients: Mapping[str, tuple[Session, ...]] = field(repr=False)

    @property
    def size(self) -> int:
        """How many distinct patients could be drawn."""
        return len(self.patients)


@dataclass(frozen=True)
class Case:
    """One drawn patient with one index session.

    Attributes:
        number: Place in the draw, from 1; reserves go on where the cases end.
        token: The patient's token in the commitment.
        pseudonym: The name of this case in this draw, for the form.
        patient: The patient's reference. Local only.
        date: Local date of the index session. Local only.
        category: Category of the index session.
        procedures: References of the session's Procedures. Local only.
        source: The source that recorded it.
    """

    number: int
    token: str
    pseudonym: str
    patient: str = field(repr=False)
    date: str = field(repr=False)
    category: str
    procedures: tuple[str, ...] = field(repr=False)
    source: str = ""


@dataclass(frozen=True)
class Draw:
    """The outcome of a draw.

    Attributes:
        commitment: What was committed to before the draw.
        nonce: The nonce, in hexadecimal.
        size: How many cases were wanted.
        cases: The drawn cases in order; fewer than ``size`` where the frame is smaller.
        reserves: Those that take a case's place where its file cannot be used, in order.
    """

    commitment: Commitment
    nonce: str
    size: int
    cases: tuple[Case, ...]
    reserves: tuple[Case, ...]

    @property
    def short(self) -> bool:
        """Whether the frame held fewer patients than were wanted."""
        return len(self.cases) < self.size


def _months_before(day: date, months: int) -> date:
    index = day.year * 12 + day.month - 1 - months
    year, month = divmod(index, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def review_window(as_of: date, months: int = 12, ends_days_before: int = 30) -> tuple[str, str]:
    """The first and last local date of the review window.

    The window ends ``ends_days_before`` days before ``as_of``, so that later events can be known, and is
    ``months`` long: it starts the day after the same day of the month ``months`` earlier (the month's last day
    where it has no such day).

    Raises:
        ReviewError: The window would be empty, or lies in the future or outside the calendar.
    """
    if months < 1 or ends_days_before < 0:
        raise ReviewError(
            "the review window is empty or in the future",
            do="use at least one month, ending zero or more days before the draw",
            number=1,
        )
    try:
        end = as_of - timedelta(days=ends_days_before)
        start = _months_before(end, months) + timedelta(days=1)
    except (OverflowError, ValueError) as exc:
        raise ReviewError("the review window lies outside the calendar", do="use fewer months", number=1) from exc
    return start.isoformat(), end.isoformat()


def build_frame(decisions: Iterable[Decision], start: str, end: str) -> Frame:
    """The distinct patients with a counted session whose full local date lies within [start, end], inclusive.

    Sessions that are not counted, or are for review, or have a partial date, put nobody into the frame. Neither
    the order of the decisions nor repeated ones make a difference.
    """
    sessions: dict[str, set[Session]] = {}
    for decision in decisions:
        if decision.decision == "counted" and is_full(decision.date) and start <= decision.date <= end:
            session = Session(decision.date, decision.category, tuple(sorted(decision.procedures)), decision.source)
            sessions.setdefault(decision.patient, set()).add(session)
    return Frame(start, end, {patient: tuple(sorted(sessions[patient])) for patient in sorted(sessions)})


def draw_cases(
    frame: Frame,
    *,
    key: bytes,
    facility_code: str,
    programme: str,
    ruleset_digest: str,
    nonce: bytes,
    size: int = 30,
    reserves: int = 10,
) -> Draw:
    """Draw ``size`` distinct patients without replacement, the next ``reserves`` as reserves.

    Args:
        frame: Who could be drawn.
        key: The facility's secret key for patient tokens, at least 16 bytes (32 are usual).
        facility_code: The facility code from registration.
        programme: Code of the accreditation programme.
        ruleset_digest: Digest of the rules that decided what counts.
        nonce: The 256-bit nonce, drawn after the commitment.
        size: How many cases are wanted.
        reserves: How many reserves are wanted.

    Raises:
        ReviewError: The key is too short, the nonce is not 32 bytes, or a size is out of range.
    """
    if len(key) < _KEY_BYTES:
        raise ReviewError(
            f"the facility's key has fewer than {_KEY_BYTES} bytes", do="make a new key of 32 random bytes", number=2
        )
    if len(nonce) != _NONCE_BYTES:
        raise ReviewError("the nonce of the draw is not 256 bits long", do="use 32 random bytes", number=3)
    if size < 1 or reserves < 0:
        raise ReviewError("the sample size must be at least 1, the reserves at least 0", number=4)
    patients = {patient_token(key, facility_code, patient): patient for patient in frame.patients}
    commitment = Commitment(
        programme=programme,
        facility_code=facility_code,
        start=frame.start,
        end=frame.end,
        ruleset_digest=ruleset_digest,
        tokens=tuple(sorted(patients)),
        design=(size, reserves),
    )
    drawn = [
        _case(number, token, patients[token], frame.patients[patients[token]], nonce)
        for number, token in enumerate(rank(nonce, patients)[: size + reserves], start=1)
    ]
    return Draw(
        commitment=commitment,
        nonce=nonce.hex(),
        size=size,
        cases=tuple(drawn[:size]),
        reserves=tuple(drawn[size:]),
    )


def _case(number: int, token: str, patient: str, sessions: tuple[Session, ...], nonce: bytes) -> Case:
    index = min(sessions, key=lambda session: (rank_key(nonce, token, session.date), session))
    return Case(
        number=number,
        token=token,
        pseudonym=case_pseudonym(nonce, token),
        patient=patient,
        date=index.date,
        category=index.category,
        procedures=index.procedures,
        source=index.source,
    )
