"""What ``--engine spark`` does; Spark itself is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.cli.console import err
from io_fhir_adapter.engine.local import Counted
from io_fhir_adapter.engine.scan import Scan
from io_fhir_adapter.engine.terms import ALL_TIME
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.volume.count import Period

if TYPE_CHECKING:
    from io_fhir_adapter.engine.spark.job import Outcome

__all__ = ["Cluster", "asked_for"]

_NEEDED: Final = ("pyspark", "pyarrow", "pandas")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Spark runs, and where its results go.

    Attributes:
        master: As in ``--master``; None for that of Spark's own configuration.
        settings: Spark's settings.
        out: Folder for results in Parquet, or None.
    """

    master: str | None
    settings: Mapping[str, str]
    out: str | None

    @contextmanager
    def classified(
        self, paths: Sequence[str], rules: Ruleset, tz: tzinfo | None, *, lines: bool
    ) -> Iterator[tuple[Scan, Iterable[bytes]]]:
        """What was read, and one line for every decision; none where they go to a folder and are not asked for."""
        with self._outcome(paths, rules, tz, ALL_TIME, everything=True) as outcome:
            yield outcome.scan, outcome.lines() if lines or self.out is None else ()

    def counted(self, paths: Sequence[str], rules: Ruleset, period: Period, tz: tzinfo | None) -> Counted:
        """The volume of the period."""
        from io_fhir_adapter.engine.spark.job import count_on_spark  # noqa: PLC0415 - Spark, when it is asked for

        with self._outcome(paths, rules, tz, period, everything=False) as outcome:
            return count_on_spark(outcome, rules, period)

    @contextmanager
    def _outcome(
        self, paths: Sequence[str], rules: Ruleset, tz: tzinfo | None, period: Period, *, everything: bool
    ) -> Iterator[Outcome]:
        from io_fhir_adapter.engine.spark.job import decided_on_spark  # noqa: PLC0415 - Spark, when it is asked for
        from io_fhir_adapter.engine.spark.results import check_free, write_results  # noqa: PLC0415 - as above
        from io_fhir_adapter.engine.spark.session import spark_session  # noqa: PLC0415 - as above

        with spark_session(self.master, self.settings) as spark:
            if self.out is not None:
                check_free(spark, self.out)
            with decided_on_spark(spark, paths, rules, period=period, everything=everything, tz=tz) as outcome:
                if self.out is not None:
                    write_results(outcome, self.out)
                    err.print(f"written      {self.out}")
                yield outcome


def asked_for(engine: str, master: str | None, settings: Sequence[str] | None, out: str | None) -> Cluster | None:
    """The cluster that the options of a command ask for; None for the local engine.

    Raises:
        UsageError: There is no such engine, Spark is not installed, or an option does not fit.
    """
    if engine == "local":
        if master is not None or settings or out is not None:
            raise UsageError(
                "--master, --out and --spark-conf are for Spark", do="add --engine spark, or leave them out", number=47
            )
        return None
    if engine != "spark":
        raise UsageError(f"there is no engine {engine!r}", do="use --engine local or --engine spark", number=2)
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        raise UsageError(
            f"Spark needs {' and '.join(lacking)}", do="install it with pip install 'io-fhir-adapter[spark]'", number=48
        )
    return Cluster(master, dict(_setting(text) for text in settings or ()), out.rstrip("/") if out else None)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("spark."):
        raise UsageError(
            "this is no setting of Spark", where=name, do="write it as spark.executor.memory=4g", number=49
        )
    return name, value
