"""Classifying and counting files: one pass over the input, then one patient at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from typing import BinaryIO

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.scan import FileReport, Scan, scan_files
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.model import Decision
from io_fhir_adapter.pull.files import InputFile
from io_fhir_adapter.volume.count import Period, Volume, VolumeCounter

__all__ = ["Counted", "classify_files", "count_files"]

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
        yield scan, _decisions(spool, ruleset)


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
    counter = VolumeCounter(period, programme.volume.threshold, programme.counts)
    with Spool() as spool:
        scan = scan_files(inputs, ruleset, spool, tz=tz, period=period, keep_all=False, stdin=stdin, progress=progress)
        for decision in _decisions(spool, ruleset, period):
            counter.add(decision)
    return Counted(counter.result(scan.seen), scan)


def _decisions(spool: Spool, ruleset: Ruleset, period: Period | None = None) -> Iterator[Decision]:
    """The decisions on all patients; ``period`` leaves out those who have nothing to do with it."""
    for facts in spool.patients():
        if period is None or any(period.place(fact.day) != "outside" for fact in facts.procedures):
            yield from decide_patient(facts.procedures, facts.conditions, facts.encounters, ruleset)
