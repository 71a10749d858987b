"""A Spark session for one command: what has to be there, what is set, and that it is quiet."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from py4j.protocol import Py4JError
from pyspark import SparkConf
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.sql import SparkSession

from io_fhir_adapter.errors import TransportError, UsageError

__all__ = ["spark_session"]

_APP: Final = "io-fhir-adapter"
_QUIET: Final = Path(__file__).with_name("log4j2.properties")
_DEFAULTS: Final = {
    "spark.app.name": _APP,
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",  # a megabyte or so, which a processor's cache still holds
    "spark.sql.session.timeZone": "UTC",
}
_LOCAL_DEFAULTS: Final = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "32",  # Spark's own 200 are for many machines
}
_SECONDS: Final = 5.0
_PYTHON: Final = "spark.pyspark.python"


@contextmanager
def spark_session(master: str | None, settings: Mapping[str, str]) -> Iterator[SparkSession]:
    """A session, which ends with the context; one that this process has already is taken as it is, and goes on.

    Args:
        master: Such as ``local[2]``, ``spark://host:7077``, ``yarn`` or ``k8s://…``; None for that of Spark's own
            configuration (``SPARK_CONF_DIR``), else all cores of this machine.
        settings: More of Spark's settings; they go before all that is set here.

    Raises:
        UsageError: There is no Java, or Spark does not know such a master.
        TransportError: The master cannot be reached.
    """
    there = SparkSession.getActiveSession()
    if there is not None:
        yield there
        return
    conf = _configured(master, settings)
    where = conf.get("spark.master") or ""
    _look(where)
    if local := where.startswith("local"):
        conf.setIfMissing(_PYTHON, sys.executable)
    python = conf.get(_PYTHON)
    kept = os.environ.get("PYSPARK_PYTHON")
    if python and (kept is None or not local):
        os.environ["PYSPARK_PYTHON"] = python  # which is all that a session made in Python looks at
    try:
        spark = SparkSession.builder.config(conf=conf).getOrCreate()
    except (PySparkException, Py4JError, OSError) as exc:
        raise _not_started(exc, where) from None
    finally:
        _put_back(kept)
    try:
        yield spark
    finally:
        spark.stop()


def _put_back(python: str | None) -> None:
    if python is None:
        os.environ.pop("PYSPARK_PYTHON", None)
    else:
        os.environ["PYSPARK_PYTHON"] = python


def _configured(master: str | None, settings: Mapping[str, str]) -> SparkConf:
    conf = SparkConf(loadDefaults=False)
    for name, value in settings.items():
        conf.set(name, value)
    if master is not None:
        conf.setMaster(master)
    elif not conf.contains("spark.master") and "SPARK_CONF_DIR" not in os.environ and "MASTER" not in os.environ:
        conf.setMaster("local[*]")
    defaults = dict(_DEFAULTS)
    if (conf.get("spark.master") or "").startswith("local"):
        defaults |= _LOCAL_DEFAULTS
    for name, value in defaults.items():
        conf.setIfMissing(name, value)
    options = conf.get("spark.driver.extraJavaOptions") or ""
    if "log4j" not in options:
        conf.set("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={_QUIET.as_uri()} {options}".strip())
    return conf


def _look(master: str) -> None:
    """Whether what a session needs is there: found out at once instead of after minutes of waiting."""
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=str(Path(home) / "bin") if home else None) is None:
        raise UsageError(
            "there is no Java, which Spark runs on", do="install Java 17 or newer, or set JAVA_HOME", number=43
        )
    for address in master.removeprefix("spark://").split(",") if master.startswith("spark://") else ():
        place = urlsplit(f"spark://{address}")
        try:
            socket.create_connection((place.hostname or "", place.port or 7077), _SECONDS).close()
        except (OSError, ValueError):
            continue
        return
    if master.startswith("spark://"):
        raise TransportError(
            "the Spark master cannot be reached", where=master, do="check --master, and that it runs", number=30
        )


def _not_started(exc: Exception, master: str) -> UsageError | TransportError:
    if "Could not parse Master URL" in str(exc) or "MASTER_URL" in str(exc):
        return UsageError(
            "Spark knows no such master", where=master, do="write it as in --master spark://host:7077", number=44
        )
    if isinstance(exc, PySparkRuntimeError):
        return UsageError(
            "Java did not start Spark", where=master, do="check that Java is version 17 or newer", number=45
        )
    return TransportError(
        "Spark did not start", where=master, do="check --master and Spark's own configuration", number=31
    )
