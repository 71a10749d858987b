"""What one night did, stage by stage, and why it does not count as done where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from io_fhir_adapter.classify.redecide import Redecided
from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.errors import AdapterError, PullError, SubmitError
from io_fhir_adapter.handover.work import Signed
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.report.nightly import ReportData
from io_fhir_adapter.review.guard import Guarded
from io_fhir_adapter.review.sample import Sample
from io_fhir_adapter.submit.deliver import Delivered, Prepared
from io_fhir_adapter.submit.verdicts import Polled
from io_fhir_adapter.volume.count import Volume

__all__ = ["Night", "not_sent", "pull_problem", "refused", "why"]


@dataclass(slots=True)
class Night:
    """What one run did; a stage that was not reached is None. ``problem`` is why it does not count as done."""

    run: int
    as_of: date
    sources: list[SourceOutcome] = field(default_factory=list)
    redecided: Redecided | None = None
    volume: Volume | None = None
    previous: Volume | None = None
    sample: Sample | None = None
    submission: Prepared | None = None
    delivered: list[Delivered] = field(default_factory=list)
    polled: Polled = field(default_factory=Polled)  # what the accreditation body said since it was last asked
    report: ReportData | None = None
    problem: AdapterError | None = None
    guarded: Guarded | None = None
    signed: Signed | None = None  # how far the reviewers are, where people sign in

    @property
    def complete(self) -> bool:
        """Whether every source was read completely."""
        return all(source.complete for source in self.sources)


def why(exc: BaseException) -> str:
    """Why a run ended early; what an unforeseen error says may hold anything, so that only its type is kept."""
    if isinstance(exc, asyncio.CancelledError):
        return "the run was stopped before it ended"
    return exc.sentence if isinstance(exc, AdapterError) else type(exc).__name__


def pull_problem(sources: Iterable[SourceOutcome]) -> PullError | None:
    """Why a pull is not complete, None where it is."""
    failed = next((source for source in sources if source.error), None)
    if failed is None:
        return None
    what = "the pull is not complete and nothing was submitted"
    return PullError(what, where=f"source {failed.name}", do=failed.error, number=1)


def refused(night: Night, endpoint: SubmissionConfig | None) -> SubmitError | None:
    """What the accreditation system refused, None where it did not."""
    made = night.submission
    if made is None or endpoint is None or made.state not in {"rejected", "parked"}:
        return None
    do = f"{made.cause}; correct what it names, then use the submit command with --retry"
    return SubmitError(f"the submission is {made.state}", where=endpoint.base_url, do=do, number=6)


def not_sent(night: Night) -> SubmitError | None:
    """What a submission waits for, None where it was accepted."""
    made, signed = night.submission, night.signed
    if signed is not None and not signed.complete:
        return SubmitError(
            f"the submission waits for the reviewers: {signed.signed} of {signed.of} cases are signed",
            do="complete and sign the others in the browser (serve), then let somebody else approve the submission",
            number=10,
            transient=True,
        )
    if signed is not None and made is not None and made.state in {"held", "returned", "superseded"}:
        return SubmitError(
            f"the submission waits for approval: all {signed.of} cases are signed",
            do="let somebody who signed none of them look at it in the browser (serve) and approve it",
            number=11,
            transient=True,
        )
    if made is None or made.state in {"accepted", "sent"}:
        return None
    if made.state == "held":
        return SubmitError(
            "the submission waits for an approver: no case leaves without one",
            do="look at submission.json, then say who approved it with submit --approved-by NAME, or configure sign_in",
            number=12,
            transient=True,
        )
    return SubmitError(
        "the submission could not be delivered and stays queued",
        do=f"{made.cause}; it is sent again in the next night, or by the submit command",
        number=7,
        transient=True,
    )
