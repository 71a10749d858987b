"""The manual's page of every command and option, docs/commands.md, read from the command line itself.

python .ci/command_reference.py            fails where the page is not what the commands say
python .ci/command_reference.py --write    writes it
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from io_fhir_adapter.cli.main import COMMANDS
from io_fhir_adapter.cli.on_demand import command

__all__ = ["MANUAL", "page"]

MANUAL = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
_PROGRAM = "io-fhir-adapter"
_HEAD = """# Commands

Every command with its options, as `--help` shows them. All give exit code 0 when they did what was asked, 1 when it
failed, and 2 for wrong usage or configuration, with one sentence on stderr that says what to do; `--json` prints for
machines on stdout.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [_HEAD, *(text for name in COMMANDS for text in _sections(name, command(COMMANDS, name), [name]))]
    return "\n".join(parts)


def _sections(name: str, found: Any, path: list[str]) -> Iterator[str]:
    yield _section(found, path)
    inner = getattr(found, "commands", {})
    context = typer.Context(found, info_name=name) if inner else None
    for one in inner:
        _, under, _ = found.resolve_command(context, [one])
        yield from _sections(one, under, [*path, one])


def _section(found: Any, path: list[str]) -> str:
    context = typer.Context(found, info_name=" ".join([_PROGRAM, *path]))
    lines = [
        f"{'#' * (1 + len(path))} {' '.join(path)}",
        "",
        _prose(found.help or ""),
        "",
        f"    {_usage(context)}",
        "",
    ]
    shown = [param.get_help_record(context) for param in found.params if "--help" not in param.opts]
    rows = [f"| `{_cell(names)}` | {_cell(words)} |" for names, words in filter(None, shown)]
    if rows:
        lines += ["| option | meaning |", "| --- | --- |", *rows, ""]
    before, _, example = (found.epilog or "").partition("Example: ")
    lines += [f"{before}Example: `{example}`", ""] if example else [_prose(before), ""] if before else []
    return "\n".join(lines)


def _usage(context: typer.Context) -> str:
    usage = " ".join(context.get_usage().split())
    return usage.removeprefix("Usage: ")


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _prose(text: str) -> str:
    """A help text on one line for each paragraph, without the marks of the terminal's layout."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text).replace("\b", ""))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def main() -> int:
    """Writes the page, or compares it."""
    made = page()
    if "--write" in sys.argv[1:]:
        MANUAL.write_text(made, encoding="utf-8")
        return 0
    if MANUAL.read_text(encoding="utf-8") != made:
        sys.stderr.write("docs/commands.md is not what the commands say: make docs writes it\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
