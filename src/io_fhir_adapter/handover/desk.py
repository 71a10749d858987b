"""The approver's desk: what the pages do with the submission of the year that is due.

Everything that makes or sends a submission keeps other jobs on the ledger from running meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from io_fhir_adapter.casework import Casework
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.handover.proposal import Proposal
from io_fhir_adapter.handover.work import Handover, Signed
from io_fhir_adapter.handover.year import Year
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.lease import only_job
from io_fhir_adapter.review.sample import Sample, leave_sample
from io_fhir_adapter.submit.deliver import Delivered, Prepared

__all__ = ["Desk"]

Progress = Callable[[str, int, int | None], None]


class Desk:
    """What reviewers and approvers do with one facility's cases.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        ruleset: What decides.
        as_of: The local date; today in the facility's time zone where omitted.
        progress: Told what is being done.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        ruleset: Ruleset,
        *,
        as_of: date | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.as_of = as_of or datetime.now(zone(config.facility.time_zone)).date()
        self.casework = Casework(config, ledger, ruleset, progress or (lambda what, done, total: None))  # noqa: ARG005
        self.handover = Handover(config, ledger, self.casework)
        self.year = Year(config, ledger, ruleset, self.as_of)
        self._ledger = ledger

    def sample(self) -> Sample:
        """The sample of the year that is due.

        Raises:
            ReviewError: Nobody is drawn yet.
        """
        found = self.casework.sample(self.year.period.label)
        if found is None:
            raise ReviewError("nobody is drawn yet", do="the night draws, or the draw command", number=39)
        return found

    def signed(self) -> Signed:
        """How many of the cases are signed.

        Raises:
            ReviewError: Nobody is drawn yet.
        """
        return self.handover.progress(self.sample())

    async def propose(self) -> Prepared | None:
        """Makes the submission, for instance once the last case is signed; reads the clinical records of the cases.

        Returns:
            The submission; None where cases are not signed yet.

        Raises:
            LedgerError: Another job is under way.
            AdapterError: A source could not be read, or what was about to leave holds an identifier.
        """
        with only_job(self._ledger):
            return await self._prepare()

    async def proposal(self) -> Proposal | None:
        """What an approver looks at; None where nothing was sealed yet.

        Raises:
            ReviewError: Nobody is drawn yet.
        """
        volume, previous = self.year.count(self.year.period), self.year.count(self.year.before)
        return await self.handover.proposal(self.sample(), volume, previous, self.year.report(volume))

    async def approve(
        self,
        identifier: str,
        digest: str,
        *,
        by: str,
        role: str = "approver",
        name: str = "",
        witness: Callable[[Connection], object] | None = None,
    ) -> list[Delivered]:
        """Lets a submission leave; see :meth:`.work.Handover.approve`."""
        with only_job(self._ledger):
            report = self.year.report(self.year.count(self.year.period))
            return await self.handover.approve(
                self.sample(), report, identifier, digest, by=by, role=role, name=name, witness=witness
            )

    def send_back(
        self, identifier: str, *, by: str, comment: str, numbers: Collection[int] = (), role: str = "approver"
    ) -> list[int]:
        """Returns a submission and opens its cases again; see :meth:`.work.Handover.send_back`."""
        with only_job(self._ledger):
            return self.handover.send_back(
                self.sample(), identifier, by=by, role=role, comment=comment, numbers=numbers
            )

    async def deliver(self) -> list[Delivered]:
        """Sends what was approved; what changed since is made anew instead, and waits for approval again.

        Raises:
            LedgerError: Another job is under way.
            AdapterError: As :meth:`propose`.
        """
        with only_job(self._ledger):
            await self._prepare()
            return await self.handover.deliver()

    async def approve_text(self, number: int, digest: str, *, by: str) -> None:
        """Lets one free text leave; :meth:`propose` then makes the submission anew."""
        self.handover.approve_text(self.sample(), number, digest, await self.casework.form(), by=by)

    def clear(self, number: int, *, reason: str, by: str) -> None:
        """Says that a case may leave although too few others look like it."""
        self.handover.clear(self.sample(), number, reason=reason, by=by)

    def leave(self, number: int, *, reason: str) -> None:
        """Takes a case out of the sample; the next reserve takes its place and has to be reviewed.

        Raises:
            ReviewError: The reason is none of the list, or there is no such case.
            LedgerError: Another job is under way.
        """
        with only_job(self._ledger):
            leave_sample(self._ledger, self.sample(), number, reason, datetime.now(UTC))

    async def _prepare(self) -> Prepared | None:
        volume = self.year.count(self.year.period)
        return await self.handover.prepare(self.sample(), volume, self.year.report(volume), self.as_of)
