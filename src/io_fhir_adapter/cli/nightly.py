"""Commands on a configured facility: the look before the first night, the nightly job and its stages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from io_fhir_adapter.cli.console import out, show_checks, show_files, show_night, show_short, told_progress
from io_fhir_adapter.cli.facility import AsOfOption, ConfigOption, JsonOption, as_of_date, facility, needs_endpoint
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.logs import configure_logs
from io_fhir_adapter.night import Night, pull_problem
from io_fhir_adapter.notify.tell import tell as tell_people
from io_fhir_adapter.pipeline import Nightly, Progress
from io_fhir_adapter.preflight import run_checks
from io_fhir_adapter.report.output import check_folder
from io_fhir_adapter.report.typeset import REPORT_PDF, needs_typst
from io_fhir_adapter.review.board import CaseLine
from io_fhir_adapter.review.sample import leave_sample, not_drawn
from io_fhir_adapter.trust.drawn import LEAVING, SUPERSEDING

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: io-fhir-adapter check --config hospital.yaml")(check)
    app.command("run", epilog="Example: io-fhir-adapter run --config hospital.yaml --dry-run")(run_night)
    app.command(epilog="Example: io-fhir-adapter pull --config hospital.yaml")(pull)
    app.command(epilog="Example: io-fhir-adapter draw --config hospital.yaml")(draw)
    app.command(epilog="Example: io-fhir-adapter review --config hospital.yaml")(review)
    app.command(epilog="Example: io-fhir-adapter submit --config hospital.yaml")(submit)


@contextmanager
def _job(config: Path, as_of: str | None = None, progress: Progress | None = None) -> Iterator[Nightly]:
    day = as_of_date(as_of)
    with facility(config) as opened:
        yield Nightly(opened.config, opened.ledger, opened.rules, as_of=day, progress=progress)


@contextmanager
def _telling(job: Nightly, *, quiet: bool) -> Iterator[None]:
    """Tells people what needs one once the block has ended, also where it failed; nobody where ``quiet``."""

    def told(failure: str) -> None:
        if not quiet:
            tell_people(job.config, job.ledger, job.ruleset, datetime.now(UTC), job.as_of, failure=failure)

    try:
        yield
    except Exception as exc:
        told(exc.code if isinstance(exc, AdapterError) else type(exc).__name__)
        raise
    told("")


def check(config: ConfigOption, as_json: JsonOption = False) -> int:
    """Look before the first night: configuration, tables, ledger, servers, sign-in, mapping coverage; what to fix."""
    results = asyncio.run(run_checks(config))
    if as_json:
        typer.echo(json.dumps([result.to_json() for result in results], indent=2))
    else:
        show_checks(results)
    return 1 if any(result.state == "fail" for result in results) else 0


def run_night(
    config: ConfigOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Pull, decide and count; neither draw nor submit.")
    ] = False,
    as_of: AsOfOption = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write the report as one page of PDF too (output.pdf).")] = False,
) -> int:
    """Do the nightly job once."""
    configure_logs()
    with told_progress() as tell, _job(config, as_of, tell) as job, _telling(job, quiet=dry_run):
        check_folder(job.config.output.folder)
        if pdf or job.config.output.pdf:
            needs_typst(REPORT_PDF, "--pdf" if pdf else "output.pdf")
        night = asyncio.run(job.run(dry_run=dry_run))
        files = job.write_output(night, job.config.output.folder, pdf=pdf)
    show_night(night)
    show_files(files)
    if night.problem is not None:
        raise night.problem
    return 0


def pull(config: ConfigOption) -> int:
    """Only read what changed in the sources, and decide on it."""
    with told_progress() as tell, _job(config, None, tell) as job, job.alone():
        with job.ledger.begin() as connection:
            run = start_run(connection, datetime.now(UTC))
        sources = asyncio.run(job.pull(run))
        redecided = job.decide(run, sources)
        problem = pull_problem(sources)
        with job.ledger.begin() as connection:
            summary = {"sources": [source.to_json() for source in sources]}
            state, error = ("failed", problem.sentence) if problem is not None else ("complete", "")
            finish_run(connection, run, datetime.now(UTC), state, summary, error)
        night = Night(run, job.as_of, sources=sources, redecided=redecided)
    show_night(night)
    if problem is not None:
        raise problem
    return 0


def draw(
    config: ConfigOption,
    as_of: AsOfOption = None,
    supersede: Annotated[
        str, typer.Option(metavar="REASON", help=f"Draw anew, for one of these reasons: {', '.join(SUPERSEDING)}.")
    ] = "",
    as_json: JsonOption = False,
) -> int:
    """Draw the case-review sample of the year that is due, once; say what was drawn."""
    with _job(config, as_of) as job, job.alone():
        sample = asyncio.run(job.draw(supersede_because=supersede))
    found = sample.draw
    if as_json:
        summary = {
            "programme": found.programme, "period": found.period, "window": [found.window_start, found.window_end],
            "frame": {"size": found.frame_size, "digest": found.digest}, "nonce": found.nonce,
            "nonce_origin": found.nonce_origin, "waits": sample.waits, "wanted": sample.wanted, "short": sample.short,
            "cases": [case.token for case in sample.cases],
        }  # fmt: skip
        typer.echo(json.dumps(summary, indent=2))
        return 0
    if sample.waits:
        out.print(f"{found.frame_size} patients committed to, window {found.window_start} to {found.window_end}")
        out.print(f"frame  {found.digest}")
        out.print(f"nonce  awaited; {sample.waits}")
        return 0
    out.print(f"{len(sample.cases)} of {found.frame_size} patients, window {found.window_start} to {found.window_end}")
    out.print(f"frame  {found.digest}")
    out.print(f"nonce  {found.nonce} ({found.nonce_origin})")
    out.print("drawn just now" if sample.fresh else "drawn before; a sample is drawn once")
    show_short(sample)
    return 0


def review(
    config: ConfigOption,
    as_of: AsOfOption = None,
    leave: Annotated[
        int | None, typer.Option(metavar="CASE", help="Take this case out of the sample; the next reserve comes in.")
    ] = None,
    reason: Annotated[str, typer.Option(help=f"Why it leaves: {', '.join(LEAVING)}.")] = "",
    as_json: JsonOption = False,
) -> int:
    """Pull, pre-fill and de-identify the drawn cases; say how full their forms are and who works on them."""
    with told_progress() as tell, _job(config, as_of, tell) as job, job.alone():
        sample = asyncio.run(job.draw())
        if sample.waits:
            raise not_drawn(sample)
        if leave is not None:
            leave_sample(job.ledger, sample, leave, reason, datetime.now(UTC))
        form = asyncio.run(job.casework.form())
        prepared, _ = asyncio.run(job.casework.review(sample, form))
        board = job.casework.board(sample, form)
    if as_json:
        cases = [line.to_json() for line in board]
        typer.echo(json.dumps({"period": sample.draw.period, "cases": cases}, indent=2))
        return 0
    refused = {case.number: len(case.refused) for case in prepared if case.refused}
    for line in board:
        out.print(Text(_in_words(line, refused.get(line.number, 0))))
    return 0


def _in_words(line: CaseLine, refused: int) -> str:
    """One case of the board; names no patient."""
    if line.role == "left":
        return f"case {line.number:>2}  left the sample: {line.left_because}"
    said = [f"case {line.number:>2}  {line.share:>4.0%} pre-filled", f"{len(line.open)} items open"]
    if refused:
        said.append(f"{refused} resources left out")
    if line.state != "open" or line.reviewer:
        said.append(f"{line.state} ({line.reviewer or 'nobody works on it'})")
    if line.rare:
        said.append("rare, cleared" if line.cleared else "rare: waits for an approver's word")
    return ", ".join(said)


def submit(
    config: ConfigOption,
    as_of: AsOfOption = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Send again what was parked, and the due submission if it was rejected.")
    ] = False,
    approved_by: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where nobody signs in: who approved what leaves (the authority's word)."),
    ] = "",
) -> int:
    """Seal the submission of the year that is due and send what is in the outbox."""
    with told_progress() as tell, _job(config, as_of, tell) as job:
        needs_endpoint(job.config, config)
        with job.alone():
            night = asyncio.run(job.submit(retry=retry, approved_by=approved_by))
    show_night(night)
    if night.problem is not None:
        raise night.problem
    return 0
