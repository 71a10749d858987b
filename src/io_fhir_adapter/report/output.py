"""Writing what a night made into a folder, never half a file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from io_fhir_adapter.errors import ConfigError

__all__ = ["check_folder", "write_files"]


def check_folder(folder: Path) -> None:
    """Makes the folder and tries to write to it, before the work that is to be written there is done.

    Raises:
        ConfigError: It cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise _unwritable(folder, exc) from exc


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Writes files by name, each whole or not at all; gives their paths.

    Raises:
        ConfigError: The folder cannot be written to.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            path = folder / name
            half = path.with_suffix(".tmp")
            half.write_bytes(data)
            half.replace(path)
            written.append(path)
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    return written


def _unwritable(folder: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"the folder cannot be written to ({exc.strerror or type(exc).__name__})",
        where=str(folder),
        do="choose another one or correct its permissions",
        number=9,
    )
