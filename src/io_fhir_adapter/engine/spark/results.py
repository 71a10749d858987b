"""Results as Parquet: the decisions, and everything that could not be used."""

from __future__ import annotations

from typing import Final

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - its name everywhere

from io_fhir_adapter.engine.spark.failures import spark_failures
from io_fhir_adapter.engine.spark.inputs import exists
from io_fhir_adapter.engine.spark.job import Outcome
from io_fhir_adapter.engine.spark.rows import ASIDE, DECISION, QUARANTINE
from io_fhir_adapter.errors import UsageError

__all__ = ["DECISIONS", "QUARANTINED", "check_free", "write_results"]

DECISIONS, QUARANTINED = "decisions", "quarantine"
_DECISION: Final = (
    "source string, patient string, date string, category string, decision string, reason string, "
    "findings array<struct<technique string, site string, approach string, agent string, system string, code string, "
    "rule string>>, indication struct<level string, system string, code string>, procedures array<string>, "
    "categories array<string>"
)
_QUARANTINED: Final = "name string, tail string, type string, why string"
_ASIDE: Final = "position string, resource_type string, reason string"


def check_free(spark: SparkSession, folder: str) -> None:
    """Makes sure that nothing lies where results are to go.

    Raises:
        UsageError: Something does.
    """
    with spark_failures():
        for name in (DECISIONS, QUARANTINED):
            if exists(spark, f"{folder}/{name}"):
                raise UsageError(
                    "a result lies there already", where=f"{folder}/{name}", do="name another folder with --out",
                    number=46,
                )  # fmt: skip


def write_results(outcome: Outcome, folder: str) -> None:
    """Writes ``decisions`` and ``quarantine`` into a folder, which may be any Hadoop path.

    Raises:
        InputError: They cannot be written.
    """
    with spark_failures():
        decisions(outcome).write.parquet(f"{folder}/{DECISIONS}")
        quarantine(outcome).write.parquet(f"{folder}/{QUARANTINED}")


def decisions(outcome: Outcome) -> DataFrame:
    """The decisions, with the elements of the JSON lines as columns."""
    rows = outcome.decided.where(F.col("kind") == DECISION)
    line = F.from_json(F.col("payload").cast("string"), _DECISION, {"mode": "FAILFAST"})
    return rows.select(line.alias("one")).select("one.*")


def quarantine(outcome: Outcome) -> DataFrame:
    """What could not be used: file and line as far as there are such, position, type of resource, reason."""
    one = F.from_json(F.col("payload").cast("string"), _QUARANTINED, {"mode": "FAILFAST"})
    before = outcome.read.sparkSession.createDataFrame(outcome.before, "file int, start bigint, before bigint")
    rows = outcome.read.where(F.col("kind") == QUARANTINE).join(before, ["file", "start"])
    line = F.col("number") + F.col("before")
    read = rows.select(line.alias("line"), one.alias("one")).select(
        F.col("one.name").alias("file"),
        "line",
        F.when(F.col("line").isNull(), F.concat("one.name", "one.tail"))
        .otherwise(F.concat("one.name", F.lit(":"), F.col("line").cast("string"), F.col("one.tail")))
        .alias("position"),
        F.col("one.type").alias("resource_type"),
        F.col("one.why").alias("reason"),
    )
    aside = F.from_json(F.col("payload").cast("string"), _ASIDE, {"mode": "FAILFAST"})
    decided = outcome.decided.where(F.col("kind") == ASIDE).select(aside.alias("one"))
    return read.unionByName(
        decided.select(
            F.lit(None).cast("string").alias("file"), F.lit(None).cast("bigint").alias("line"),
            "one.position", "one.resource_type", "one.reason",
        )
    )  # fmt: skip
