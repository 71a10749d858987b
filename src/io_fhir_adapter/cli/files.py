"""Stateless commands on files: classify and count."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset, rules_for
from io_fhir_adapter.cli.console import err, out, show_volume, told_progress
from io_fhir_adapter.cli.on_spark import asked_for
from io_fhir_adapter.config import Config, load_config
from io_fhir_adapter.engine.local import classify_lines, count_files
from io_fhir_adapter.engine.pool import usable_cores
from io_fhir_adapter.engine.scan import Advance, Scan
from io_fhir_adapter.errors import InputError, UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.volume.count import Period, Volume

__all__ = ["register"]

_UNMAPPED_SHOWN = 10
_QUARANTINED_SHOWN = 10
_WITHOUT_FACILITY = "unregistered"

Paths = Annotated[
    list[str] | None,
    typer.Argument(help="Files, folders or globs with FHIR JSON, Bundles or NDJSON (.gz too); - reads stdin."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration: time zone, programme, tables.")
]
ProgrammeOption = Annotated[str | None, typer.Option(help="Programme id or file; default iasios.")]
EngineOption = Annotated[str, typer.Option(help="Engine that does the work: local or spark.")]
MasterOption = Annotated[
    str | None, typer.Option(help="Spark: the cluster, such as local[2], spark://host:7077, yarn or k8s://….")
]
OutOption = Annotated[
    str | None,
    typer.Option("--out", help="Spark: folder for decisions and quarantine in Parquet, any Hadoop path."),
]
SparkConfOption = Annotated[
    list[str] | None, typer.Option(help="Spark: a setting, KEY=VALUE; may be given several times.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes that share the work; default: as many as cores may be used. Small input needs one."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: io-fhir-adapter classify export/ --json > decisions.ndjson")(classify)
    app.command(epilog="Example: io-fhir-adapter count export/ --period 2025")(count)


def _rules(config: Config | None, programme: str | None) -> Ruleset:
    if config is None:
        return load_ruleset(programme or "iasios")
    return rules_for(config if programme is None else config.model_copy(update={"programme": programme}))


@contextmanager
def _progress(*, shown: bool = True) -> Iterator[Advance | None]:
    """Progress bars, where somebody looks on and they do not stand among the lines of the result."""
    if not (shown and err.is_terminal):
        yield None
        return
    with told_progress() as told:
        yield told


def classify(
    paths: Paths = None,
    config: ConfigOption = None,
    programme: ProgrammeOption = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    master: MasterOption = None,
    out_folder: OutOption = None,
    spark_conf: SparkConfOption = None,
    as_json: JsonOption = False,
) -> int:
    """Decide on every session in files: one JSON line each, in a stable order.

    What was read, set aside and not understood is said on stderr (not with --json). With --out the decisions go there,
    and are printed with --json only.
    """
    cluster = asked_for(engine, master, spark_conf, out_folder)
    if not paths:
        raise UsageError("no input is named", do="name files, a folder, a glob, or - for stdin", number=4)
    settings = load_config(config) if config is not None else None
    rules = _rules(settings, programme)
    tz = zone(settings.facility.time_zone) if settings is not None else None
    with (
        _progress(shown=cluster is None and not sys.stdout.isatty()) as told,
        classify_lines(find_inputs(paths), rules, tz=tz, advance=told, workers=workers or usable_cores())
        if cluster is None
        else cluster.classified(paths, rules, tz, lines=as_json) as (scan, lines),
    ):
        stdout = typer.get_binary_stream("stdout")
        for line in lines:
            stdout.write(line)
        stdout.flush()
    if not as_json:
        _say_scan(scan)
    return _say_damage(scan)


def count(
    paths: Paths = None,
    config: ConfigOption = None,
    period: Annotated[str | None, typer.Option(help="Year to count, such as 2025.")] = None,
    programme: ProgrammeOption = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    master: MasterOption = None,
    out_folder: OutOption = None,
    spark_conf: SparkConfOption = None,
    as_json: JsonOption = False,
) -> int:
    """Count a year's volume: from files, or from the ledger with --config alone. --json prints a MeasureReport."""
    cluster = asked_for(engine, master, spark_conf, out_folder)
    settings = load_config(config) if config is not None else None
    rules = _rules(settings, programme)
    scan: Scan | None = None
    if paths:
        if period is None:
            raise UsageError("no period is named", do="add --period with a year, such as --period 2025", number=4)
        year = Period.year(period)
        tz = zone(settings.facility.time_zone) if settings is not None else None
        if cluster is not None:
            counted = cluster.counted(paths, rules, year, tz)
        else:
            with _progress() as told:
                counted = count_files(
                    find_inputs(paths), rules, year, tz=tz, advance=told, workers=workers or usable_cores()
                )
        volume, scan = counted.volume, counted.scan
    elif settings is not None and cluster is None:
        from io_fhir_adapter.cli.counting import count_kept  # noqa: PLC0415 - the database, which files do without

        volume = count_kept(settings, rules, period)
    else:
        raise UsageError("nothing to count", do="name files, or a configuration with --config", number=4)
    if as_json:
        typer.echo(json.dumps(_report(volume, rules, settings), indent=2))
    else:
        show_volume(volume, f"Volume {volume.period.label}")
        _show_categories(volume, rules)
        if scan is not None:
            _say_scan(scan)
    return _say_damage(scan) if scan is not None else 0


def _report(volume: Volume, rules: Ruleset, settings: Config | None) -> dict[str, object]:
    from io_fhir_adapter.volume.measure import build_measure_report  # noqa: PLC0415 - the FHIR models, for --json alone

    facility = settings.facility if settings is not None else None
    return build_measure_report(
        volume,
        programme_id=rules.programme.id,
        facility_code=facility.code if facility is not None else _WITHOUT_FACILITY,
        facility_name=(facility.name or facility.code) if facility is not None else "Facility not named",
        time_zone=facility.time_zone if facility is not None else "UTC",
        produced=datetime.now(UTC),
        ruleset_digest=rules.digest,
    )


def _show_categories(volume: Volume, rules: Ruleset) -> None:
    for name, tally in volume.by_category.items():
        if name != "none" and tally.total:
            title = rules.categories.get(name, name)
            out.print(
                f"  {tally.counted:>5} counted  {tally.review:>5} review  {tally.not_counted:>5} not counted   {title}"
            )
    for step in volume.funnel:
        why = ", ".join(f"{name} {number:,}" for name, number in step.why[:4])
        out.print(
            f"  {step.count:>9,} {step.unit:<10} {step.name}" + (f"   (−{step.lost:,}: {why})" if step.lost else "")
        )


def _say_scan(scan: Scan) -> None:
    for report in scan.files:
        if report.refused:
            continue
        others = ", ".join(f"{number:,} {name}" for name, number in sorted(report.other.items()))
        broken = f", {report.quarantined:,} quarantined" if report.quarantined else ""
        err.print(f"{report.name}: {report.procedures:,} Procedure" + (f", {others}" if others else "") + broken)
    for entry in scan.quarantined[:_QUARANTINED_SHOWN]:
        err.print(f"quarantined  {entry.position}: {entry.reason}")
    more = len(scan.quarantined) - _QUARANTINED_SHOWN
    if more > 0:
        err.print(f"quarantined  and {more:,} more")
    for code in scan.unmapped[:_UNMAPPED_SHOWN]:
        known = "no row" if code.known_system else "unknown system"
        err.print(f"unmapped     {code.system or '(no system)'} {code.code}: {code.codings:,} ({known})")
    if len(scan.unmapped) > _UNMAPPED_SHOWN:
        err.print(f"unmapped     and {len(scan.unmapped) - _UNMAPPED_SHOWN:,} more codes")
    if scan.without_code:
        err.print(f"unmapped     {scan.without_code:,} Procedures without any code")


def _say_damage(scan: Scan) -> int:
    """One sentence for every input of which something could not be read; the exit code says so too.

    A JSON file that is no FHIR is set aside like any unusable resource; alone, it leaves nothing to do.
    """
    code = 0
    anything = any(report.procedures or report.other for report in scan.files)
    for report in scan.files:
        sentence = report.refused
        empty = bool(report.quarantined) and not report.procedures and not report.other
        if not sentence and empty and (report.damaged or not anything):
            sentence = InputError(
                "nothing in it could be read", where=report.name, do="check that it holds FHIR JSON", number=9
            ).sentence
        elif not sentence and report.damaged:
            lines = "a line is" if report.damaged == 1 else f"{report.damaged:,} lines are"
            sentence = InputError(
                f"{lines} no JSON", where=report.damage, do="the rest was read; fetch the file again", number=10
            ).sentence
        if sentence:
            typer.echo(sentence, err=True)
            code = 1
    return code
