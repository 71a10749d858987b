"""Reading on executors: splits of files in, facts, tallies, partial findings and the quarantined out.

Spark cuts large plain files into splits and gives each line whole. The lines of a split are put together again and
read by the same code as any file; their numbers are counted from the split's first one, and put right where the
number of lines in the splits before is known.
"""

from __future__ import annotations

import io
import pickle
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, BinaryIO, Final, cast
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Broadcast

from io_fhir_adapter.engine.partial import QUARANTINED_KEPT, FileReport, Partial
from io_fhir_adapter.engine.scan import Scanner
from io_fhir_adapter.engine.spark.discretion import Discreet
from io_fhir_adapter.engine.spark.rows import FACT, PARTIAL, QUARANTINE, READ, TALLY, batch_of, place_of
from io_fhir_adapter.engine.spark.tallying import packed
from io_fhir_adapter.engine.spool import Fact
from io_fhir_adapter.engine.terms import Terms
from io_fhir_adapter.errors import InputError
from io_fhir_adapter.model import ConditionFact, EncounterFact, PatientFact, ProcedureFact
from io_fhir_adapter.pull.files import Block, InputFile, LineIndex, read_input, read_on

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["FACT_KINDS", "Batches", "Input", "Job", "Told", "document_reader", "line_reader"]

FACT_KINDS: Final[tuple[type[Fact], ...]] = (ProcedureFact, ConditionFact, EncounterFact, PatientFact)
"""The number of a kind of fact in ``rows.READ``."""
Batches = Iterator[pa.RecordBatch]
_Bytes = bytes | memoryview
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_FACTS_HELD, _TALLIES_HELD = 5_000, 1 << 18


@dataclass(frozen=True, slots=True)
class Input:
    """One input: its place in the order of all, and the name used in messages."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Job:
    """What all executors know.

    Attributes:
        terms: By what.
        inputs: The path of an input, without any percent-encoding, to the input.
        buckets: In how many distinct Procedures are counted.
    """

    terms: Terms
    inputs: Mapping[str, Input]
    buckets: int

    def input(self, path: str) -> Input:
        """The input of a path as Spark writes it beside lines, percent-encoded in ways of its own."""
        return self.inputs[unquote(path)]


@dataclass(frozen=True, slots=True)
class Told:
    """What a split tells of itself.

    Attributes:
        part: What was found.
        facts: How many facts it yields.
        links: Patients whose record was merged, each with the one that it was merged into.
    """

    part: Partial
    facts: int
    links: list[tuple[str, str]]


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterable[_Bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer)
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece).cast("B")
        number = min(len(target), len(self._piece))
        target[:number] = self._piece[:number]
        self._piece = self._piece[number:]
        return number


class _Split:
    """What one split yields; kept for the next one is what was found out about how hospitals write."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._file, self._start, self._seq, self._tallied = 0, 0, 0, 0
        self._facts: list[Fact] = []
        self._added, self._links = 0, list[tuple[str, str]]()
        self._keys, self._flags = array("q"), bytearray()
        self._scanner = Scanner(job.terms, self._extend, self._facts.append, named=1 << 30)

    def _extend(self, keys: Iterable[int], flags: Iterable[int]) -> None:
        self._keys.extend(keys)
        self._flags += bytes(flags)

    def read(self, given: Input, start: int, pieces: Iterable[_Bytes]) -> Batches:
        """Reads a split, or a whole input where it starts at 0 and ends where the input does."""
        self._file, self._start, self._seq, self._tallied = given.number, start, 0, 0
        source, index = InputFile(None, given.name), LineIndex(None)
        stream = cast(BinaryIO, io.BufferedReader(_Stream(pieces)))
        glance, continues = not self._job.terms.everything, start > 0
        report = FileReport(source.name)
        try:
            parts = (
                read_on(source, stream, index, glance=glance)
                if start
                else read_input(source, stream, glance=glance, index=index)
            )
            for part in parts:
                if isinstance(part, Block):
                    self._scanner.block(part, report)
                else:
                    self._scanner.item(part, report)
                if len(self._facts) >= _FACTS_HELD:
                    yield from self._fact_rows()
                if len(self._keys) >= _TALLIES_HELD:
                    yield from self._tally_rows()
                if report.quarantined >= QUARANTINED_KEPT:
                    yield from self._found(report, 0, continues=continues)
                    report, continues = FileReport(source.name), True
        except InputError as exc:
            report.refused = exc.sentence
        yield from self._fact_rows()
        yield from self._tally_rows()
        yield from self._found(report, index.ended, continues=continues)

    def _fact_rows(self) -> Batches:
        """The facts so far."""
        if self._facts:
            facts = self._facts
            yield batch_of(
                READ,
                len(facts),
                {
                    **self._where(FACT, len(facts)),
                    "patient": [_patient_of(fact) for fact in facts],
                    "number": [FACT_KINDS.index(type(fact)) for fact in facts],
                    "payload": [_ENCODE(fact) for fact in facts],
                },
            )
            self._links += [
                (_patient_of(fact), fact.replaced_by)
                for fact in facts
                if isinstance(fact, PatientFact) and fact.replaced_by
            ]
            self._added += len(facts)
            facts.clear()

    def _tally_rows(self) -> Batches:
        """The tallies so far: the more at a time, the fewer rows."""
        if self._keys:
            buckets, words = packed(self._keys, self._flags, self._job.buckets)
            first = pa.scalar(place_of(self._file, self._start) + self._tallied, pa.int64())
            columns = {"number": buckets, "place": pa.repeat(first, len(buckets)), "payload": words}
            yield batch_of(READ, len(buckets), {**self._where(TALLY, len(buckets)), **columns})
            self._tallied += len(self._keys)
            self._keys, self._flags = array("q"), bytearray()

    def _found(self, report: FileReport, line_ends: int, *, continues: bool) -> Batches:
        """What else was found so far."""
        part = self._scanner.take(line_ends, continues=continues)
        aside, part.quarantined = part.quarantined, part.quarantined[:QUARANTINED_KEPT]
        if aside:
            places = [_line_of(entry.position, report.name) for entry in aside]
            rows = [
                msgspec.json.encode(
                    {"name": report.name, "tail": tail, "type": entry.resource_type, "why": entry.reason}
                )
                for (_, tail), entry in zip(places, aside, strict=True)
            ]
            seqs = range(self._seq, self._seq + len(aside))
            yield batch_of(
                READ,
                len(aside),
                {
                    **self._where(QUARANTINE, len(aside)),
                    "seq": seqs,
                    "number": [line for line, _ in places],
                    "payload": rows,
                },
            )
            self._seq += len(aside)
        found = Partial(
            [report], part.quarantined, part.quarantined_procedures, part.unmapped, part.without_code, line_ends,
            continues,
        )  # fmt: skip
        told = pickle.dumps(Told(found, self._added, self._links))
        yield batch_of(READ, 1, {**self._where(PARTIAL, 1), "seq": [self._seq], "payload": [told]})
        self._seq, self._added, self._links = self._seq + 1, 0, []

    def _where(self, kind: int, number: int) -> dict[str, pa.Array]:
        return {
            "kind": pa.repeat(pa.scalar(kind, pa.int8()), number),
            "file": pa.repeat(pa.scalar(self._file, pa.int32()), number),
            "start": pa.repeat(pa.scalar(self._start, pa.int64()), number),
        }


def _patient_of(fact: Fact) -> str:
    return f"Patient/{fact.id}" if isinstance(fact, PatientFact) else fact.patient


def _line_of(position: str, name: str) -> tuple[int | None, str]:
    """The line that a position names, and what stands behind it; no line where it names none."""
    tail = position.removeprefix(name)
    line, space, rest = tail.removeprefix(":").partition(" ")
    return (int(line), space + rest) if tail[:1] == ":" else (None, tail)


def line_reader(job: Broadcast[Job]) -> Callable[[Batches], Batches]:
    """What reads lines: batches with the columns ``line`` (without its end), ``path`` and ``start`` in, rows out."""

    def read(batches: Batches) -> Batches:
        with Discreet():
            split = _Split(job.value)
            for (path, start), pieces in groupby(_pieces(batches), key=itemgetter(0, 1)):
                yield from split.read(job.value.input(path), start, map(itemgetter(2), pieces))

    return read


def document_reader(job: Broadcast[Job]) -> Callable[[Batches], Batches]:
    """What reads whole inputs: batches with the columns ``content`` and ``path`` in, rows out."""

    def read(batches: Batches) -> Batches:
        with Discreet():
            split = _Split(job.value)
            for batch in batches:
                for content, path in zip(batch.column("content"), batch.column("path").to_pylist(), strict=True):
                    yield from split.read(job.value.input(path), 0, [memoryview(content.as_buffer())])

    return read


def _pieces(batches: Batches) -> Iterator[tuple[str, int, _Bytes]]:
    """Path and start of a split with some of its lines, as they stood in the file."""
    for batch in batches:
        lines, paths, starts = (batch.column(name) for name in ("line", "path", "start"))
        first = 0
        while first < batch.num_rows:
            path, start = paths[first].as_py(), starts[first].as_py()
            last = batch.num_rows
            if (paths[last - 1].as_py(), starts[last - 1].as_py()) != (path, start):
                last = first + 1
                while (paths[last].as_py(), starts[last].as_py()) == (path, start):
                    last += 1
            yield path, start, _bytes_of(lines.slice(first, last - first))
            first = last


def _bytes_of(lines: pa.StringArray) -> _Bytes:
    """Lines with their ends, one behind the other; nobody has to know whether they are valid UTF-8."""
    ended = pc.binary_join_element_wise(lines, "", "\n")
    _, offsets, data = ended.buffers()
    bounds = memoryview(offsets).cast("q" if ended.type == pa.large_string() else "i")
    return memoryview(data)[bounds[ended.offset] : bounds[ended.offset + len(ended)]]
