"""What Spark raises, in sentences of ours: what, where and what to do, and nothing of what was read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException, PythonException

from io_fhir_adapter.engine.spark.discretion import FAILED
from io_fhir_adapter.errors import AdapterError, InputError, UsageError

__all__ = ["spark_failures"]

_OURS: Final = re.compile(re.escape(FAILED) + r" ([A-Za-z_]+ in [A-Za-z_.]+:[0-9]+)")
_MISSING: Final = re.compile(r"ModuleNotFoundError: No module named '([A-Za-z0-9_.]+)'")
_CLASS: Final = re.compile(r"\b(?:[a-z][a-zA-Z0-9]*\.)+([A-Z][A-Za-z0-9]*(?:Exception|Error))\b")
_UNREADABLE: Final = ("FAILED_READ_FILE", "CANNOT_LOAD_STATE", "FILE_NOT_EXIST")
_FILE: Final = re.compile(r"(?:file|path) ([a-z0-9]+:/[^\s]+?)\.?(?:\s|$)")
_SCHEME: Final = re.compile(r'No FileSystem for scheme "([a-z0-9]+)"|Class (\S+FileSystem\S*) not found')


@contextmanager
def spark_failures() -> Iterator[None]:
    """A context in which what Spark raises becomes an error of ours.

    Raises:
        InputError: An input cannot be read, or work on it failed.
        UsageError: Executors lack what they need.
    """
    try:
        yield
    except (PySparkException, Py4JError) as exc:
        raise _translated(exc) from None  # whose cause may hold what stood in a record


def _translated(exc: PySparkException | Py4JError) -> AdapterError:
    text = str(exc)
    missing = _MISSING.search(text)
    if missing is not None:
        return UsageError(
            f"the executors' Python has no {missing[1]}",
            do="install io-fhir-adapter[spark] there, or send it with spark.archives as the manual says",
            number=41,
        )
    if "PYTHON_VERSION_MISMATCH" in text:
        return UsageError(
            "the executors have another version of Python than this command",
            do="set spark.pyspark.python to one of the same minor version",
            number=42,
        )
    ours = _OURS.search(text)
    if ours is not None:
        return InputError(
            f"work on an executor failed: {ours[1]}", where="Spark", do="report it with this sentence", number=31
        )
    if any(sign in text for sign in _UNREADABLE):
        file = _FILE.search(text)
        return InputError(
            "an input cannot be read to its end",
            where=file[1] if file is not None else "Spark",
            do="fetch the file again; nothing was counted",
            number=32,
        )
    scheme = _SCHEME.search(text)
    if scheme is not None:
        return InputError(
            f"Spark has no way to read {scheme[1] or scheme[2]}",
            do="add the file system's package, such as --spark-conf spark.jars.packages=…",
            number=33,
        )
    return InputError(
        f"Spark gave up ({_kind(exc, text)})",
        where="Spark",
        do="see the logs of the executors",
        number=34,
    )


def _kind(exc: PySparkException | Py4JError, text: str) -> str:
    """Of which kind it is: Spark's name for it, else that of the innermost Java error; never its text."""
    condition = exc.getCondition() if isinstance(exc, AnalysisException | PythonException | PySparkException) else None
    named = _CLASS.findall(text)
    return condition or (named[-1] if named else type(exc).__name__)
