"""The command that makes the papers for a body that takes only papers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.cli.console import err, out, show_files
from io_fhir_adapter.cli.facility import AsOfOption, ConfigOption, as_of_date, facility
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.handover.papers import dossier_of
from io_fhir_adapter.report.dossier_files import dossier_files
from io_fhir_adapter.report.output import check_folder, write_files

__all__ = ["register"]


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
        today = as_of_date(as_of) or datetime.now(zone(opened.config.facility.time_zone)).date()
        found = dossier_of(opened.ledger, opened.rules, today)
    made = dossier_files(found, evidence=evidence)
    show_files(write_files(folder, made.files))
    out.print(f"submission   {found.identifier}")
    if found.draft:
        err.print(f"draft: {found.draft}")
    for sentence in made.missing:
        err.print(sentence)
    return 0
