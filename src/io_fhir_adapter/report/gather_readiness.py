"""What readiness rests on, gathered from the ledger and the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from sqlalchemy import Connection

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.config import StandingConfig
from io_fhir_adapter.ledger.approvals import approval_of
from io_fhir_adapter.ledger.assessments import Assessment, assessment_of
from io_fhir_adapter.ledger.draws import cases_of, find_draw, forms_of
from io_fhir_adapter.ledger.reviews import reviews_of
from io_fhir_adapter.ledger.runs import last_complete
from io_fhir_adapter.ledger.verdicts import STATES, latest_verdict
from io_fhir_adapter.report.readiness_facts import CaseWork, Facts, GroupCount, Standing, Year
from io_fhir_adapter.report.standards import checklist, tally
from io_fhir_adapter.report.wording import day_words
from io_fhir_adapter.volume.count import Volume

__all__ = ["gather_readiness", "group_counts"]


def group_counts(programme: Programme, done: Mapping[str, int], doubtful: Mapping[str, int]) -> tuple[GroupCount, ...]:
    """Sessions by the body's groups, in its order; what belongs to none is left out.

    Args:
        programme: Has the groups.
        done: Category to sessions that nothing speaks against.
        doubtful: Category to sessions for review.
    """
    return tuple(
        GroupCount(
            group.id,
            group.title,
            sum(done.get(category, 0) for category in group.categories),
            sum(doubtful.get(category, 0) for category in group.categories),
        )
        for group in programme.groups
    )


def gather_readiness(
    connection: Connection,
    programme: Programme,
    standing: StandingConfig | None,
    *,
    as_of: date,
    due: str,
    running: tuple[Volume, tuple[GroupCount, ...]],
    last: tuple[Volume, tuple[GroupCount, ...]],
    submission: str = "",
) -> Facts:
    """Everything that readiness rests on.

    Args:
        connection: Reads the ledger.
        programme: The programme.
        standing: What the configuration says of it.
        as_of: The local date.
        due: Label of the year that a submission reports.
        running: Volume and groups of the year under way.
        last: The same of the year before.
        submission: Identifier of the sealed submission of ``due``, empty where there is none.
    """
    assessment = assessment_of(connection, programme.id)
    lines = checklist(programme, _response(assessment)) if programme.standards is not None else None
    seen = running[0].seen
    return Facts(
        as_of=as_of,
        running=Year.of(running[0], as_of, running[1]),
        last=Year.of(last[0], as_of, last[1]),
        core=tally(lines, "core") if lines is not None else None,
        extended=tally(lines, "extended") if lines is not None else None,
        answered_at=assessment.at if assessment is not None else "",
        cases=_cases(connection, programme, due, submission),
        standing=_standing(standing),
        empty=not seen.procedures + seen.outside + seen.undated,
        read_at=last_complete(connection),
    )


def _standing(told: StandingConfig | None) -> Standing:
    return Standing(told.approved, told.enrolled, told.accredited) if told is not None else Standing()


def _response(assessment: Assessment | None) -> Mapping[str, object] | None:
    return assessment.response if assessment is not None else None


def _cases(connection: Connection, programme: Programme, due: str, submission: str) -> CaseWork | None:
    draw = find_draw(connection, programme.id, due)
    if draw is None:
        return None
    numbers = {case.number for case in cases_of(connection, draw.id)}
    reviews = reviews_of(connection, draw.id)
    signed = [number for number in numbers if number in reviews and reviews[number].state == "signed"]
    filled = {number for number, form in forms_of(connection, draw.id).items() if form.response is not None}
    said = approval_of(connection, submission) if submission else None
    body = latest_verdict(connection, submission) if submission else None
    return CaseWork(
        period=due,
        frame=draw.frame_size,
        drawn=len(numbers),
        prefilled=len(numbers & filled),
        signed=len(signed),
        approved=f"{said.verdict} on {day_words(said.at[:10])} by a person in the role {said.role}" if said else "",
        verdict=f"{STATES[body.state]} ({day_words(body.at[:10])})" if body is not None else "",
    )
