"""The local engine over several processes: parts are read, and patients decided on, at the same time.

What comes out is exactly what one process makes of the same input. Parts are added up in their order, and so are
ranges of patients; what is large stays on disk, and between processes goes only what is small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from io_fhir_adapter.engine.distinct import Spilled, bucket_ranges
from io_fhir_adapter.engine.partial import FileReport, Gathered, Scan
from io_fhir_adapter.engine.parts import Part
from io_fhir_adapter.engine.pool import Pool
from io_fhir_adapter.engine.scan import READING, Advance
from io_fhir_adapter.engine.scratch import Scratch
from io_fhir_adapter.engine.spool import MOST_RUNS, PatientFacts, Run, borders, linked_patients, people
from io_fhir_adapter.engine.terms import Terms
from io_fhir_adapter.engine.worker import Buckets, Decided, Job, Merge, Patients, Result, Scanned, Task, outcome_of

__all__ = ["decided_apart"]

_RANGES_FOR_EACH = 8


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read: the outcome, and where the facts for decisions lie."""

    scan: Scan
    runs: tuple[Run, ...]
    links: dict[str, set[str]]


@contextmanager
def decided_apart(
    parts: Sequence[Part],
    workers: int,
    terms: Terms,
    *,
    progress: Callable[[FileReport], None] | None,
    advance: Advance | None,
) -> Iterator[tuple[Scan, Iterator[Decided]]]:
    """Reads parts over several processes, and gives what was read and what came of range after range of patients.

    They are decided on as that is taken, and only inside the ``with`` block.

    Args:
        parts: What to read.
        workers: Over how many processes.
        terms: By what; where everything is wanted there is a line for every session, else they are counted.
        progress: Called after each file.
        advance: Told of what is done.

    Raises:
        InputError: A process ended before it was done.
    """
    number = min(workers, len(parts))
    told = advance or (lambda *_: None)
    with Scratch() as scratch:
        job = Job(terms, scratch.folder)
        with Pool[Task, Result](number, job) as pool:
            read = _scan(pool, number, parts, progress, told)
            yield read.scan, _decide(pool, number, read, job, scratch, told)


def _scan(
    pool: Pool[Task, Result],
    workers: int,
    parts: Sequence[Part],
    progress: Callable[[FileReport], None] | None,
    advance: Advance,
) -> _Read:
    gathered, told = Gathered(), 0
    spilled: list[Spilled] = []
    runs: list[Run] = []
    links: dict[str, set[str]] = {}
    done, total = 0, sum(part.size for part in parts)
    last = len(parts) - 1
    for number, (part, result) in enumerate(zip(parts, pool.run(parts), strict=True)):
        scanned = cast(Scanned, result)
        if gathered.add(scanned.part):
            spilled.append(scanned.spilled)
            runs += scanned.spooled.runs
            for patient, into in scanned.spooled.links.items():
                links.setdefault(patient, set()).update(into)
        goes_on = number < last and parts[number + 1].continues
        if progress is not None:
            for report in gathered.files[told : len(gathered.files) - goes_on]:
                progress(report)
            told = len(gathered.files) - goes_on
        done += part.size
        advance(READING, done // 1_000_000, total // 1_000_000)
    while len(runs) > MOST_RUNS:
        groups = [tuple(runs[start : start + MOST_RUNS]) for start in range(0, len(runs), MOST_RUNS)]
        runs = [cast(Run, run) for run in pool.run([Merge(group) for group in groups])]
    flags: Counter[int] = Counter()
    for found in pool.run([Buckets(tuple(spilled), buckets) for buckets in bucket_ranges(spilled, workers)]):
        flags.update(cast(Counter[int], found))
    return _Read(gathered.scan(flags), tuple(runs), links)


def _decide(
    pool: Pool[Task, Result], workers: int, read: _Read, job: Job, scratch: Scratch, advance: Advance
) -> Iterator[Decided]:
    linked = linked_patients(read.links)
    edges = [None, *borders(read.runs, workers * _RANGES_FOR_EACH), None]
    tasks = [
        Patients(tuple(run.since(first) for run in read.runs), first, beyond, linked)
        for first, beyond in pairwise(edges)
    ]
    held_back: list[PatientFacts] = []
    for number, result in enumerate(pool.run(tasks), start=1):
        decided = cast(Decided, result)
        held_back += decided.held_back
        yield decided
        advance("deciding", number, len(tasks))
    if held_back:
        yield outcome_of(job, people(held_back, read.links), Decided(), scratch)
