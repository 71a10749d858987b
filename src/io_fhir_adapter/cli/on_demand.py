"""Groups of commands whose modules are imported when they are called.

The libraries behind a night take seconds to import. So a group knows its commands by name and by the first line of
their help, which is all that its own help shows, and imports the module of the one that is called.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

__all__ = ["Places", "command", "group"]

Places = Mapping[str, tuple[str, str]]
"""Name of a command to the module of this folder that has it, and the first line of its help."""


def group(commands: Places, **settings: Any) -> typer.Typer:
    """A group of commands that are imported when called; ``settings`` as for `typer.Typer`."""

    class OnDemand(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, _, rest = super().resolve_command(ctx, args)
            return name, command(commands, str(name)), rest

    made = typer.Typer(cls=OnDemand, no_args_is_help=True, **settings)
    for name, (_, words) in commands.items():
        made.command(name, help=words)(_stands_in)
    return made


def _stands_in() -> None:
    """Takes a command's place until it is called."""


def command(commands: Places, name: str) -> Any:
    """Imports a command."""
    holder = typer.Typer()
    gc.disable()  # importing makes much and throws little away: looking for cycles meanwhile takes a seventh longer
    try:
        import_module(f"io_fhir_adapter.cli.{commands[name][0]}").register(holder)
    finally:
        gc.enable()
    return get_group(holder).commands[name]
