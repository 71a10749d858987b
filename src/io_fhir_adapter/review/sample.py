"""Drawing the sample of a period in the ledger: commitment first, nonce after it, cases last.

Each of the three steps is its own transaction and is done once, so that a run that dies in between goes on where it
stopped and nobody can draw until the result pleases.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.errors import ConfigError, ReviewError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import (
    StoredCase,
    StoredDraw,
    cases_of,
    commit_frame,
    find_draw,
    put_cases,
    put_nonce,
)
from io_fhir_adapter.ledger.facts import decisions_between
from io_fhir_adapter.review.draw import Case, Draw, build_frame, draw_cases, review_window
from io_fhir_adapter.trust.canonical import canonical_json

__all__ = ["Sample", "draw_sample", "pseudonym_key"]

_KEY_BYTES = 32
_OWNER_ONLY = 0o600
_NO_NONCE = bytes(_KEY_BYTES)


@dataclass(frozen=True, slots=True)
class Sample:
    """The drawn sample of a period; ``fresh`` says whether it was drawn just now."""

    draw: StoredDraw
    cases: tuple[StoredCase, ...]
    fresh: bool


def pseudonym_key(path: Path) -> bytes:
    """The facility's secret key; made at first use, readable by its owner alone, never leaving the facility.

    Raises:
        ConfigError: It cannot be read or made, or is too short.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_hex(_KEY_BYTES).encode())
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as exc:
        raise ConfigError(
            "the pseudonym key cannot be read",
            where=str(path),
            do="check review.key_file and its permissions",
            number=7,
        ) from exc
    if len(key) < _KEY_BYTES:
        raise ConfigError("the pseudonym key is too short", where=str(path), do="restore the original key", number=7)
    return key


def draw_sample(
    ledger: Ledger,
    programme: Programme,
    *,
    facility_code: str,
    period: str,
    as_of: date,
    key: bytes,
    ruleset_digest: str,
    now: datetime,
) -> Sample:
    """The sample of a period: the stored one where it is drawn, else a new one.

    Args:
        ledger: Holds decisions and draws.
        programme: Gives size, reserves and window.
        facility_code: The facility's code from registration.
        period: Label of the reporting period that the sample belongs to.
        as_of: The local date of the draw; the window ends the programme's number of days before it.
        key: The facility's secret key.
        ruleset_digest: What decided who counts.
        now: The time written down.

    Raises:
        ReviewError: Nobody could be drawn.
    """
    with ledger.begin() as connection:
        stored = find_draw(connection, programme.id, period)
        if stored is not None and stored.nonce:
            drawn = tuple(cases_of(connection, stored.id))
            if drawn:
                return Sample(stored, drawn, fresh=False)
        rule = programme.sample
        window = (
            (stored.window_start, stored.window_end)
            if stored is not None and stored.nonce
            else review_window(as_of, rule.window_months, rule.ends_days_before)
        )
        frame = build_frame(decisions_between(connection, *window), *window)
    if not frame.size:
        raise ReviewError(
            "no patient has a counted session in the review window",
            where=f"{window[0]} to {window[1]}",
            do="nothing can be drawn; check the count of that time",
            number=5,
        )

    def draw(nonce: bytes) -> Draw:
        return draw_cases(
            frame, key=key, facility_code=facility_code, programme=programme.id, ruleset_digest=ruleset_digest,
            nonce=nonce, size=rule.size, reserves=rule.reserves,
        )  # fmt: skip

    if stored is None or not stored.nonce:
        commitment = draw(_NO_NONCE).commitment  # the commitment does not depend on the nonce
        with ledger.begin() as connection:
            stored = commit_frame(
                connection, programme.id, period, window, canonical_json(commitment.to_json()), commitment.digest,
                frame.size, now,
            )  # fmt: skip
        with ledger.begin() as connection:
            put_nonce(connection, stored.id, secrets.token_hex(_KEY_BYTES), "local")
            stored = find_draw(connection, programme.id, period) or stored
    outcome = draw(bytes.fromhex(stored.nonce))
    if outcome.commitment.digest != stored.digest:
        raise ReviewError(
            "the decisions changed between the commitment and the draw",
            where=f"draw of {period}",
            do="the committed frame stands; find out what changed before drawing again",
            number=6,
        )
    with ledger.begin() as connection:
        put_cases(connection, stored.id, [*_stored(outcome.cases, "case"), *_stored(outcome.reserves, "reserve")])
        return Sample(stored, tuple(cases_of(connection, stored.id)), fresh=True)


def _stored(drawn: tuple[Case, ...], role: str) -> list[StoredCase]:
    return [
        StoredCase(case.number, role, case.token, case.patient, case.date, case.category, case.procedures)
        for case in drawn
    ]
