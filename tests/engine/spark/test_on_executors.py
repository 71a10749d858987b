"""What runs on executors, without Spark: however the input is cut into splits and batches. Synthetic data."""

from __future__ import annotations

import gzip
import pickle
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyspark")
pa = pytest.importorskip("pyarrow")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tests.engine.test_parallel import LINES, YEAR, line, procedure, rules, said  # noqa: E402

from io_fhir_adapter.engine.lines import decision_line  # noqa: E402
from io_fhir_adapter.engine.local import classify_files, count_files  # noqa: E402
from io_fhir_adapter.engine.spark import rows  # noqa: E402
from io_fhir_adapter.engine.spark.adding import AddedUp, added_up  # noqa: E402
from io_fhir_adapter.engine.spark.deciding import decider  # noqa: E402
from io_fhir_adapter.engine.spark.discretion import WorkerError  # noqa: E402
from io_fhir_adapter.engine.spark.inputs import Found  # noqa: E402
from io_fhir_adapter.engine.spark.persons import persons  # noqa: E402
from io_fhir_adapter.engine.spark.reading import Input, Job, document_reader, line_reader  # noqa: E402
from io_fhir_adapter.engine.spark.tallying import buckets_for, packed, tally_counter  # noqa: E402
from io_fhir_adapter.engine.terms import ALL_TIME, Terms  # noqa: E402
from io_fhir_adapter.errors import InputError  # noqa: E402
from io_fhir_adapter.fhir.dates import tomorrow  # noqa: E402
from io_fhir_adapter.pull.files import find_inputs  # noqa: E402

Split = tuple[str, int, list[bytes]]


def job_of(paths: Sequence[Path], *, everything: bool) -> Any:
    inputs = {f"file:{path}": Input(number, str(path)) for number, path in enumerate(paths)}
    period = ALL_TIME if everything else YEAR
    return SimpleNamespace(value=Job(Terms(rules(), period, everything, None, tomorrow(), "2026-01-01"), inputs, 256))


def splits_of(path: Path, cuts: Sequence[int]) -> Iterator[Split]:
    """The lines of a file as Hadoop hands them out: a line belongs to the split in which the end before it lies."""
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    starts = sorted({0, *(cut % (len(text) + 1) for cut in cuts if path.suffix != ".gz")})
    found: dict[int, list[bytes]] = {start: [] for start in starts}
    place = 0
    for one in text.split(b"\n") if text else []:
        if place == len(text) and not one:
            break
        found[max(start for start in starts if start < place or start == 0)].append(one)
        place += len(one) + 1
    for start, lines in found.items():
        yield f"file:{path}".replace(" ", "%20"), start, lines


def batches_of(splits: Sequence[Split], size: int) -> Iterator[Any]:
    handed = [(one, path, start) for path, start, lines in splits for one in lines]
    for first in range(0, len(handed), size):
        lines, paths, starts = zip(*handed[first : first + size], strict=True)
        yield pa.RecordBatch.from_arrays(
            [pa.array(lines, pa.binary()).view(pa.string()), pa.array(paths), pa.array(starts, pa.int64())],
            ["line", "path", "start"],
        )


def outcome(paths: Sequence[Path], cuts: Sequence[int], size: int, seed: int, *, everything: bool) -> dict[str, Any]:
    """What the executors' functions make of the files, put together as the driver does."""
    job, rng = job_of(paths, everything=everything), random.Random(seed)
    splits = [split for path in paths for split in splits_of(path, cuts)]
    rng.shuffle(splits)
    tasks = [splits[place::3] for place in range(3)]
    read = [row for task in tasks for batch in line_reader(job)(batches_of(task, size)) for row in batch.to_pylist()]
    told = sorted((row for row in read if row["kind"] == rows.PARTIAL), key=_order)
    found = [Found(str(path), str(path), path.stat().st_size) for path in paths]
    parts = ((row["file"], row["start"], pickle.loads(row["payload"])) for row in told)  # noqa: S301 - ours
    total = added_up(parts, found)
    scan = total.gathered.scan(_distinct(read, rng))
    decided = _decided(job, read, total, rng)
    lines = [row["payload"] for row in decided if row["kind"] == rows.DECISION]
    aside = [row["payload"] for row in decided if row["kind"] == rows.ASIDE]
    assert total.facts == sum(row["kind"] == rows.FACT for row in read)
    assert len([row for row in read if row["kind"] == rows.QUARANTINE]) == scan.quarantined_total
    before = {(file, start): lines_before for file, start, lines_before in total.before}
    broken = sorted(
        (row["file"], row["number"] + before[row["file"], row["start"]])
        for row in read
        if row["kind"] == rows.QUARANTINE
    )
    return {"scan": said(scan), "lines": lines, "aside": len(aside), "broken": broken}


def _order(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["file"], row["start"], row["seq"]


def _distinct(read: list[dict[str, Any]], rng: random.Random) -> Counter[int]:
    """As Spark does: the buckets in two tasks, in batches that do not end where a bucket does."""
    total: Counter[int] = Counter()
    tallies = [row for row in read if row["kind"] == rows.TALLY]
    for task in range(2):
        given = sorted((row for row in tallies if row["number"] % 2 == task), key=itemgetter("number", "place"))
        size = rng.randrange(1, 9)
        batches = [pa.RecordBatch.from_pylist(given[n : n + size], rows.READ) for n in range(0, len(given), size)]
        for counted in tally_counter(iter(batches)):
            total.update({row["flags"]: row["times"] for row in counted.to_pylist()})
    return total


def _decided(job: Any, read: list[dict[str, Any]], total: AddedUp, rng: random.Random) -> list[dict[str, Any]]:
    person = persons(total.links)
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in read:
        if row["kind"] == rows.FACT:
            key = sum(person.get(row["patient"], row["patient"]).encode()) % 3
            groups.setdefault(key, []).append(row)
    decided = []
    for facts in groups.values():
        rng.shuffle(facts)
        batch = pa.RecordBatch.from_pylist(facts, schema=rows.READ)
        decided += [row for one in decider(job)(iter([batch])) for row in one.to_pylist()]
    kept = [row for row in decided if row["kind"] in {rows.DECISION, rows.ASIDE}]
    return sorted(kept, key=lambda row: (row["later"], row["patient"], row["seq"]))


def expected(paths: Sequence[Path], *, everything: bool) -> dict[str, Any]:
    inputs = find_inputs([str(path) for path in paths])
    if not everything:
        scan = count_files(inputs, rules(), YEAR).scan
        return {"scan": said(scan), "lines": None}
    with classify_files(inputs, rules()) as (scan, decisions):
        lines = [decision_line(one) for one in decisions]
    return {"scan": said(scan), "lines": lines}


@settings(max_examples=20)
@given(
    drawn=st.lists(st.lists(st.sampled_from(LINES), max_size=30), min_size=1, max_size=3),
    ends=st.lists(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n"]), min_size=1, max_size=3),
    last=st.booleans(),
    cuts=st.lists(st.integers(0, 9_000), max_size=6),
    size=st.integers(1, 40),
    everything=st.booleans(),
)
def test_however_the_input_is_cut_it_comes_to_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[list[bytes]], ends: list[bytes], last: bool, cuts: list[int], size: int, everything: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("drawn")
    paths = [folder / (f"{number}.ndjson" + ".gz" * (number == 1)) for number in range(len(drawn))]
    for path, lines in zip(paths, drawn, strict=True):
        text = b"".join(one + ends[place % len(ends)] for place, one in enumerate(lines))
        text = text if last else text.rstrip(b"\r\n")
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    found, wanted = outcome(paths, cuts, size, len(cuts), everything=everything), expected(paths, everything=everything)
    aside = found["aside"]
    known = list(found["scan"][1])
    assert [entry for entry in wanted["scan"][1] if ":" in entry.position] == known
    assert len(wanted["scan"][1]) - len(known) == aside
    assert found["scan"][0] == wanted["scan"][0]
    assert found["scan"][2:] == wanted["scan"][2:]
    if everything:
        assert found["lines"] == wanted["lines"]


def test_every_broken_line_is_told_not_just_the_first_thousand(tmp_path: Path) -> None:
    path = tmp_path / "a b.ndjson"
    path.write_bytes(b"{broken\n" * 2_500 + line(procedure("p")))
    found = outcome([path], [3_000, 5_000, 12_000], 700, 1, everything=False)
    assert found["broken"] == [(0, number) for number in range(1, 2_501)]
    assert found["scan"] == expected([path], everything=False)["scan"]
    assert len(found["scan"][1]) == 1_000


def test_of_a_procedure_in_two_files_the_last_one_holds(tmp_path: Path) -> None:
    paths = [tmp_path / "a.ndjson", tmp_path / "b.ndjson"]
    paths[0].write_bytes(line(procedure("o", "9-999")) + b"\n" + line(procedure("p", "9-999")))
    paths[1].write_bytes(line(procedure("p", "9-999", status="not-done")))
    for seed in range(4):
        found = outcome(paths, [], 5, seed, everything=False)
        assert found["scan"][2].by_status == {"completed": 1, "not-done": 1}


@given(
    added=st.lists(
        st.lists(
            st.tuples(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 3), st.integers(0, 255)), max_size=20
        ),
        max_size=4,
    ),
    buckets=st.sampled_from([256, 1024, 1 << 16]),
)
def test_distinct_keys_are_counted_with_the_flags_they_had_last(
    added: list[list[tuple[int, int]]], buckets: int
) -> None:
    handed: list[tuple[int, int, bytes]] = []
    for place, pairs in enumerate(added):
        if pairs:
            keys, flags = zip(*pairs, strict=True)
            numbers, words = packed(array("q", keys), bytearray(flags), buckets)
            handed += [(n, place, text) for n, text in zip(numbers.to_pylist(), words.to_pylist(), strict=True)]
    assert all(number in range(buckets) for number, _, _ in handed)
    batch = pa.RecordBatch.from_pylist([{"number": n, "payload": text} for n, _, text in sorted(handed)], rows.READ)
    (counted,) = tally_counter(iter([batch]))
    found = {row["flags"]: row["times"] for row in counted.to_pylist()}
    assert found == Counter(dict(pair for pairs in added for pair in pairs).values())


def test_there_are_more_buckets_where_there_is_more() -> None:
    assert [buckets_for(size) for size in (0, 1 << 37, (1 << 37) + 1, 1 << 80)] == [256, 256, 512, 1 << 16]


def test_a_document_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(line(procedure("p", note=[{"text": "synthetic\nnote"}]))))
    batch = pa.RecordBatch.from_pylist([{"content": path.read_bytes(), "path": f"file:{path}"}])
    read = [row for one in document_reader(job_of([path], everything=True))(iter([batch])) for row in one.to_pylist()]
    assert [row["kind"] for row in read] == [rows.FACT, rows.TALLY, rows.PARTIAL]


def test_an_error_on_an_executor_loses_what_it_says(tmp_path: Path) -> None:
    job = job_of([tmp_path / "other"], everything=True)
    batch = pa.RecordBatch.from_pylist([{"content": b"", "path": "file:/Mrs-Synthetic"}])
    with pytest.raises(WorkerError) as caught:
        list(document_reader(job)(iter([batch])))
    assert "KeyError in io_fhir_adapter.engine.spark.reading:" in str(caught.value)
    assert "Synthetic" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_file_that_was_passed_over_is_an_error() -> None:
    found = [Found("/a.ndjson", "/a.ndjson", 10)]
    with pytest.raises(InputError, match="nothing of the file was handed over"):
        added_up((), found)
    assert [report.name for report in added_up((), [Found("/b.ndjson.gz", "b", 40)]).gathered.files] == ["b"]


def test_who_hangs_together_is_one_person() -> None:
    found = persons([("c", "b"), ("x", "y"), ("b", "a"), ("y", "x"), ("d", "d")])
    assert found == {"a": "a", "b": "a", "c": "a", "d": "d", "x": "x", "y": "x"}
