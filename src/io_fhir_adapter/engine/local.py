"""Classifying and counting files: one pass over the input, then one patient at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import BinaryIO

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.lifespan import set_aside
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.sessions import latest
from io_fhir_adapter.classify.statuses import has_ended
from io_fhir_adapter.engine.scan import FileReport, Scan, scan_files
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.model import Decision, ProcedureFact, Quarantined
from io_fhir_adapter.pull.files import InputFile
from io_fhir_adapter.volume.count import Period, Seen, Volume, VolumeCounter
from io_fhir_adapter.volume.settled import after_deciding

__all__ = ["Counted", "classify_files", "count_files"]

_QUARANTINED_KEPT = 1_000
_ALL_TIME = Period("0001-01-01", "9999-12-31", "all")
Progress = Callable[[FileReport], None]


@dataclass(frozen=True, slots=True)
class Counted:
    """The volume of one period and what was read for it."""

    volume: Volume
    scan: Scan


@contextmanager
def classify_files(
    inputs: Sequence[InputFile],
    ruleset: Ruleset,
    *,
    tz: tzinfo | None = None,
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Scan, Iterator[Decision]]]:
    """Reads the inputs and gives what was read and one decision per session, by patient and date.

    The decisions are made as they are taken, and only inside the ``with`` block.
    """
    with Spool() as spool:
        scan = scan_files(
            inputs, ruleset, spool, tz=tz, period=_ALL_TIME, keep_all=True, stdin=stdin, progress=progress
        )
        yield scan, _Deciding(scan, ruleset).decisions(spool)


def count_files(
    inputs: Sequence[InputFile],
    ruleset: Ruleset,
    period: Period,
    *,
    tz: tzinfo | None = None,
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
) -> Counted:
    """The volume of the period in the inputs."""
    programme = ruleset.programme
    scoped = ruleset.scope is not None
    counter = VolumeCounter(period, programme.volume.threshold, programme.counts, scoped=scoped)
    with Spool() as spool:
        scan = scan_files(inputs, ruleset, spool, tz=tz, period=period, keep_all=False, stdin=stdin, progress=progress)
        deciding = _Deciding(scan, ruleset, period)
        for decision in deciding.decisions(spool):
            counter.add(decision)
    return Counted(counter.result(deciding.seen()), scan)


class _Deciding:
    """Decides patient by patient, and notes what reading alone could not know of a Procedure.

    Args:
        scan: What was read; takes what is set aside now.
        ruleset: What decides.
        period: Patients who have nothing to do with it are left out; None for all.
    """

    def __init__(self, scan: Scan, ruleset: Ruleset, period: Period | None = None) -> None:
        self._scan = scan
        self._ruleset = ruleset
        self._period = period
        self._today = datetime.now(UTC).date().isoformat()
        self._aside: list[tuple[str, str]] = []
        self._ended: list[str] = []

    def decisions(self, spool: Spool) -> Iterator[Decision]:
        """The decisions on all patients, by patient and date."""
        for facts in spool.patients():
            versions = latest(facts.procedures)
            good, aside = set_aside(facts.patient, versions, facts.people, self._ruleset)
            if aside:
                self._note(versions, aside)
            if self._ruleset.programme.takes_ended_for_completed:
                self._ended += [fact.day for fact in good if self._has_ended(fact)]
            if self._period is None or any(self._period.place(fact.day) != "outside" for fact in good):
                yield from decide_patient(good, facts.conditions, facts.encounters, self._ruleset, today=self._today)

    def _has_ended(self, fact: ProcedureFact) -> bool:
        return has_ended(fact, self._today) and bool(read_codes(fact, self._ruleset).findings)

    def _note(self, versions: Sequence[ProcedureFact], aside: Sequence[Quarantined]) -> None:
        places = {entry.position for entry in aside}
        self._aside += [(fact.day, fact.status) for fact in versions if f"Procedure/{fact.id}" in places]
        self._scan.quarantined.extend(aside[: max(0, _QUARANTINED_KEPT - len(self._scan.quarantined))])

    def seen(self) -> Seen:
        """What was read, with what is known now."""
        return after_deciding(self._scan.seen, self._period or _ALL_TIME, self._aside, self._ended)
