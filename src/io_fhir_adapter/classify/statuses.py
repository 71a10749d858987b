"""What a status is worth: which Procedures count as completed, and which of a session are decided on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from io_fhir_adapter.classify.findings import Reading, is_usable, stands_alone
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.fhir.dates import last_of
from io_fhir_adapter.model import ProcedureFact

__all__ = ["as_completed", "deciding", "has_ended"]

_Pairs = Sequence[tuple[ProcedureFact, Reading]]


def has_ended(fact: ProcedureFact, today: str) -> bool:
    """Whether a Procedure is ``in-progress`` although its end certainly lies before today."""
    return fact.status == "in-progress" and bool(fact.end_day) and last_of(fact.end_day) < today


def as_completed(
    facts: Sequence[ProcedureFact], ruleset: Ruleset, today: str = ""
) -> tuple[Sequence[ProcedureFact], frozenset[tuple[str, str]]]:
    """The facts with the status that the programme gives them, and which of them it changed, as (source, id).

    Args:
        facts: Of one patient, each resource once.
        ruleset: Whose programme says what an end in the past means.
        today: Local date; where empty, that of the clock in UTC.
    """
    if not ruleset.programme.takes_ended_for_completed:
        return facts, frozenset()
    today = today or datetime.now(UTC).date().isoformat()
    ended = frozenset((fact.source, fact.id) for fact in facts if has_ended(fact, today))
    if not ended:
        return facts, ended
    return [
        msgspec.structs.replace(fact, status="completed") if (fact.source, fact.id) in ended else fact for fact in facts
    ], ended


def deciding(pairs: _Pairs, ruleset: Ruleset) -> tuple[_Pairs, bool]:
    """What decides on a session: the completed Procedures, unless what was not completed is of more interest.

    So a look-alike, or an add-on, that was done beside a treatment that was not done does not hide it.

    Returns:
        The Procedures, and whether they were completed.
    """
    done = [pair for pair in pairs if pair[0].status == "completed"]
    if len(done) == len(pairs):
        return done, True
    others = [pair for pair in pairs if pair[0].status != "completed" and _interest(pair[1], ruleset)]
    if _most(others, ruleset) > _most(done, ruleset):
        return others, False
    return (done, True) if done else (pairs, False)


def _most(pairs: _Pairs, ruleset: Ruleset) -> int:
    return max((_interest(reading, ruleset) for _, reading in pairs), default=0)


def _interest(reading: Reading, ruleset: Ruleset) -> int:
    """3 for a treatment, 2 for one through another route and for a revision, 1 for an add-on, 0 for a look-alike."""
    found = 0
    for finding in reading.findings:
        if finding.technique == "none":
            continue
        if not is_usable(finding):
            found = max(found, 2)
        else:
            found = max(found, 3 if finding.role == "planning" or stands_alone(finding, ruleset) else 1)
    return found
