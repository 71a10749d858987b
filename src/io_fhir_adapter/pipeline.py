"""The nightly job: composes the stages and does nothing else.

Every stage is done once and remembered in the ledger, so that a run may be killed anywhere and started again with
the same result. Only a complete pull goes on to drawing and submitting.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from io_fhir_adapter.casework import Casework
from io_fhir_adapter.classify.redecide import Redecided, redecide
from io_fhir_adapter.classify.ruleset import Ruleset, rules_for
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import AdapterError, PullError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.handover.work import Handover
from io_fhir_adapter.handover.year import Year
from io_fhir_adapter.ledger.audited import note_changes, note_sent
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import StoredCase, cases_of
from io_fhir_adapter.ledger.lease import only_job
from io_fhir_adapter.ledger.outbox import latest_receipt
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.logs import log, within_run
from io_fhir_adapter.night import Night, not_sent, pull_problem, refused, why
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.sources import pull_sources
from io_fhir_adapter.report.gather import gather_report
from io_fhir_adapter.report.nightly import ReportData
from io_fhir_adapter.report.nightly_pdf import report_files
from io_fhir_adapter.report.output import write_files
from io_fhir_adapter.review.keys import pseudonym_key
from io_fhir_adapter.review.sample import Design, Sample, commit_sample, draw_sample, not_drawn
from io_fhir_adapter.submit.announce import ask_nonce
from io_fhir_adapter.submit.deliver import Delivered, Prepared, as_it_stands, collect_receipts, make_due
from io_fhir_adapter.submit.verdicts import Polled, poll_verdicts
from io_fhir_adapter.trust.canonical import canonical_json, digest_bytes
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.period import Period

__all__ = ["Nightly", "rules_for"]

Progress = Callable[[str, int, int | None], None]
Json = dict[str, Any]


class Nightly:
    """The job of one facility. Each method is one stage; :meth:`run` is all of them in order.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        ruleset: What decides.
        as_of: The local date that the job runs for; today in the facility's time zone where omitted.
        progress: Told what is being done.
        synthetic: Whether the data are synthetic, said in the report.
        pull_for: For how many seconds sources may be read; for as long as it takes where omitted.
        occasion: What the run is for, kept with it, so that whoever takes up the same sees that it is done.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        ruleset: Ruleset,
        *,
        as_of: date | None = None,
        progress: Progress | None = None,
        synthetic: bool = False,
        pull_for: float | None = None,
        occasion: str = "",
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.ruleset = ruleset
        self.zone = zone(config.facility.time_zone)
        self.as_of = as_of or datetime.now(self.zone).date()
        self.synthetic = synthetic
        self._pull_for = pull_for
        self._occasion = occasion
        self._progress: Progress = progress or (lambda what, done, total: None)  # noqa: ARG005
        self.casework = Casework(config, ledger, ruleset, self._progress)
        self.handover = Handover(config, ledger, self.casework)
        self.year = Year(config, ledger, ruleset, self.as_of)

    @property
    def period(self) -> Period:
        """The year that a submission reports."""
        return self.year.period

    async def run(self, *, dry_run: bool = False, folder: Path | None = None) -> Night:
        """The whole job.

        Args:
            dry_run: Pull, decide and count, and neither draw nor submit.
            folder: Where its output is to lie before the run counts as ended; see :meth:`write_output`.

        Returns:
            What was done. A pull that is not complete (what was read is kept, nothing was submitted) and a rejected
            submission are its ``problem``; the report can be written all the same.

        Raises:
            LedgerError: Another job is under way, or the ledger cannot be used.
            AdapterError: A stage could not be done, or the output not be written.
        """
        with self.alone():
            with self.ledger.begin() as connection:
                run = start_run(connection, datetime.now(UTC))
                note_changes(connection, self._digests(), datetime.now(UTC))
            night = Night(run, self.as_of)
            try:
                with within_run(run):
                    await self._stages(night, dry_run=dry_run)
                    unwritten = await self._unwritten(night, folder) if folder is not None else None
            except BaseException as exc:
                self._finish(night, "failed", why(exc))
                raise
            night.problem = pull_problem(night.sources) or refused(night, self.config.submission)
            if night.problem is not None:
                self._finish(night, "failed", night.problem.sentence)
            else:
                self._finish(night, "complete", "")
            if unwritten is not None:
                raise unwritten
            return night

    async def _unwritten(self, night: Night, folder: Path) -> AdapterError | None:
        """Writes the output, and gives why that failed; what there is no room for is in the ledger all the same."""
        try:
            files = await asyncio.to_thread(self.write_output, night, folder)
        except AdapterError as exc:
            return exc
        log.info("written", files=len(files))
        return None

    def alone(self) -> AbstractContextManager[None]:
        """Keeps every other job on this ledger from starting, in any process.

        Raises:
            LedgerError: On entering, where one is under way.
        """
        return only_job(self.ledger)

    async def _stages(self, night: Night, *, dry_run: bool) -> None:
        night.sources = await self.pull(night.run)
        night.redecided = self.decide(night.run, night.sources)
        night.volume = self.count(self.period)
        night.previous = self.count(self.year.before)
        submission = self.config.submission
        if submission is not None and not dry_run:
            night.delivered = await collect_receipts(self.ledger, submission)
        if night.complete and not dry_run and night.volume.counted:
            night.sample = await self.draw()
            if submission is not None or self.handover.gated:
                if submission is not None and submission.automatic == "volumes":
                    self.handover.volume_alone(night.volume, self.measure_report(night.volume))
                await self._prepare(night, night.sample, night.volume)
                if self.handover.gated or (submission is not None and submission.automatic):
                    night.delivered += await self.deliver()
                if night.submission is not None:
                    night.submission = as_it_stands(self.ledger, night.submission)
        if not dry_run:
            night.polled = await self.ask_verdicts()
        night.report = self.gather(night)

    async def _prepare(self, night: Night, sample: Sample, volume: Volume, *, anew: bool = False) -> None:
        """What is to be submitted, where somebody is drawn; a reserve may have taken a case's place by then."""
        if sample.waits:
            if self.handover.gated:
                self.handover.withdraw(self.period.label)
            return
        night.submission = await self.prepare(sample, volume, anew=anew)
        night.guarded = self.handover.guarded
        night.signed = self.handover.signed if self.handover.gated else None
        night.sample = replace(sample, cases=self._cases(sample))

    def _finish(self, night: Night, state: str, error: str) -> None:
        summary: Json = {
            "as_of": night.as_of.isoformat(),
            "occasion": self._occasion,
            "sources": [source.to_json() for source in night.sources],
        }
        if night.volume is not None:
            summary["counted"] = night.volume.counted
            summary["funnel"] = [step.to_json() for step in night.volume.funnel]
        if night.submission is not None:
            summary["submission"] = night.submission.identifier
        if night.polled.news:
            summary["verdicts"] = [{"submission": said.identifier, "state": said.state} for said in night.polled.news]
        if night.polled.note:
            summary["verdicts_note"] = night.polled.note
        if night.guarded is not None:
            summary["deidentified"] = night.guarded.to_json()
        if night.signed is not None:
            summary["signed"] = {"signed": night.signed.signed, "of": night.signed.of}
        with self.ledger.begin() as connection:
            finish_run(connection, night.run, datetime.now(UTC), state, summary, error)

    async def pull(self, run: int) -> list[SourceOutcome]:
        """Reads what changed in every source.

        Raises:
            PullError: The time for it is over.
        """
        try:
            async with asyncio.timeout(self._pull_for):
                return await pull_sources(self.config, self.ledger, self.ruleset, run, self._progress)
        except TimeoutError as exc:
            raise PullError(
                "the hours of pulling were over before everything was read",
                do="what was read is kept, and it goes on when schedule.window opens; widen that if it happens often",
                number=40, transient=True,
            ) from exc  # fmt: skip

    def decide(self, run: int, sources: Iterable[SourceOutcome]) -> Redecided:
        """Decides on every patient whose facts changed."""
        touched = {patient for source in sources for patient in source.touched}
        return redecide(
            self.ledger,
            self.ruleset,
            touched,
            run,
            lambda done, total: self._progress("deciding", done, total),
            today=self.as_of.isoformat(),
        )

    def count(self, period: Period) -> Volume:
        """Counts a period."""
        return self.year.count(period)

    async def draw(self, *, supersede_because: str = "") -> Sample:
        """Draws the sample of the reported year, or gives the one that was drawn; anew where a reason is given.

        The frame is committed to and announced first. Where the accreditation system is to give the nonce and has not
        done so yet, nobody is drawn, and the sample says so.
        """
        key = pseudonym_key(self.config.review.key_file)
        design = Design(self.ruleset.programme, self.config.facility.code, key, self.ruleset.digest)
        committed = commit_sample(
            self.ledger, design, period=self.period.label, as_of=self.as_of, now=datetime.now(UTC),
            supersede_because=supersede_because,
        )  # fmt: skip
        asked = await ask_nonce(self.ledger, self.config.submission, committed)
        if asked.waits:
            return Sample(asked.draw, (), fresh=False, wanted=self.ruleset.programme.sample.size, waits=asked.waits)
        return draw_sample(self.ledger, design, asked.draw, datetime.now(UTC))

    def _cases(self, sample: Sample) -> tuple[StoredCase, ...]:
        """The cases as they are now: a reserve may have taken the place of one that does not count any more."""
        with self.ledger.read() as connection:
            return tuple(cases_of(connection, sample.draw.id))

    async def prepare(self, sample: Sample, volume: Volume, *, anew: bool = False) -> Prepared | None:
        """Seals the submission of the reported year; see :meth:`.work.Handover.prepare`."""
        return await self.handover.prepare(sample, volume, self.measure_report(volume), self.as_of, anew=anew)

    def measure_report(self, volume: Volume) -> Json:
        """The MeasureReport of a volume, dated by the day that the job runs for."""
        return self.year.report(volume)

    async def submit(self, *, retry: bool = False, approved_by: str = "") -> Night:
        """Seals the submission of the reported year from what the ledger has, and sends everything that waits.

        Args:
            retry: Send again what was parked, and this submission if it was rejected.
            approved_by: Where nobody signs in: who approved what leaves, in place of the configuration's
                ``submission.approver``.

        Raises:
            UsageError: People sign in, and approve in the browser.
            ReviewError: Nobody could be drawn.
        """
        self.handover.name_approver(approved_by)
        night = Night(0, self.as_of)
        night.volume, night.sample = self.count(self.period), await self.draw()
        if night.sample.waits:
            await self._prepare(night, night.sample, night.volume)
            make_due(self.ledger, datetime.now(UTC))
            night.delivered = await self.deliver()
            night.problem = not_drawn(night.sample)
            return night
        await self._prepare(night, night.sample, night.volume, anew=True)
        made = night.submission
        make_due(self.ledger, datetime.now(UTC), ended=made.identifier if retry and made is not None else None)
        night.delivered = await self.deliver()
        night.polled = await self.ask_verdicts(soon=True)
        if made is not None:
            night.submission = as_it_stands(self.ledger, made)
        night.problem = refused(night, self.config.submission) or not_sent(night)
        return night

    async def deliver(self) -> list[Delivered]:
        """Sends what is due; where people sign in, only what was approved."""
        delivered = await self.handover.deliver()
        if delivered:
            with self.ledger.begin() as connection:
                for one in delivered:
                    note_sent(connection, one.identifier, one.state, datetime.now(UTC))
        return delivered

    def _digests(self) -> dict[str, str]:
        """What the audit tells changes of; the configuration holds no secret, but only where each lies."""
        configured = canonical_json(self.config.model_dump(mode="json"))
        return {"Configuration": digest_bytes(configured), "Mappings": self.ruleset.digest}

    async def ask_verdicts(self, *, soon: bool = False) -> Polled:
        """Asks what the accreditation body says of what was accepted; see :func:`.verdicts.poll_verdicts`."""
        submission = self.config.submission
        return await poll_verdicts(self.ledger, submission, soon=soon) if submission is not None else Polled()

    def gather(self, night: Night) -> ReportData:
        """What the report of a night says."""
        volume = night.volume or self.count(self.period)
        with self.ledger.read() as connection:
            return gather_report(
                connection,
                facility=self.config.facility,
                ruleset=self.ruleset,
                as_of=self.as_of,
                volume=volume,
                previous=night.previous,
                outcomes=[source.to_json() for source in night.sources],
                draw=night.sample.draw if night.sample is not None and not night.sample.waits else None,
                cases=night.sample.cases if night.sample is not None else (),
                submission=night.submission.identifier if night.submission is not None else "",
                synthetic=self.synthetic,
            )

    def write_output(self, night: Night, folder: Path, *, pdf: bool = False) -> list[Path]:
        """Writes report, MeasureReport, submission and receipt into a folder; gives their paths.

        Of a pull that is not complete there is a report that says so, and no MeasureReport. With ``pdf`` the report is
        written as a PDF too, also where the configuration does not ask for it.
        """
        files = report_files(night.report, pdf=pdf or self.config.output.pdf) if night.report is not None else {}
        if night.volume is not None and night.complete:
            files["measure-report.json"] = _pretty(self.measure_report(night.volume))
        if night.submission is not None:
            files["submission.json"] = _pretty(json.loads(night.submission.body))
            with self.ledger.read() as connection:
                receipt = latest_receipt(connection, night.submission.identifier)
            if receipt is not None and receipt.body:
                files["receipt.json"] = receipt.body
        return write_files(folder, files)


def _pretty(resource: Json) -> bytes:
    return json.dumps(resource, indent=2, ensure_ascii=False).encode() + b"\n"
