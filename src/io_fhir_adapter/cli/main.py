"""The command line: thin. Every command reads its arguments, calls one function, and shows what it gave.

A command's module is imported when that command is called, and for no other (:mod:`io_fhir_adapter.cli.on_demand`); the
help of the whole shows :data:`COMMANDS` and imports none. A new command is a line there, and a ``register(app)`` in its
module that adds a command, or a group, of that name.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import typer

from io_fhir_adapter import __version__
from io_fhir_adapter.cli.console import say_error
from io_fhir_adapter.cli.on_demand import group
from io_fhir_adapter.errors import AdapterError

__all__ = ["COMMANDS", "app", "main", "run"]

_DEBUG = "IO_FHIR_ADAPTER_DEBUG"

COMMANDS: Final = {
    "demo": (
        "embedded",
        "The whole nightly job between a synthetic hospital and a receiver, over real HTTP on this machine.",
    ),
    "sandbox": ("embedded", "The synthetic hospital's FHIR server by itself (this machine only)."),
    "receiver": (
        "receiver",
        "The reference accreditation endpoint: takes submissions of registered facilities, or of all on this machine.",
    ),
    "check": (
        "nightly",
        "Look before the first night: configuration, tables, ledger, servers, sign-in, mapping coverage; what to fix.",
    ),
    "run": ("nightly", "Do the nightly job once."),
    "pull": ("nightly", "Only read what changed in the sources, and decide on it."),
    "draw": ("nightly", "Draw the case-review sample of the year that is due, once; say what was drawn."),
    "review": (
        "nightly",
        "Pull, pre-fill and de-identify the drawn cases; say how full their forms are and who works on them.",
    ),
    "submit": ("nightly", "Seal the submission of the year that is due and send what is in the outbox."),
    "outbox": ("outbox", "What was sealed and sent: list it, show the attempts and receipts of one, send it again."),
    "withdraw": (
        "withdraw",
        "Take back a submission that was accepted: tell the accreditation system, once. Nothing is deleted.",
    ),
    "keys": (
        "keys",
        "The key that submissions are signed with: make one, show its public half; change the pseudonym key.",
    ),
    "readiness": ("readiness", "Say how far the facility is from its seal, requirement by requirement."),
    "standards": (
        "readiness",
        "Write the form of the standards self-assessment, take its answers, or show what was answered.",
    ),
    "dossier": (
        "dossier",
        "Write the papers: volume statement, case sheets, standards checklist, method statement (PDF, XLSX, CSV).",
    ),
    "explain": ("explain", "Say why a procedure counted or did not, rule by rule."),
    "serve": ("service", "Run the nightly job on its schedule, with a page, health and metrics."),
    "notify": ("notify", "Telling people what needs one: try the targets, show what is open, tell it now."),
    "accounts": ("accounts", "Local accounts of the service: who may sign in, and what they may do."),
    "audit": (
        "accounts",
        "Show who signed in, looked, signed and approved; --json prints one entry a line, for an archive.",
    ),
    "backup": (
        "upkeep",
        "Copy the ledger while everything runs, and look through the copy; the pseudonym key is not in it.",
    ),
    "restore": ("upkeep", "Verify a backup and put it in the ledger's place; say what it cannot know."),
    "purge": (
        "purge",
        "Remove what need not be kept any longer, for good; its numbers stay. --dry-run says what that would be.",
    ),
    "doctor": (
        "doctor",
        "Look after the ledger: is it whole, does the key fit, is there room, is a run, backup or submission late.",
    ),
    "classify": ("files", "Decide on every session in files: one JSON line each, in a stable order."),
    "count": (
        "files",
        "Count a year's volume: from files, or from the ledger with --config alone. --json prints a MeasureReport.",
    ),
    "mappings": ("mappings", "Check, measure, propose, exchange and compare the mappings."),
    "verify": (
        "verify",
        "Check a submission from its Bundle alone: structure, counts, frame, draw, cases, nothing that names a person.",
    ),
}
"""Every command: the module of this folder that has it, and the first line of its help."""


app = group(
    COMMANDS,
    name="io-fhir-adapter",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Counts, samples and submits interventional-oncology procedures from a hospital's FHIR server.",
    epilog="Start with: io-fhir-adapter demo",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False,
        "--version",
        callback=_version,
        is_eager=True,
        help="Show the version and leave.",
    ),
) -> None:
    pass


def main() -> None:
    """Entry point: exit code 0 done, 1 the job failed, 2 wrong usage or configuration."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; gives its exit code. Errors are one sentence on stderr."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="io-fhir-adapter")
    except AdapterError as exc:
        say_error(exc.sentence)
        return exc.exit_code
    except (typer.Abort, KeyboardInterrupt):
        say_error("stopped; what was done is kept, run it again to go on")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; leave quietly
    except Exception as exc:
        usage = _usage(exc)
        if usage is not None:
            say_error(usage)
            return 2
        if os.environ.get(_DEBUG):
            raise
        # The message of an unforeseen error may hold anything, so only its type is shown.
        say_error(f"unforeseen error ({type(exc).__name__}); set {_DEBUG}=1 to see where, and please report it")
    else:
        return int(code or 0)
    return 1


def _usage(exc: Exception) -> str | None:
    """The sentence of a usage error, None for any other.

    Typer brings click as a part of itself or beside itself, depending on its version; what their usage errors have
    in common is that they can say themselves.
    """
    said = getattr(exc, "format_message", None)
    if said is None:
        return None
    context = getattr(exc, "ctx", None)
    text = str(said()).strip().rstrip(".")
    return f"{text}; see {context.command_path} --help" if context is not None and text else text
