"""From drawn cases to what leaves: sealing, the approver's look, and sending nothing that was not approved.

Where nobody signs in, a submission is sealed from the pre-filled forms and may leave. Where people sign in, it is
sealed once every case is signed, is held until an approver who signed none of its cases lets these very bytes leave,
and is taken out of the queue as soon as anything that it rests on is another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection

from io_fhir_adapter.casework import Casework
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import ReviewError, UsageError
from io_fhir_adapter.handover.proposal import Proposal, free_texts, gather_proposal, rare_cases
from io_fhir_adapter.handover.sealing import approved_form, seal_correcting, sign_anew, standards_digest, standards_of
from io_fhir_adapter.ledger.approvals import approve, approve_text, clear, return_submission
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import cases_of
from io_fhir_adapter.ledger.outbox import accepted_of, enqueue, item, supersede_open
from io_fhir_adapter.ledger.reviews import reviews_of
from io_fhir_adapter.review.guard import Guarded
from io_fhir_adapter.review.leaks import refuse_leaks
from io_fhir_adapter.review.sample import Sample
from io_fhir_adapter.submit.deliver import Delivered, Prepared, as_it_stands, deliver_due, needs_approval
from io_fhir_adapter.submit.resting import Noted, as_noted, note_sealed, noted, rests
from io_fhir_adapter.submit.signing import Finish, signing_key
from io_fhir_adapter.trust.canonical import canonical_json, digest, digest_bytes
from io_fhir_adapter.volume.count import Volume

__all__ = ["Handover", "Signed"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Signed:
    """How many cases of a sample are signed."""

    signed: int
    of: int

    @property
    def complete(self) -> bool:
        """Whether all of them are."""
        return self.signed == self.of


class Handover:
    """What is done with the drawn cases of one facility once they are filled.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        casework: Reads, fills and de-identifies the cases.
    """

    def __init__(self, config: Config, ledger: Ledger, casework: Casework) -> None:
        self.config = config
        self.ledger = ledger
        self.casework = casework
        self.gated = needs_approval(config)
        self.approver = "" if self.gated or config.submission is None else config.submission.approver
        self.guarded: Guarded | None = None
        self.signed = Signed(0, 0)

    def name_approver(self, name: str) -> None:
        """Says who approves what is made from now on, where nobody signs in; an empty name changes nothing.

        Raises:
            UsageError: People sign in, so that an approver looks at it in the browser.
        """
        if name and self.gated:
            raise UsageError(
                "where people sign in, an approver approves in the browser", where="--approved-by",
                do="leave it out, and let an approver look at the submission (serve)", number=75,
            )  # fmt: skip
        self.approver = name or self.approver

    async def prepare(
        self, sample: Sample, volume: Volume, report: Json, as_of: date, *, anew: bool = False
    ) -> Prepared | None:
        """Seals the submission of a year and puts it into the outbox, once for the same content.

        The clinical records of the cases are read where anything else that it rests on has changed, and once a week.
        ``guarded`` and ``signed`` then say what was held back and how many cases are signed.

        Args:
            sample: The drawn sample.
            volume: The counted year.
            report: Its MeasureReport.
            as_of: The local date of the job.
            anew: Read the records in any case.

        Returns:
            The submission; None where cases are not signed yet: then the forms were filled and nothing was sealed.
        """
        casework, period = self.casework, volume.period.label
        questionnaire = await casework.form()
        needs = casework.needs(sample)
        if self.gated:
            casework.reopen_outdated(sample, questionnaire)
        basis = self._basis(sample, report, questionnaire)
        rested = None if anew else rests(self.ledger, period, basis, as_of)
        stored = self._stored(rested) if rested is not None else None
        self.signed = self.progress(sample)
        if stored is not None or (rested is not None and self.gated and not rested.identifier):
            return self._under_the_name(stored) if stored is not None else None
        prepared, scanner = await casework.review(sample, questionnaire, needs)
        # Reviewers go on while records are read. What they do after this line makes another basis, so that the
        # submission does not stand and is made again.
        basis = self._basis(sample, report, questionnaire)
        cases, number = casework.completed(sample, prepared, questionnaire) if self.gated else (prepared, 0)
        self.signed = Signed(number, len(cases))
        self.guarded = guarded = casework.guard(sample, cases, questionnaire, scanner)
        share = sum(case.share for case in guarded.cases) / max(1, len(guarded.cases))
        known_share = sum(case.known_share for case in guarded.cases) / max(1, len(guarded.cases))
        kept = _kept(guarded)
        if self.gated and not self.signed.complete:
            filled = Prepared("", False, b"", share, known_share, "", "")
            with self.ledger.begin() as connection:
                supersede_open(connection, period)
                note_sealed(connection, period, basis, as_of, filled, kept)
            return None
        content = casework.content(sample, volume.period, report, guarded.cases, questionnaire)
        now, key = datetime.now(UTC), signing_key(self.config.submission)
        with self.ledger.read() as connection:
            standards = standards_of(connection, casework.ruleset.programme)
            bundle = seal_correcting(connection, replace(content, standards=standards), period, now)
        body = canonical_json(bundle)
        refuse_leaks(body, scanner)
        made = Prepared(str(bundle["identifier"]["value"]), False, body, share, known_share, "queued", "")
        with self.ledger.begin() as connection:
            fresh = enqueue(connection, made.identifier, period, body, now, held=True)
            sign_anew(connection, made.identifier, body, key)
            if self.gated:
                supersede_open(connection, period, made.identifier)
            note_sealed(connection, period, basis, as_of, made, kept)
        return self._under_the_name(replace(made, fresh=fresh))

    def _under_the_name(self, made: Prepared) -> Prepared:
        """The submission as it stands: approved, where nobody signs in, under the name of who answers for it."""
        with self.ledger.begin() as connection:
            waiting = item(connection, made.identifier)
            if self.approver and waiting is not None and waiting.state == "held":
                now = datetime.now(UTC)
                approve(
                    connection, None, made.identifier, digest_bytes(waiting.body), by=self.approver, role="approver",
                    at=now, finish=approved_form(self.config, self.approver, self.approver, now),
                )  # fmt: skip
                note(
                    connection, at=now, agent=self.approver, role="approver", action="E",
                    entity=f"Submission/{made.identifier}", detail="approved under this name, where nobody signs in",
                )  # fmt: skip
        return as_it_stands(self.ledger, made)

    def volume_alone(self, volume: Volume, report: Json) -> None:
        """Puts the numbers of a year into the outbox by themselves; once for the same numbers.

        Where the year's cases were accepted their submission says the numbers, so that nothing is added to it.

        Args:
            volume: The counted year.
            report: Its MeasureReport.
        """
        period, now = volume.period.label, datetime.now(UTC)
        content = self.casework.volume_content(volume.period, report)
        with self.ledger.begin() as connection:
            if accepted_of(connection, period):
                return
            bundle = seal_correcting(connection, content, label := f"{period} volume", now)
            body = Finish(signing_key(self.config.submission), now)(canonical_json(bundle))
            identifier = str(bundle["identifier"]["value"])
            if enqueue(connection, identifier, label, body, now):
                supersede_open(connection, label, identifier)

    async def deliver(self) -> list[Delivered]:
        """Sends what is due, if an approver let these very bytes leave; of a volume alone whatever is due."""
        submission = self.config.submission
        if submission is None:
            return []
        return await deliver_due(self.ledger, submission, hold="all" if self.gated else "cases")

    def withdraw(self, period: str) -> None:
        """Takes everything of a period that did not leave yet out of the queue."""
        with self.ledger.begin() as connection:
            supersede_open(connection, period)

    async def stands(self, sample: Sample, report: Json) -> bool:
        """Whether the submission that was sealed last rests on what the ledger holds now."""
        questionnaire = await self.casework.form()
        self.casework.needs(sample)
        basis = self._basis(sample, report, questionnaire)
        with self.ledger.read() as connection:
            known = noted(connection, sample.draw.period)
        return known is not None and bool(known.identifier) and known.basis == basis

    async def proposal(self, sample: Sample, volume: Volume, previous: Volume | None, report: Json) -> Proposal | None:
        """What an approver looks at; None where nothing was sealed yet.

        Args:
            sample: The drawn sample.
            volume: The counted year.
            previous: The year before it.
            report: The MeasureReport of the counted year.
        """
        stands = await self.stands(sample, report)
        questionnaire = await self.casework.form()
        with self.ledger.read() as connection:
            return gather_proposal(
                connection, sample, questionnaire, volume=volume, previous=previous, ruleset=self.casework.ruleset,
                stands=stands,
            )  # fmt: skip

    async def approve(
        self,
        sample: Sample,
        report: Json,
        identifier: str,
        digest: str,
        *,
        by: str,
        role: str,
        name: str = "",
        witness: Callable[[Connection], object] | None = None,
    ) -> list[Delivered]:
        """Lets a submission leave: it says who approved, and is signed; sent at once where that is ``automatic``.

        Args:
            sample: The drawn sample.
            report: The MeasureReport of the counted year.
            identifier: The submission.
            digest: Of the body that the approver saw.
            by: Account of the approver.
            role: The role in which they approve.
            name: Their name, which leaves only where the configuration says so.
            witness: Told in the same transaction: what it writes stands or falls with the approval.

        Raises:
            ReviewError: What it rests on changed since, or a case is too rare to leave.
            LedgerError: It does not wait for approval, its body is another, or the approver signed one of its cases.
        """
        if not await self.stands(sample, report):
            raise ReviewError(
                "what the submission rests on changed since it was made", do="it is made anew; look at it again",
                number=35,
            )  # fmt: skip
        now = datetime.now(UTC)
        finish = approved_form(self.config, by, name, now)
        with self.ledger.begin() as connection:
            known = noted(connection, sample.draw.period)
            if known is None or known.identifier != identifier:
                raise ReviewError("another submission was made since", do="look at that one", number=35)
            rare = [case.number for case in rare_cases(connection, sample, known) if not case.cleared]
            if rare:
                raise ReviewError(
                    f"too few patients look like case {', '.join(map(str, rare))}",
                    do="say for each why it may leave, or take it out of the sample", number=36,
                )  # fmt: skip
            approve(connection, sample.draw.id, identifier, digest, by=by, role=role, at=now, finish=finish)
            if witness is not None:
                witness(connection)
        submission = self.config.submission
        return await self.deliver() if submission is not None and submission.automatic is True else []

    def send_back(
        self, sample: Sample, identifier: str, *, by: str, role: str, comment: str, numbers: Collection[int] = ()
    ) -> list[int]:
        """Returns a submission with a comment and opens its cases again; gives their numbers.

        Args:
            sample: The drawn sample.
            identifier: The submission.
            by: Account of the approver.
            role: The role in which they return it.
            comment: What the reviewers are to look at.
            numbers: The cases to be looked at again; all of them where empty.

        Raises:
            LedgerError: It left already, or a named case is not signed.
        """
        with self.ledger.begin() as connection:
            return return_submission(
                connection, sample.draw.id, identifier, by=by, role=role, at=datetime.now(UTC), comment=comment,
                numbers=numbers,
            )  # fmt: skip

    def approve_text(self, sample: Sample, number: int, digest: str, questionnaire: Json, *, by: str) -> None:
        """Lets one free text leave; the submission is then another one and is made anew.

        Raises:
            ReviewError: No signed form holds that text, the scan found an identifier in it, or no text leaves at all.
        """
        with self.ledger.begin() as connection:
            known = noted(connection, sample.draw.period)
            held = free_texts(connection, sample, questionnaire, known) if known is not None else ()
            if not any((text.number, text.digest, text.verdict) == (number, digest, "held") for text in held):
                raise ReviewError(
                    "there is no such text that waits for approval", where=f"case {number}",
                    do="look at the submission again", number=37,
                )  # fmt: skip
            approve_text(connection, sample.draw.id, number, digest, by=by, at=datetime.now(UTC))

    def clear(self, sample: Sample, number: int, *, reason: str, by: str) -> None:
        """Says that a case may leave although too few others look like it.

        Raises:
            ReviewError: That case is not one of them.
            LedgerError: The reason is none of :data:`~io_fhir_adapter.ledger.approvals.CLEARING`.
        """
        with self.ledger.begin() as connection:
            known = noted(connection, sample.draw.period)
            rare = {case.number: case for case in (rare_cases(connection, sample, known) if known is not None else ())}
            if number not in rare:
                raise ReviewError("the case is not too rare to leave", where=f"case {number}", number=38)
            clear(connection, sample.draw.id, number, rare[number].alike, reason=reason, by=by, at=datetime.now(UTC))

    def progress(self, sample: Sample) -> Signed:
        """How many cases of a sample are signed."""
        with self.ledger.read() as connection:
            standing = {case.number for case in cases_of(connection, sample.draw.id)}
            said = reviews_of(connection, sample.draw.id)
        return Signed(sum(said[one].state == "signed" for one in standing & said.keys()), len(standing))

    def _basis(self, sample: Sample, report: Json, questionnaire: Json) -> str:
        """A digest of all that a submission rests on."""
        basis = self.casework.basis(sample, report, questionnaire)
        with self.ledger.read() as connection:
            standards = standards_digest(connection, self.casework.ruleset.programme)
        key = signing_key(self.config.submission)
        return digest([basis, standards, key.kid if key is not None else ""]) if standards or key is not None else basis

    def _stored(self, rested: Noted) -> Prepared | None:
        """The submission as it stands, None where there is none that could leave as things are."""
        found = as_noted(self.ledger, rested)
        return found if found is not None and found.state not in {"superseded", "returned"} else None


def _kept(guarded: Guarded) -> Mapping[str, Any]:
    """What is remembered of the guard for the approver; names nobody."""
    texts = [
        {"case": case.number, "held": dict(form.held), "leaking": list(form.leaking)}
        for case, form in zip(guarded.cases, guarded.forms, strict=True)
    ]
    return {"risks": [{**risk.to_json(), "holds": risk.holds} for risk in guarded.risks], "texts": texts}
