"""The command that makes the papers for a body that takes only papers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.cli.console import err, out, show_files
from io_fhir_adapter.cli.facility import AsOfOption, ConfigOption, Facility, as_of_date, facility
from io_fhir_adapter.errors import SubmitError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.approvals import Approval, approval_of
from io_fhir_adapter.ledger.assessments import assessment_of
from io_fhir_adapter.ledger.outbox import OutboxItem, item, latest_receipt
from io_fhir_adapter.report.dossier import Dossier, make_dossier
from io_fhir_adapter.report.dossier_files import dossier_files
from io_fhir_adapter.report.output import check_folder, write_files
from io_fhir_adapter.report.standards import checklist
from io_fhir_adapter.report.wording import day_words
from io_fhir_adapter.submit.resting import noted
from io_fhir_adapter.trust.canonical import digest_bytes
from io_fhir_adapter.volume.period import Period, due_period
from io_fhir_adapter.volume.tally import count_ledger

__all__ = ["register"]

_KEPT = {
    "held": "it waits for approval",
    "returned": "an approver returned it",
    "superseded": "what it rests on has changed",
    "rejected": "the accreditation system rejected it",
}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter dossier --config hospital.yaml --out papers")(dossier)


def dossier(
    config: ConfigOption,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the files.", metavar="DIR")],
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Name the evidence files of the standards too, with their SHA-256.")
    ] = False,
    as_of: AsOfOption = None,
) -> int:
    """Write the papers: volume statement, case sheets, standards checklist, method statement (PDF, XLSX, CSV)."""
    check_folder(folder)
    with facility(config) as opened:
        found = _gathered(opened, as_of)
    made = dossier_files(found, evidence=evidence)
    show_files(write_files(folder, made.files))
    out.print(f"submission   {found.identifier}")
    if found.draft:
        err.print(f"draft: {found.draft}")
    for sentence in made.missing:
        err.print(sentence)
    return 0


def _gathered(opened: Facility, as_of: str | None) -> Dossier:
    rules = opened.rules
    programme, scoped = rules.programme, rules.scope is not None
    today = as_of_date(as_of) or datetime.now(zone(opened.config.facility.time_zone)).date()
    period = due_period(today, programme.sample.ends_days_before)
    before = Period.year(str(int(period.label) - 1))
    with opened.ledger.read() as connection:
        made = noted(connection, period.label)
        sealed = item(connection, made.identifier) if made is not None and made.identifier else None
        if sealed is None:
            raise SubmitError(
                f"no submission of {period.label} is sealed yet",
                where=opened.ledger.name,
                do="the submit command or the next night seals it; a dossier is made from nothing else",
                number=40,
            )
        known = assessment_of(connection, programme.id)
        said, receipt = approval_of(connection, sealed.identifier), latest_receipt(connection, sealed.identifier)
        volume, previous = (
            count_ledger(connection, year, programme, scoped=scoped, today=today.isoformat())
            for year in (period, before)
        )
    lines = checklist(programme, known.response if known else None) if programme.standards is not None else ()
    return make_dossier(
        sealed.body,
        programme,
        rules.categories,
        volume,
        previous,
        standards=lines,
        assessed=f"taken on {day_words(known.at[:10])}, {known.digest}" if known is not None else "",
        approval=_approval(said),
        delivery=sealed.state + (f", answered on {day_words(receipt.received[:10])}" if receipt is not None else ""),
        draft=_draft(sealed, said, needed=opened.config.sign_in is not None),
    )


def _approval(said: Approval | None) -> str:
    return f"{said.verdict} on {day_words(said.at[:10])} by a person in the role {said.role}" if said else ""


def _draft(sealed: OutboxItem, said: Approval | None, *, needed: bool) -> str:
    """Why the papers must not be handed on yet; an approval is of the very bytes."""
    good = said is not None and said.verdict == "approved" and said.digest == digest_bytes(sealed.body)
    if sealed.state in _KEPT:
        return _KEPT[sealed.state]
    return "nobody approved the submission yet" if needed and not good else ""
