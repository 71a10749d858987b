"""Commands that bring their own servers: the demonstration, the sandbox hospital."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.cli.console import out, show_files, show_night, told_progress
from io_fhir_adapter.demo import PEOPLE, demonstrate, try_out
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.logs import configure_logs
from io_fhir_adapter.loopback import LoopbackServer, until_stopped
from io_fhir_adapter.report.output import check_folder
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: io-fhir-adapter demo --out out/demo")(demo)
    app.command(epilog="Example: io-fhir-adapter sandbox --port 8090")(sandbox)


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the report and everything kept.")] = Path(
        "out/demo"
    ),
    serve: Annotated[
        bool, typer.Option("--serve", help="Then serve the pages of the case review, with accounts to sign in with.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the pages, with --serve; 0 for any free one.")] = 8080,
) -> int:
    """The whole nightly job between a synthetic hospital and a receiver, over real HTTP on this machine."""
    if serve:
        return _serve_pages(folder / "pages", port)
    began = time.monotonic()
    check_folder(folder)
    with told_progress() as tell:
        shown = asyncio.run(demonstrate(folder, tell))
    out.print()
    show_night(shown.night)
    truth = "equal to" if shown.agrees else "DIFFERENT FROM"
    out.print(f"Ground truth {shown.truth.counted} counted, {shown.truth.review} for review: {truth} the numbers above")
    out.print(f"Receiver     {shown.submissions} submission(s) stored")
    show_files(shown.files)
    out.print(f"\n{time.monotonic() - began:.0f} s. All data are synthetic. Run it again: only what changed is read.")
    if not shown.agrees:
        raise AdapterError("the numbers are not the hospital's ground truth", where="demo", do="please report this")
    return 0


def _serve_pages(folder: Path, port: int) -> int:
    """The pages, until they are stopped; what was completed in an earlier time is still there."""
    folder.mkdir(parents=True, exist_ok=True)
    check_folder(folder)
    configure_logs(level=logging.WARNING)  # what the service logs would stand among the text
    with told_progress() as tell, try_out(folder, tell, port=port) as shown:
        out.print(f"\nPages {shown.url}/ with synthetic data; sign in with the password {shown.password} as")
        for account, (name, roles) in PEOPLE.items():
            out.print(f"  {account:<6} {name:<16} {', '.join(roles)}")
        out.print("Ctrl+C ends them.")
        until_stopped()
    return 0


def sandbox(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.")] = 8090,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic data.")] = 20250101,
    patients: Annotated[int, typer.Option(help="Number of patients.")] = 1500,
    procedures: Annotated[int, typer.Option(help="Number of Procedures.")] = 25_000,
) -> int:
    """The synthetic hospital's FHIR server by itself (this machine only)."""
    hospital = build_hospital(seed, patients=patients, procedures=procedures)
    store = SandboxStore.from_resources(
        [resource for resources in hospital.resources.values() for resource in resources],
        hospital.broken,
        hospital.later,
    )
    app = sandbox_app(store, truth=hospital.truth.to_json(), truth_later=hospital.truth_later.to_json())
    with LoopbackServer(app, port) as server:
        out.print(f"synthetic hospital at {server.base_url}/fhir, ground truth at {server.base_url}/_sandbox/truth")
        until_stopped()
    return 0
