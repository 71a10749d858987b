"""Commands on the way to the seal: readiness, and the standards self-assessment."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.cli.console import out
from io_fhir_adapter.cli.facility import AsOfOption, ConfigOption, Facility, JsonOption, as_of_date, facility
from io_fhir_adapter.engine.standing import facts_under, rules_under, years_under
from io_fhir_adapter.errors import InputError, UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.assessments import Evidence, assessment_of, put_assessment, put_evidence
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.report.output import write_files
from io_fhir_adapter.report.readiness import STATES, Readiness, State, readiness_of
from io_fhir_adapter.report.standards import checklist, questionnaire, tally
from io_fhir_adapter.review.assessing import accept_assessment

__all__ = ["register"]

_COLOURS: dict[State, str] = {"met": "green", "not-yet": "yellow", "unknown": "dim", "person": "cyan"}
_LARGEST = 5_000_000

ProgrammeOption = Annotated[
    str | None,
    typer.Option("--programme", help="Another programme than the configured one, such as degir.", metavar="NAME"),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: io-fhir-adapter readiness --config hospital.yaml --programme degir")(readiness)
    app.command(epilog="Example: io-fhir-adapter standards --config hospital.yaml --export standards.json")(standards)


def readiness(
    config: ConfigOption, programme: ProgrammeOption = None, as_of: AsOfOption = None, as_json: JsonOption = False
) -> int:
    """Say how far the facility is from its seal, requirement by requirement."""
    with facility(config) as opened:
        found = _readiness(opened, rules_under(opened.config, opened.rules, programme or ""), as_of_date(as_of))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        _show(found)
    return 0


def standards(
    config: ConfigOption,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the form, a FHIR Questionnaire, into this file.")
    ] = None,
    take: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Take the answers, a FHIR QuestionnaireResponse.")
    ] = None,
    programme: ProgrammeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write the form of the standards self-assessment, take its answers, or show what was answered."""
    if export is not None and take is not None:
        raise UsageError("--export and --import go in different directions", do="give one of them", number=21)
    with facility(config) as opened:
        wanted = rules_under(opened.config, opened.rules, programme or "").programme
        form = questionnaire(wanted)
        if export is not None:
            text = json.dumps(form, indent=2, ensure_ascii=False) + "\n"
            (written,) = write_files(export.parent, {export.name: text.encode()})
            out.print(f"written      {written}")
            return 0
        if take is not None:
            clean = accept_assessment(form, _read(take), str(take))
            now = datetime.now(UTC)
            named = [
                Evidence(line.requirement.link_id, name, 0, sha256, timestamp(now))
                for line in checklist(wanted, clean)
                for name, sha256 in line.evidence
            ]
            with opened.ledger.begin() as connection:
                put_assessment(connection, wanted.id, clean, now)
                put_evidence(connection, wanted.id, named)
        with opened.ledger.read() as connection:
            known = assessment_of(connection, wanted.id)
    response = known.response if known is not None else None
    lines = checklist(wanted, response)
    core, extended = tally(lines, "core"), tally(lines, "extended")
    if as_json:
        answers = {line.requirement.link_id: line.answer for line in lines}
        taken = {"at": known.at, "digest": known.digest} if known is not None else None
        typer.echo(
            json.dumps({"taken": taken, "core": core.to_json(), "extended": extended.to_json(), "answers": answers})
        )
        return 0
    out.print(f"core      {core.answered} of {core.total} answered, {core.met} met")
    out.print(f"extended  {extended.answered} of {extended.total} answered, {extended.met} met")
    unanswered = [line.requirement.text for line in lines if line.requirement.kind == "core" and line.answer is None]
    if known is None:
        out.print("no self-assessment yet: write the form with --export, complete it, take it back with --import")
    elif unanswered:
        out.print(f"open      {'; '.join(unanswered[:5])}{' …' if len(unanswered) > 5 else ''}")
    if known is not None:
        out.print(f"taken     {known.at[:16].replace('T', ' ')} UTC, {known.digest}", style="dim")
    return 0


def _readiness(opened: Facility, rules: Ruleset, day: date | None) -> Readiness:
    today = day or datetime.now(zone(opened.config.facility.time_zone)).date()
    configured = rules.programme.id == opened.rules.programme.id
    with opened.ledger.read() as connection:
        years = years_under(connection, rules, today)
        facts = facts_under(connection, opened.config, rules, today, years, configured=configured)
    return readiness_of(rules.programme, facts)


def _show(found: Readiness) -> None:
    out.print(Text(found.title, style="bold underline"))
    if found.status.now:
        out.print(Text(found.status.words, style="bold"), soft_wrap=False)
    out.print(Text(f"as of {found.as_of}", style="dim"))
    out.print()
    for one in found.requirements:
        state = (f"{STATES[one.state]:<16}", _COLOURS[one.state])
        out.print(Text.assemble(state, (one.title, "bold"), f"  {one.amount}"))
        for words, style in ((one.evidence, ""), (one.note, "dim")):
            if words:
                out.print(Padding(Text(words, style=style), (0, 0, 0, 16)), soft_wrap=False)
    groups = [(year.label, group) for year in found.years for group in year.groups]
    if groups:
        out.print()
        counts = Table(box=None, pad_edge=False, header_style="dim")
        counts.add_column("group")
        for year in found.years:
            counts.add_column(year.label, justify="right")
            counts.add_column("review", justify="right", style="dim")
        for place, group in enumerate(found.years[0].groups):
            here = [year.groups[place] for year in found.years]
            title = f"{group.id}  {group.title}" if len(group.id) == 1 else group.title
            counts.add_row(title, *(str(many) for one in here for many in (one.done, one.open)))
        out.print(counts)
    out.print()
    for note in found.notes:
        out.print(Text(note, style="dim"))


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(
                "the file is too large for a form", where=str(path), do="give the answers alone", number=20
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError("the file cannot be read", where=str(path), do="check the path", number=2) from exc
    except (ValueError, RecursionError) as exc:
        raise InputError(
            "the file is no JSON", where=str(path), do="give the QuestionnaireResponse as JSON", number=21
        ) from exc
