"""A Spark cluster whose executors have what Spark needs in Python and nothing of ours, which is sent as an archive.

A cluster on this machine (``local-cluster``): a master, two workers, and executors in processes of their own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.engine.test_parallel import LINES, hospital  # noqa: F401 - a fixture

from io_fhir_adapter.cli.main import run

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore::ResourceWarning")]

ROOT = Path(__file__).resolve().parents[2]
OF_SPARK = ("pyspark", "py4j", "pyarrow", "pandas", "numpy", "numpy.libs", "pandas.libs", "dateutil", "pytz", "six.py")
MODULES = """
import sys
import io_fhir_adapter.engine.spark.deciding
places = [getattr(module, "__file__", None) or "" for name, module in sys.modules.items() if "." not in name]
print("\\n".join(place for place in places if "site-packages" in place))
"""
# in a process of its own: one that has run Spark before keeps its Java, with the home that it had then
COMMAND = """
import os, sys
from io_fhir_adapter.cli.main import run
code = run(sys.argv[1:])
assert "PYSPARK_PYTHON" not in os.environ
sys.exit(code)
"""


def _ours(folder: Path) -> Path:
    """The package, its data and what it is made of, as ``pip install --target`` lays them down, in an archive."""
    shutil.copytree(
        ROOT / "src" / "io_fhir_adapter", folder / "io_fhir_adapter", ignore=shutil.ignore_patterns("assets")
    )
    for name in ("mappings", "config"):
        shutil.copytree(ROOT / name, folder / "io_fhir_adapter" / "_data" / name)
    told = subprocess.run([sys.executable, "-c", MODULES], check=True, capture_output=True, text=True).stdout
    for place in map(Path, told.split()):
        whole = place.parent if place.name == "__init__.py" else place
        if whole.name not in OF_SPARK:
            (folder / whole.name).symlink_to(whole)
    (known,) = (place for place in importlib.metadata.files("io-fhir-adapter") or () if place.name == "METADATA")
    named = Path(str(known.locate())).parent
    (folder / named.name).symlink_to(named)
    archive = folder.parent / "adapter.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1, dereference=True) as packed:
        packed.add(folder, ".")
    return archive


def _python_of_spark(folder: Path) -> Path:
    """An interpreter that has what Spark needs in Python, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (there,) = folder.glob("lib/python*/site-packages")
    (here,) = {Path(path) for path in sys.path if path.endswith("site-packages")}
    for name in OF_SPARK:
        if (here / name).exists():
            (there / name).symlink_to(here / name)
    return folder / "bin" / "python"


def _home(folder: Path) -> None:
    """A home of Spark in which executors can leave their logs."""
    import pyspark  # noqa: PLC0415 - which may be missing

    folder.mkdir()
    for inside in Path(pyspark.__file__).parent.iterdir():
        (folder / inside.name).symlink_to(inside)


def test_executors_get_the_package_with_the_job_and_log_nothing_of_a_patient(
    hospital: Path,  # noqa: F811
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("java is not installed")
    (hospital / "awkward.ndjson").write_bytes(b"\n".join(LINES))
    command = ["count", str(hospital), "--period", "2025", "--json"]
    assert run(command) == 1  # broken lines
    local = capfdbinary.readouterr()
    _home(tmp_path / "home")
    here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = {
        "spark.archives": f"{_ours(tmp_path / 'adapter')}#adapter",
        "spark.executorEnv.PYTHONPATH": "./adapter",
        "spark.pyspark.python": str(_python_of_spark(tmp_path / "python")),
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    given = [part for name, value in settings.items() for part in ("--spark-conf", f"{name}={value}")]
    found = subprocess.run(
        [sys.executable, "-c", COMMAND, *command, "--engine", "spark", "--master", "local-cluster[2,1,1024]", *given],
        capture_output=True, check=False, env={**here, "SPARK_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert (found.returncode, found.stdout != b"") == (1, True), found.stderr
    assert {**json.loads(found.stdout), "date": ""} == {**json.loads(local.out), "date": ""}
    logs = [path.read_text(encoding="utf-8", errors="replace") for path in (tmp_path / "home" / "work").rglob("std*")]
    assert any(logs)
    for patient in ("pat-0", "nobody", "synthetisch"):
        assert not any(patient in log for log in [*logs, found.stderr.decode()])
