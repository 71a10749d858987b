"""Classifying and counting files: one pass over the input, then patient by patient, on as many cores as there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from typing import BinaryIO

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.deciding import Deciding
from io_fhir_adapter.engine.lines import decision_line
from io_fhir_adapter.engine.parallel import decided_apart
from io_fhir_adapter.engine.partial import QUARANTINED_KEPT
from io_fhir_adapter.engine.parts import Part, parts_of, size_of
from io_fhir_adapter.engine.scan import Advance, FileReport, Scan, scan_files
from io_fhir_adapter.engine.spool import Spool
from io_fhir_adapter.engine.terms import ALL_TIME, Terms
from io_fhir_adapter.engine.worker import Decided
from io_fhir_adapter.model import Decision, Quarantined
from io_fhir_adapter.pull.files import InputFile
from io_fhir_adapter.volume.count import Period, Volume, VolumeCounter
from io_fhir_adapter.volume.settled import after_deciding

__all__ = ["Counted", "classify_files", "classify_lines", "count_files"]

_SMALL = 32 << 20  # bytes: with less, one process is as quick
_SMALL_FOR_LINES = 4 << 20  # the same where every session gets a line
_PIECE = 1 << 20
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
    advance: Advance | None = None,
) -> Iterator[tuple[Scan, Iterator[Decision]]]:
    """Reads the inputs and gives what was read and one decision per session, by patient and date.

    The decisions are made as they are taken, and only inside the ``with`` block.
    """
    terms = Terms.of_today(ruleset, ALL_TIME, everything=True, tz=tz)
    with Spool() as spool:
        scan = scan_files(inputs, terms, spool, stdin=stdin, progress=progress, advance=advance)
        yield scan, _decisions(Deciding(terms), spool, scan)


def _decisions(deciding: Deciding, spool: Spool, scan: Scan) -> Iterator[Decision]:
    yield from deciding.decisions(spool.patients())
    _set_aside(scan, deciding.quarantined)


@contextmanager
def classify_lines(
    inputs: Sequence[InputFile],
    ruleset: Ruleset,
    *,
    tz: tzinfo | None = None,
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
    advance: Advance | None = None,
    workers: int = 1,
) -> Iterator[tuple[Scan, Iterator[bytes]]]:
    """The same as lines of JSON, one or more at a time, over as many processes as are worth it.

    Raises:
        InputError: A process ended before it was done.
    """
    parts = _parts(inputs, workers, _SMALL_FOR_LINES)
    if len(parts) < 2:
        with classify_files(inputs, ruleset, tz=tz, stdin=stdin, progress=progress, advance=advance) as (scan, found):
            yield scan, map(decision_line, found)
        return
    terms = Terms.of_today(ruleset, ALL_TIME, everything=True, tz=tz)
    with decided_apart(parts, workers, terms, progress=progress, advance=advance) as (scan, ranges):
        yield scan, _lines(ranges, scan)


def _lines(ranges: Iterator[Decided], scan: Scan) -> Iterator[bytes]:
    aside: list[Quarantined] = []
    for decided in ranges:
        if decided.lines is not None:
            with decided.lines.open("rb") as handle:
                while piece := handle.read(_PIECE):
                    yield piece
            decided.lines.unlink()
        aside += decided.quarantined
    _set_aside(scan, aside)


def count_files(
    inputs: Sequence[InputFile],
    ruleset: Ruleset,
    period: Period,
    *,
    tz: tzinfo | None = None,
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
    advance: Advance | None = None,
    workers: int = 1,
) -> Counted:
    """The volume of the period in the inputs, counted over as many processes as are worth it.

    Raises:
        InputError: A process ended before it was done.
    """
    programme = ruleset.programme
    scoped = ruleset.scope is not None
    counter = VolumeCounter(period, programme.volume.threshold, programme.counts, scoped=scoped)
    terms = Terms.of_today(ruleset, period, everything=False, tz=tz)
    parts = _parts(inputs, workers, _SMALL)
    aside: Counter[tuple[str, str]] = Counter()
    ended: Counter[str] = Counter()
    quarantined: list[Quarantined] = []
    if len(parts) < 2:
        with Spool() as spool:
            scan = scan_files(inputs, terms, spool, stdin=stdin, progress=progress, advance=advance)
            deciding = Deciding(terms)
            for decision in deciding.decisions(spool.patients()):
                counter.add(decision)
        aside, ended, quarantined = deciding.aside, deciding.ended, deciding.quarantined
    else:
        with decided_apart(parts, workers, terms, progress=progress, advance=advance) as (scan, ranges):
            for decided in ranges:
                for shape, number in decided.shapes.items():
                    counter.add(Decision("", "", *shape), number)
                aside.update(decided.aside)
                ended.update(decided.ended)
                quarantined += decided.quarantined
    _set_aside(scan, quarantined)
    return Counted(counter.result(after_deciding(scan.seen, period, aside.elements(), ended.elements())), scan)


def _parts(inputs: Sequence[InputFile], workers: int, small: int) -> list[Part]:
    """What several processes are to read; nothing where one is as quick, or has to because it comes from a pipe."""
    if workers < 2 or any(source.path is None for source in inputs) or sum(map(size_of, inputs)) < small:
        return []
    return parts_of(inputs, workers)


def _set_aside(scan: Scan, quarantined: Sequence[Quarantined]) -> None:
    scan.quarantined.extend(quarantined[: QUARANTINED_KEPT - len(scan.quarantined)])
