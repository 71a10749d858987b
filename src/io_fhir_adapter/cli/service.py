"""The command that runs the service."""

from __future__ import annotations

from typing import Annotated

import typer

from io_fhir_adapter.cli.facility import ConfigOption, facility
from io_fhir_adapter.ledger.serving import only_service
from io_fhir_adapter.logs import configure_logs
from io_fhir_adapter.report.typeset import REPORT_PDF, needs_typst
from io_fhir_adapter.serve.app import serve_forever

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter serve --config hospital.yaml --port 8080")(serve)


def serve(
    config: ConfigOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one, which the log names.")] = 8080,
) -> int:
    """Run the nightly job on its schedule, with a page, health and metrics."""
    configure_logs()
    with facility(config, frugal=True) as opened, only_service(opened.config.ledger):
        if opened.config.output.pdf:
            needs_typst(REPORT_PDF, "output.pdf")
        serve_forever(opened.config, opened.ledger, opened.rules, host, port)
    return 0
