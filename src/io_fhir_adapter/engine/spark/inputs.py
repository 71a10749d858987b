"""What there is to read, as Spark sees it: any Hadoop path, in the order and under the names of the local engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - its name everywhere

from io_fhir_adapter.errors import InputError, UsageError
from io_fhir_adapter.pull.files import NDJSON, READABLE, suffix_of

__all__ = ["Found", "documents", "exists", "find_inputs", "lines"]

_STDIN: Final = "-"
_GLOB: Final = "*?[{"
_STRICT: Final = {"ignoreCorruptFiles": "false", "ignoreMissingFiles": "false"}
"""Whatever the cluster's defaults are: what cannot be read must never make a count smaller."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file.

    Attributes:
        path: For Spark to read it.
        name: Its name in messages.
        size: In bytes.
    """

    path: str
    name: str
    size: int

    @property
    def is_lines(self) -> bool:
        """Whether it holds a resource a line, and Spark may cut it; anything else is read whole."""
        path = PurePosixPath(self.name)
        return suffix_of(path) in NDJSON and path.suffix != ".gzip"  # which Hadoop does not know


def find_inputs(spark: SparkSession, arguments: Sequence[str]) -> list[Found]:
    """The files behind paths, folders (searched all the way down) and globs, in a stable order.

    Raises:
        InputError: An argument names nothing.
        UsageError: An argument is stdin.
    """
    found: dict[str, Found] = {}
    for argument in arguments:
        if argument == _STDIN:
            raise UsageError(
                "Spark does not read stdin", do="name files, a folder or a glob, or use --engine local", number=40
            )
        for one in _behind(spark, argument):
            found.setdefault(one.path, one)
    return list(found.values())


def exists(spark: SparkSession, path: str) -> bool:
    """Whether there is a file or folder of that Hadoop path."""
    return bool(_filesystem(spark, path).exists(_path(spark, path)))


def lines(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    """The lines of files without their ends, with path and first byte of the split that each stands in."""
    return (
        spark.read.options(lineSep="\n", **_STRICT)
        .text([_literal(path) for path in paths])
        .select(
            F.col("value").alias("line"),
            F.col("_metadata.file_path").alias("path"),
            F.col("_metadata.file_block_start").alias("start"),
        )
    )


def documents(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    """The whole content of files, with their paths."""
    return (
        spark.read.format("binaryFile")
        .options(**_STRICT)
        .load([_literal(path) for path in paths])
        .select("content", F.col("_metadata.file_path").alias("path"))
    )


def _behind(spark: SparkSession, argument: str) -> Iterator[Found]:
    path, filesystem = _path(spark, argument), _filesystem(spark, argument)
    if not filesystem.exists(path):
        matched = filesystem.globStatus(path) if any(sign in argument for sign in _GLOB) else None
        files = sorted((_listed(status) for status in matched or () if status.isFile()), key=_in_order)
        if not files:
            raise InputError("there is no such file or folder", where=argument, do="check the path")
        for one in files:
            yield _seen(one, _name(one.path, argument))
        return
    status = filesystem.getFileStatus(path)
    if status.isFile():
        yield _seen(_listed(status), _plain(argument))
        return
    root = str(status.getPath().toString())
    inside = [
        one
        for one in _all_files(filesystem.listFiles(path, True))
        if not one.name.startswith(".") and suffix_of(PurePosixPath(one.path)) in READABLE
    ]
    if not inside:
        raise InputError(
            "the folder holds no .json or .ndjson file",
            where=argument,
            do="name a folder with FHIR JSON, Bundles or NDJSON",
        )
    for one in sorted(inside, key=_in_order):
        yield _seen(one, f"{_plain(argument).rstrip('/')}/{one.path[len(root) :].lstrip('/')}")


def _listed(status: Any) -> Found:
    path = status.getPath()
    return Found(str(path.toString()), str(path.getName()), int(status.getLen()))


def _all_files(listing: Any) -> Iterator[Found]:
    while listing.hasNext():
        yield _listed(listing.next())


def _in_order(one: Found) -> PurePosixPath:
    return PurePosixPath(one.path)


def _seen(one: Found, name: str) -> Found:
    """The file under its name in messages, where Spark will read it."""
    if one.name.startswith(("_", ".")):
        raise InputError(
            "Spark passes over files whose names begin with _ or a full stop", where=name, do="rename the file",
            number=36,
        )  # fmt: skip
    return replace(one, name=name)


def _plain(argument: str) -> str:
    """An argument as the local engine writes it, where it is a path of that engine's."""
    return argument if urlsplit(argument).scheme else str(Path(argument))


def _name(path: str, pattern: str) -> str:
    """The name of a file that a pattern led to: from the current folder on where the pattern is."""
    if urlsplit(pattern).scheme:
        return path
    plain, here = PurePosixPath(urlsplit(path, allow_fragments=False).path), Path.cwd()
    return str(plain.relative_to(here) if plain.is_relative_to(here) and not pattern.startswith("/") else plain)


def _literal(path: str) -> str:
    """A path that is read as it stands, whatever signs of patterns are in it."""
    return "".join(f"\\{sign}" if sign in "*?[]{}\\" else sign for sign in path)


def _path(spark: SparkSession, path: str) -> Any:
    jvm: Any = spark.sparkContext._jvm
    return jvm.org.apache.hadoop.fs.Path(path)


def _filesystem(spark: SparkSession, path: str) -> Any:
    context: Any = spark.sparkContext
    return _path(spark, path).getFileSystem(context._jsc.hadoopConfiguration())
