"""However the input is cut and over however many processes it goes: what one process makes of it. Synthetic data."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.engine import local, parallel, parts, pool
from io_fhir_adapter.engine.local import classify_lines, count_files
from io_fhir_adapter.engine.scan import Scan
from io_fhir_adapter.errors import AdapterError, InputError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.pull import files
from io_fhir_adapter.pull.decode import decode_resource
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.volume.count import Period

pytestmark = [
    pytest.mark.xdist_group("parallel"),  # one hospital for all
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
ICD = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
YEAR = Period.year("2025")


@cache
def rules() -> Ruleset:
    return load_ruleset()


class Inline:
    """In the place of a pool: does the tasks in this process, in another order than they are taken in."""

    def __init__(self, number: int, make: Callable[[], Callable[[Any], Any]]) -> None:
        self.workers = [make() for _ in range(number)]

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __class_getitem__(cls, _: Any) -> type[Inline]:
        return cls

    def run(self, tasks: Sequence[Any]) -> Iterator[Any]:
        order = list(range(len(tasks)))
        random.Random(len(tasks)).shuffle(order)
        done = {place: self.workers[place % len(self.workers)](tasks[place]) for place in order}
        return iter([done[place] for place in range(len(tasks))])


@contextmanager
def tiny(block: int = 256, *, head: int = 1, inline: bool = True) -> Iterator[pytest.MonkeyPatch]:
    """Blocks and parts of a few lines, so that a little input is many parts; without processes where inline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BLOCK", block)
        patch.setattr(files, "_HEAD", head * block)
        patch.setattr(parts, "_LEAST", 1)
        patch.setattr(local, "_SMALL", 0)
        patch.setattr(local, "_SMALL_FOR_LINES", 0)
        if inline:
            patch.setattr(parallel, "Pool", Inline)
        else:
            patch.setattr(pool, "_method", lambda: "fork")  # the threads of the test's runner only wait
        yield patch


def said(scan: Scan) -> tuple[object, ...]:
    return scan.files, scan.quarantined, scan.seen, scan.unmapped, scan.without_code


def outcome(*paths: Path, workers: int, tz: str | None = None) -> dict[str, object]:
    inputs, where = find_inputs([str(path) for path in paths]), zone(tz) if tz else None
    told: list[str] = []
    counted = count_files(
        inputs, rules(), YEAR, tz=where, workers=workers, progress=lambda report: told.append(report.name)
    )
    with classify_lines(inputs, rules(), tz=where, workers=workers) as (scan, lines):
        written = b"".join(lines)
    return {
        "volume": counted.volume, "counted": said(counted.scan), "told": told,
        "lines": written.splitlines(), "classified": said(scan),
    }  # fmt: skip


def procedure(name: str, code: str = "5-501.a3", patient: str = "1", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Procedure", "id": name, "status": "completed", "performedDateTime": "2025-03-14",
        "code": {"coding": [{"system": OPS, "code": code}]}, "subject": {"reference": f"Patient/{patient}"},
        "reasonCode": [{"coding": [{"system": ICD, "code": "C22.0"}]}], **more,
    }  # fmt: skip


def line(resource: dict[str, Any], *, ascii_only: bool = True) -> bytes:
    return json.dumps(resource, ensure_ascii=ascii_only).encode()


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]}


def person(name: str, updated: str, into: str = "", **more: Any) -> dict[str, Any]:
    link = {"link": [{"other": {"reference": f"Patient/{into}"}, "type": "replaced-by"}]} if into else {}
    return {"resourceType": "Patient", "id": name, "meta": {"lastUpdated": updated}, **link, **more}


LINES = [
    *(line(procedure(f"p{n % 7}", patient=str(n % 4))) for n in range(10)),
    *(line(procedure(f"q{n}", "9-999", status="not-done" if n % 2 else "completed")) for n in range(6)),
    line(procedure("p1", "9-998")),
    line(procedure("p2", "9-999", patient="2")),
    line(procedure("ü", "8-836.ka", "3", note=[{"text": "synthetisch: Größe 🫁"}]), ascii_only=False),
    line(procedure("long", "8-541.6", "3", note=[{"text": "synthetic " * 90}])),
    line(procedure("dead", patient="dead")),
    line(procedure("dead2", patient="dead")),
    line(procedure("old", "8-541.6", patient="old")),
    line(person("dead", "2025-01-01", deceasedDateTime="2024-05-01")),
    line(person("old", "2025-01-01T08:00:00Z", into="1")),
    line(person("old", "2025-02-01T08:00:00Z", into="3")),
    line(person("3", "2025-01-01T08:00:00Z", into="2")),
    line(person("3", "2025-04-01T08:00:00Z")),
    line(bundle(procedure("b1"), {"resourceType": "Observation", "id": "o"}, procedure("b2", subject=None))),
    line({"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/2"},
          "code": {"coding": [{"system": ICD, "code": "C79.5"}]}}),
    line({"resourceType": "Encounter", "id": "e", "subject": {"reference": "Patient/2"}}),
    line({"resourceType": "Observation", "id": "o"}),
    line(procedure("nobody", subject=None)), line(procedure("when", performedDateTime="2025-02-30")),
    line({**procedure("text", "x"), "code": {"text": "Ablation"}}),
    b"", b" ", b"{broken", b'{"resourceType":"Procedure","id":"\xff"}', b"[]",
    line(procedure("two")) + line(procedure("in one")),
    line(procedure("one", "9-999")).replace(b'"status"', b'\n"status"'),
]  # fmt: skip


@settings(max_examples=80)
@given(
    drawn=st.lists(st.lists(st.sampled_from(LINES), max_size=40), min_size=1, max_size=4),
    ends=st.lists(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\r"]), min_size=1, max_size=3),
    last=st.booleans(),
    block=st.integers(16, 3_000),
    head=st.integers(1, 3),
    workers=st.integers(2, 4),
)
def test_wherever_the_input_is_cut_it_comes_to_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[list[bytes]], ends: list[bytes], last: bool, block: int, head: int, workers: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("drawn")
    for number, lines in enumerate(drawn):
        text = b"".join(one + ends[place % len(ends)] for place, one in enumerate(lines))
        (folder / f"{number}.ndjson").write_bytes(text if last else text.rstrip(b"\r\n"))
    with tiny(block, head=head):
        assert outcome(folder, workers=workers) == outcome(folder, workers=1)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(LINES[:-2]), min_size=20, max_size=60), st.integers(16, 700))
def test_how_large_blocks_are_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[bytes], block: int
) -> None:
    path = tmp_path_factory.mktemp("drawn") / "a.ndjson"
    path.write_bytes(b"\n".join(drawn))
    with tiny(block):
        cut = outcome(path, workers=2)
    assert cut == outcome(path, workers=1)


@pytest.mark.parametrize("copies", [1, 8])
def test_the_whole_of_what_is_awkward_in_every_packing(tmp_path: Path, copies: int) -> None:
    text = b"\n".join(LINES * copies)
    (tmp_path / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + text)
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(text))
    (tmp_path / "c.json").write_bytes(line(bundle(*[procedure(f"c{n}", patient=f"c{n}") for n in range(30)])))
    (tmp_path / "d.ndjson").write_bytes(b"")
    (tmp_path / "e.xml").write_bytes(b"<Procedure/>")
    (tmp_path / "f.json").write_bytes(b"{broken\n" + text)
    (tmp_path / "g.ndjson").write_bytes(text.replace(b"\n", b"\r\n"))
    (tmp_path / "h.ndjson.gz").write_bytes(gzip.compress(text)[:-9])
    (tmp_path / "i.json").write_bytes(line(procedure("i", patient="i")))
    with tiny(500):
        one = outcome(tmp_path, workers=1)
        assert outcome(tmp_path, workers=2) == one
        assert outcome(tmp_path, workers=3, tz="Pacific/Auckland") == outcome(
            tmp_path, workers=1, tz="Pacific/Auckland"
        )
    assert one["told"] == [str(path) for path in sorted(tmp_path.iterdir())]


def test_a_file_that_cannot_be_read_on_ends_there_for_all_processes(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\n".join(line(procedure(f"p{n}", patient=str(n))) for n in range(40)))

    def failing(data: bytes, position: str, fallback_id: str = "") -> Any:
        if b'"p20"' in data:
            raise OSError(5, "Input/output error")
        return decode_resource(data, position, fallback_id)

    with tiny(300) as patch:
        patch.setattr(files, "decode_resource", failing)
        one = outcome(path, workers=1)
        assert outcome(path, workers=3) == one
    assert 10 < len(one["lines"]) < 30  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small hospital's export: by type, one type in two files of which some Procedures stand in both, one gzipped."""
    folder = tmp_path_factory.mktemp("hospital")
    made = build_hospital(3, patients=60, procedures=400, years=(2025, 2025))
    for kind, resources in made.resources.items():
        lines = [line(one) if isinstance(one, dict) else bytes(one) for one in resources]
        (folder / f"{kind}.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    procedures = (folder / "Procedure.ndjson").read_bytes().splitlines(keepends=True)
    (folder / "Procedure.ndjson").write_bytes(b"".join(procedures[:300]) + b"{broken\n")
    (folder / "Procedure-again.ndjson.gz").write_bytes(gzip.compress(b"".join(procedures[200:])))
    return folder


@pytest.mark.parametrize("workers", [2, 3])
def test_a_hospital_over_processes(hospital: Path, workers: int) -> None:
    one = outcome(hospital, workers=1, tz="Europe/Berlin")
    with tiny(1 << 14, inline=False):
        assert outcome(hospital, workers=workers, tz="Europe/Berlin") == one
    assert one["volume"].counted > 20  # type: ignore[attr-defined]


def test_a_hospital_over_processes_that_start_anew(hospital: Path) -> None:
    one = outcome(hospital, workers=1)
    with tiny(1 << 14, inline=False) as patch:
        patch.setattr(pool, "_method", lambda: "spawn")
        counted = count_files(find_inputs([str(hospital)]), rules(), YEAR, workers=2)
    assert (counted.volume, said(counted.scan)) == (one["volume"], one["counted"])


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are absent")
@pytest.mark.parametrize("name", ["synthea-bulk-10", "mii-kds-testdata", "fhir-test-cases"])
def test_public_data_in_parts(name: str) -> None:
    one = outcome(DATA / name, workers=1)
    with tiny(1 << 13):
        assert outcome(DATA / name, workers=2) == one


def test_runs_and_keys_that_go_to_disk_many_times(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = outcome(hospital, workers=1)
    monkeypatch.setattr("io_fhir_adapter.engine.distinct._HELD", 50)
    monkeypatch.setattr("io_fhir_adapter.engine.spool.MOST_RUNS", 3)
    monkeypatch.setattr("io_fhir_adapter.engine.parallel.MOST_RUNS", 3)
    monkeypatch.setattr("io_fhir_adapter.engine.spool.Spool.__init__.__defaults__", (7, None))
    assert outcome(hospital, workers=1) == one
    with tiny(1 << 14):
        assert outcome(hospital, workers=2) == one


def test_the_commands_say_the_same_with_and_without_processes(
    hospital: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def told(workers: int) -> list[tuple[int, str, str]]:
        found = []
        for command in (["classify", str(hospital)], ["count", str(hospital), "--period", "2025"]):
            code = run([*command, "--workers", str(workers)])
            found.append((code, *capfd.readouterr()))
        return found

    with tiny(1 << 14, inline=False):
        assert told(2) == told(1)
    assert run(["count", str(hospital), "--period", "2025", "--workers", "0"]) == 2


def test_a_little_input_starts_no_process(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.Pool, "__enter__", lambda *_: pytest.fail("a process was started"))
    assert count_files(find_inputs([str(hospital)]), rules(), YEAR, workers=8).volume.counted


def _dies(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def _fails(task: int) -> int:
    if task == 3:
        raise InputError("made to fail", number=2)
    raise OSError(28, "No space left on device")


def _makes(do: Callable[[int], int]) -> Callable[[], Callable[[int], int]]:
    return lambda: do


def _alive(found: pool.Pool[int, int]) -> bool:
    return any(worker.process.is_alive() for worker in found._workers)


def test_results_come_in_the_order_of_the_tasks() -> None:
    with tiny(inline=False), pool.Pool[int, int](3, _makes(lambda task: task * task)) as workers:
        assert list(workers.run(range(50))) == [task * task for task in range(50)]
        assert list(workers.run([7])) == [49]
        assert list(workers.run([])) == []
        assert _alive(workers)
    assert not _alive(workers)


def test_a_killed_worker_is_an_error_and_no_smaller_number() -> None:
    with tiny(inline=False), pool.Pool[int, int](2, _makes(_dies)) as workers:
        with pytest.raises(InputError, match="ended before it was done") as caught:
            list(workers.run(range(8)))
        assert caught.value.code == "IOA-INP-011"
        assert caught.value.transient


def test_an_interruption_ends_all_workers() -> None:
    started: list[int] = []

    def interrupted() -> None:
        with tiny(inline=False) as patch, pool.Pool[int, int](3, _makes(abs)) as workers:
            started.extend(os.pidfd_open(worker.process.pid or 0) for worker in workers._workers)
            patch.setattr(pool, "wait", Mock(side_effect=KeyboardInterrupt))
            list(workers.run(range(9)))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(started) == 3
    for one in started:
        with os.fdopen(one), pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(one, signal.SIGTERM)


def test_workers_end_when_who_started_them_is_killed() -> None:
    ended, held_open = os.pipe()
    starter = os.fork()
    if not starter:
        try:
            with tiny(inline=False), pool.Pool[int, int](3, _makes(abs)):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(held_open)  # the workers have it too
    assert os.waitstatus_to_exitcode(os.waitpid(starter, 0)[1]) == -signal.SIGKILL
    with os.fdopen(ended, "rb") as pipe:
        assert pipe.read() == b""  # comes to its end once the last of them has ended


@pytest.mark.parametrize(("task", "error"), [(3, InputError), (4, OSError)])
def test_what_a_worker_meets_is_raised_where_it_was_asked_for(task: int, error: type[Exception]) -> None:
    with tiny(inline=False), pool.Pool[int, int](2, _makes(_fails)) as workers, pytest.raises(error) as caught:
        list(workers.run([task]))
    if isinstance(caught.value, AdapterError):
        assert caught.value.sentence == InputError("made to fail", number=2).sentence


def test_the_command_says_one_sentence_when_a_worker_is_killed(
    hospital: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tiny(1 << 14, inline=False) as patch:
        patch.setattr("io_fhir_adapter.engine.worker.Worker._scan", lambda *_: _dies(3))
        code = run(["count", str(hospital), "--period", "2025", "--workers", "2"])
    shown = capfd.readouterr()
    assert (code, shown.out) == (1, "")
    assert len(shown.err.splitlines()) == 1
    assert "[IOA-INP-011]" in shown.err


def test_cores_are_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(pool, "_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert pool.usable_cores() == 6
    for text, cores in [("max 100000\n", 6), ("250000 100000\n", 3), ("5000 100000\n", 1), ("900000 100000\n", 6)]:
        quota.write_text(text)
        assert pool.usable_cores() == cores
