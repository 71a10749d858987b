"""The command line: thin. Every command reads its arguments, calls one function, and shows what it gave."""

from __future__ import annotations

import os
import sys

import typer
from typer.core import TyperGroup

from io_fhir_adapter import __version__
from io_fhir_adapter.cli import embedded, files, mappings, nightly, verify
from io_fhir_adapter.cli.console import say_error
from io_fhir_adapter.errors import AdapterError

__all__ = ["app", "main"]

_DEBUG = "IO_FHIR_ADAPTER_DEBUG"

app = typer.Typer(
    name="io-fhir-adapter",
    cls=TyperGroup,
    no_args_is_help=True,
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


for register in (embedded.register, nightly.register, files.register, mappings.register, verify.register):
    register(app)


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
