"""On Spark it comes to what the local engine makes of the same input, decision by decision. Synthetic data."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark")
pytest.importorskip("pyarrow")
if shutil.which("java") is None:
    pytest.skip("java is not installed", allow_module_level=True)

from pyspark.sql import SparkSession
from tests.engine.test_parallel import DATA, LINES, bundle, hospital, line, procedure, rules, said  # noqa: F401

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.engine.local import classify_files
from io_fhir_adapter.engine.spark.job import decided_on_spark
from io_fhir_adapter.engine.spark.session import spark_session
from io_fhir_adapter.pull.files import find_inputs

pytestmark = [
    pytest.mark.interop,
    pytest.mark.xdist_group("spark"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

QUICK = {  # a little data does not pay for compiling, and is to be cut all the same
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.files.maxPartitionBytes": "90000",
    "spark.sql.files.openCostInBytes": "0",
    "spark.sql.shuffle.partitions": "2",
}
ON_SPARK = ["--engine", "spark"]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with spark_session("local[2]", QUICK) as session:
        yield session


@pytest.fixture(scope="module")
def export(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The small hospital, and beside it everything that is awkward."""
    folder = tmp_path_factory.mktemp("export") / "a hospital's [export]"
    kept = ("Procedure", "Patient", "Condition", "Encounter", "Organization")
    shutil.copytree(hospital, folder, ignore=lambda _, names: [one for one in names if not one.startswith(kept)])
    text = b"\n".join(LINES * 2)
    (folder / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + text)
    (folder / "b b.ndjson.gz").write_bytes(gzip.compress(text))
    (folder / "c.json").write_bytes(line(bundle(*[procedure(f"c{n}", patient=f"c{n}") for n in range(30)])))
    (folder / "d.ndjson").write_bytes(b"")
    (folder / "e.xml").write_bytes(b"<Procedure/>")
    (folder / "below").mkdir()
    (folder / "below" / "f.ndjson").write_bytes(text.replace(b"\n", b"\r\n"))
    (folder / "below" / ".hidden.ndjson").write_bytes(text)
    return folder


def told(capfdbinary: pytest.CaptureFixture[bytes], *command: str) -> tuple[int, bytes, bytes]:
    capfdbinary.readouterr()
    return run(list(command)), *capfdbinary.readouterr()


def test_classify_prints_the_same_lines_and_writes_them(
    spark: SparkSession, export: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    result = f"{tmp_path}/result"
    local = told(capfdbinary, "classify", str(export), "--json")
    found = told(capfdbinary, "classify", str(export), "--json", *ON_SPARK, "--out", result)
    assert found[:2] == local[:2]
    assert found[2] == f"written      {result}\n".encode() + local[2]
    lines = [json.loads(one) for one in local[1].splitlines()]
    decisions = [row.asDict(recursive=True) for row in spark.read.parquet(f"{result}/decisions").collect()]
    assert sorted(decisions, key=json.dumps) == sorted(lines, key=json.dumps)
    with classify_files(find_inputs([str(export)]), rules()) as (scan, made):
        assert len(list(made)) == len(lines)
    quarantine = spark.read.parquet(f"{result}/quarantine").collect()
    told_of = sorted((row.position, row.resource_type, row.reason) for row in quarantine)
    assert told_of == sorted((one.position, one.resource_type, one.reason) for one in scan.quarantined)
    assert len([row for row in quarantine if row.file and not row.line]) == 0
    assert all(row.position.startswith(f"{row.file}:{row.line}") for row in quarantine if row.file)
    again = told(capfdbinary, "classify", str(export), *ON_SPARK, "--out", result)
    assert again[0] == 2
    assert b"[IOA-USE-046]" in again[2]


def test_count_makes_the_same_measure_report(
    spark: SparkSession, export: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def made(*more: str) -> tuple[int, dict[str, Any], bytes]:
        code, text, err = told(capfdbinary, "count", str(export), "--period", "2025", "--json", *more)
        return code, {**json.loads(text), "date": ""}, err

    local = made()
    assert made(*ON_SPARK) == local
    assert local[1]["resourceType"] == "MeasureReport"


def test_files_cut_at_random(spark: SparkSession, tmp_path: Path) -> None:
    rng = random.Random(5)
    for example in range(2):
        folder = tmp_path / str(example)
        folder.mkdir()
        changed = [
            [line(procedure(f"twice-{number}", "9-999", status=status)) for number in range(8)]
            for status in ("completed", "not-done")
        ]
        lines = [*changed[example], *rng.choices(LINES, k=80), *changed[1 - example]]
        cuts = sorted(rng.sample(range(8, 88), 3))
        for number, (first, last) in enumerate(zip([0, *cuts], [*cuts, 96], strict=True)):
            (folder / f"{number}.ndjson").write_bytes(b"\n".join(lines[first:last]))
        with classify_files(find_inputs([str(folder)]), rules()) as (scan, decisions):
            wanted = [one.procedures for one in decisions]
        with decided_on_spark(spark, [f"{folder}/*.ndjson"], rules()) as outcome:
            assert [tuple(json.loads(one)["procedures"]) for one in outcome.lines()] == wanted
            assert said(outcome.scan) == said(scan)


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are absent")
def test_public_data(spark: SparkSession, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    command = ["classify", str(DATA / "synthea-bulk-10")]
    local = told(capfdbinary, *command)
    assert told(capfdbinary, *command, *ON_SPARK) == local
    assert local[1]


def test_what_cannot_be_read_is_one_sentence_and_no_smaller_number(
    spark: SparkSession, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "a.ndjson").write_bytes(line(procedure("p")))
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(line(procedure("Mrs-Synthetic")) * 50)[:-9])
    (tmp_path / "_c.ndjson").write_bytes(line(procedure("p")))
    (tmp_path / "none").mkdir()
    for path, number in [
        (tmp_path / "b.ndjson.gz", "IOA-INP-032"),
        (tmp_path / "_c.ndjson", "IOA-INP-036"),
        (tmp_path / "none", "IOA-INP-001"),
        (tmp_path / "nowhere", "IOA-INP-001"),
        ("s3a://synthetic/a.ndjson", "IOA-INP-033"),
        ("-", "IOA-USE-040"),
    ]:
        code, shown, error = told(capfdbinary, "count", str(path), "--period", "2025", *ON_SPARK)
        assert (code, shown, error.count(b"\n")) == (2 if "USE" in number else 1, b"", 1), error
        assert number.encode() in error, error
        assert b"Mrs-Synthetic" not in error


@pytest.mark.parametrize(
    ("options", "number"),
    [
        (["--engine", "sparc"], "IOA-USE-002"),
        (["--master", "local[2]"], "IOA-USE-047"),
        ([*ON_SPARK, "--spark-conf", "executor.memory=4g"], "IOA-USE-049"),
    ],
)
def test_options_that_do_not_fit(options: list[str], number: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["count", "x", "--period", "2025", *options]) == 2
    assert number in capfd.readouterr().err


def test_what_is_lacking_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def said_of(*more: str) -> str:
        assert run(["count", str(tmp_path), "--period", "2025", *ON_SPARK, *more]) in {1, 2}
        return capfd.readouterr().err

    monkeypatch.setattr("pyspark.sql.SparkSession.getActiveSession", lambda: None)
    assert "spark://127.0.0.1:1: the Spark master cannot be reached" in said_of("--master", "spark://127.0.0.1:1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "there is no Java" in said_of("--master", "local[1]")
    monkeypatch.setattr("io_fhir_adapter.cli.on_spark.find_spec", lambda name: None if name == "pyspark" else name)
    assert "Spark needs pyspark; install it with pip install 'io-fhir-adapter[spark]'" in said_of()
