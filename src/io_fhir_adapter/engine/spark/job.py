"""Classifying and counting on Spark: read once, then group by patient, decide, and count.

Reading yields facts, tallies and small partial findings (:mod:`.reading`), which Spark keeps on the executors' disks.
The partial findings are added up here in the order of the files; tallies are counted a bucket at a time
(:mod:`.tallying`); facts are joined with the patients that have a Procedure, grouped by patient and decided on
(:mod:`.deciding`).

Every step over all rows, and every task, costs a moment however few they are: there are as few of both as the input
lets there be.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import tzinfo

import msgspec
from pyspark import Broadcast, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - its name everywhere

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.engine.local import Counted
from io_fhir_adapter.engine.partial import QUARANTINED_KEPT, Scan
from io_fhir_adapter.engine.spark.adding import AddedUp, added_up
from io_fhir_adapter.engine.spark.deciding import decider
from io_fhir_adapter.engine.spark.failures import spark_failures
from io_fhir_adapter.engine.spark.inputs import Found, documents, find_inputs, lines
from io_fhir_adapter.engine.spark.persons import persons
from io_fhir_adapter.engine.spark.reading import Input, Job, Told, document_reader, line_reader
from io_fhir_adapter.engine.spark.rows import (
    ASIDE,
    COUNTED,
    DECIDED,
    DECISION,
    ENDED,
    FACT,
    PARTIAL,
    READ,
    SHAPE,
    TALLY,
    UNSEEN,
    ddl_of,
)
from io_fhir_adapter.engine.spark.tallying import buckets_for, tally_counter
from io_fhir_adapter.engine.terms import ALL_TIME, Terms
from io_fhir_adapter.engine.worker import Shape
from io_fhir_adapter.model import Decision, Quarantined
from io_fhir_adapter.volume.count import Period, VolumeCounter
from io_fhir_adapter.volume.settled import after_deciding

__all__ = ["Outcome", "count_on_spark", "decided_on_spark"]

_FACTS_OF_A_TASK = range(2_000, 50_000)  # with fewer another core does not pay, and more should not come together
_GROUPS_OF_A_TASK = 8  # of patients: with one, chance would leave cores without any
_TALLIES_OF_A_TASK = range(200_000, 8_000_000)
_ORDER = ("later", "patient", "seq")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What deciding found, as numbers.

    Attributes:
        shapes: Decisions with date, category, decision and reason alone, to how many there are of each.
        aside: Day and status to number of Procedures that were set aside when deciding.
        ended: Day to number of those that the programme takes for completed.
    """

    shapes: Counter[Shape] = field(default_factory=Counter)
    aside: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all inputs; usable inside its context only.

    Attributes:
        scan: What was read, and what was set aside.
        read: Rows of reading.
        decided: Rows of deciding.
        before: File, start of a split, and how many lines stand in the splits of the file before it.
        numbers: Of what deciding found.
    """

    scan: Scan
    read: DataFrame
    decided: DataFrame
    before: list[tuple[int, int, int]]
    numbers: Numbers

    def lines(self) -> Iterator[bytes]:
        """One JSON line for every decision, in the order of the local engine."""
        with spark_failures():
            decisions = self.decided.where(F.col("kind") == DECISION).orderBy(*_ORDER)
            for row in decisions.select("payload").toLocalIterator(prefetchPartitions=True):
                yield bytes(row.payload)


@contextmanager
def decided_on_spark(
    spark: SparkSession,
    paths: Sequence[str],
    ruleset: Ruleset,
    *,
    period: Period = ALL_TIME,
    everything: bool = True,
    tz: tzinfo | None = None,
) -> Iterator[Outcome]:
    """Reads the inputs and decides on all patients.

    Args:
        spark: The session.
        paths: Hadoop paths of files and folders, and globs.
        ruleset: What decides.
        period: What is tallied.
        everything: Whether every session is decided on, not just those of patients with something in the period.
        tz: The facility's time zone, None for dates as written.

    Raises:
        InputError: A path leads nowhere, or a file cannot be read to its end.
        UsageError: Executors lack what they need.
    """
    kept: list[DataFrame] = []
    try:
        with spark_failures():
            found = find_inputs(spark, paths)
            inputs = {one.path: Input(number, one.name) for number, one in enumerate(found)}
            terms = Terms.of_today(ruleset, period, everything=everything, tz=tz)
            buckets = buckets_for(sum(one.size for one in found))
            job = spark.sparkContext.broadcast(Job(terms, inputs, buckets))
            read = _kept(_read(spark, found, job), kept)
            parts = added_up(_partials(read), found)
            read = _without(read, parts.lost)
            scan = parts.gathered.scan(_distinct(spark, read, parts))
            decided = _kept(_decided(spark, read, parts, job), kept)
            numbers = _numbers(decided)
            scan.quarantined.extend(_aside(decided, QUARANTINED_KEPT - len(scan.quarantined)) if numbers.aside else ())
        yield Outcome(scan, read, decided, parts.before, numbers)
    finally:
        with spark_failures():
            for frame in kept:
                frame.unpersist()


def count_on_spark(outcome: Outcome, ruleset: Ruleset, period: Period) -> Counted:
    """The volume of the period, of an outcome of the same period."""
    programme, scoped = ruleset.programme, ruleset.scope is not None
    counter = VolumeCounter(period, programme.volume.threshold, programme.counts, scoped=scoped)
    numbers = outcome.numbers
    for shape, number in numbers.shapes.items():
        counter.add(Decision("", "", *shape), number)
    seen = after_deciding(outcome.scan.seen, period, numbers.aside.elements(), numbers.ended.elements())
    return Counted(counter.result(seen), outcome.scan)


def _kept(frame: DataFrame, kept: list[DataFrame]) -> DataFrame:
    """The rows, which are made once and then lie on the executors' disks."""
    kept.append(frame.persist(StorageLevel.DISK_ONLY))
    return frame


def _read(spark: SparkSession, found: Sequence[Found], job: Broadcast[Job]) -> DataFrame:
    schema = ddl_of(READ)
    with_lines = [one.path for one in found if one.is_lines]
    whole = [one.path for one in found if not one.is_lines]
    frames = []
    if with_lines:
        frames.append(lines(spark, with_lines).mapInArrow(line_reader(job), schema))
    if whole:
        frames.append(documents(spark, whole).mapInArrow(document_reader(job), schema))
    return frames[0] if len(frames) == 1 else frames[0].unionByName(frames[1])


def _partials(read: DataFrame) -> Iterator[tuple[int, int, Told]]:
    """File, start and what a split tells of itself, in the order of the input; one after the other, since many."""
    rows = read.where(F.col("kind") == PARTIAL).select("file", "start", "seq", "payload")
    for row in rows.repartition(1).sortWithinPartitions("file", "start", "seq").toLocalIterator():
        yield row.file, row.start, pickle.loads(row.payload)  # noqa: S301 - our own executors wrote it


def _without(read: DataFrame, splits: Sequence[tuple[int, int]]) -> DataFrame:
    """The rows but those of some splits."""
    for file, start in splits:
        read = read.where((F.col("file") != file) | (F.col("start") != start))
    return read


def _distinct(spark: SparkSession, read: DataFrame, parts: AddedUp) -> Counter[int]:
    """Flags to number of distinct Procedures; of one that was read twice those read last hold."""
    tasks = _tasks(spark, sum(report.procedures for report in parts.gathered.files), _TALLIES_OF_A_TASK)
    words = read.where(F.col("kind") == TALLY).select("number", "place", "payload").repartition(tasks, "number")
    counted = words.sortWithinPartitions("number", "place").mapInArrow(tally_counter, ddl_of(COUNTED))
    total: Counter[int] = Counter()
    for flags, times in counted.collect():
        total[flags] += times
    return total


def _tasks(spark: SparkSession, number: int, of_a_task: range) -> int:
    """In how many tasks so many things are worked on: on all cores where that pays, and none has too many."""
    cores = min(spark.sparkContext.defaultParallelism, 1 + number // of_a_task.start)
    return max(cores, 1 + number // of_a_task.stop)


def _decided(spark: SparkSession, read: DataFrame, parts: AddedUp, job: Broadcast[Job]) -> DataFrame:
    facts = read.where(F.col("kind") == FACT).select("patient", "number", "payload")
    if parts.links:
        one = spark.createDataFrame(sorted(persons(parts.links).items()), "patient string, person string")
        facts = facts.join(one, "patient", "left").withColumn("person", F.coalesce("person", "patient"))
    else:
        facts = facts.withColumn("person", F.col("patient"))
    is_procedure = F.col("number") == 0
    with_procedures = facts.where(is_procedure).select("person").distinct()
    needed = facts.where(is_procedure).unionByName(
        facts.where(~is_procedure).join(with_procedures, "person", "left_semi").select(*facts.columns)
    )
    tasks = _tasks(spark, parts.facts, _FACTS_OF_A_TASK)
    group = F.pmod(F.xxhash64("person"), F.lit(tasks * _GROUPS_OF_A_TASK)).alias("group")
    brought = needed.select("*", group).repartition(tasks, "group")
    return brought.groupBy("group").applyInArrow(decider(job), ddl_of(DECIDED))


def _numbers(decided: DataFrame) -> Numbers:
    columns = ("kind", "date", "category", "decision", "reason")
    found = Numbers()
    for row in decided.where(F.col("kind") >= SHAPE).groupBy(*columns).agg(F.sum("times")).collect():
        kind, times = row[0], row[5]
        if kind == SHAPE:
            found.shapes[row[1], row[2], row[3], row[4]] += times
        elif kind == UNSEEN:
            found.aside[row[1], row[2]] += times
        elif kind == ENDED:
            found.ended[row[1]] += times
    return found


def _aside(decided: DataFrame, most: int) -> list[Quarantined]:
    rows = decided.where(F.col("kind") == ASIDE).orderBy(*_ORDER).limit(most).select("payload").collect()
    return [msgspec.json.decode(row.payload, type=Quarantined) for row in rows]
