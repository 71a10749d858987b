"""Files for as long as a piece of work lasts."""

from __future__ import annotations

import os
import tempfile
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Scratch"]

_NUMBERS = count()  # of this process


class Scratch:
    """Paths in a folder that is made when the first is asked for and removed at the end. Use as a context manager.

    Args:
        folder: A folder that somebody else made and removes; other processes may use it at the same time.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._given = folder
        self._own: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._own is not None:
            self._own.cleanup()
            self._own = None

    @property
    def folder(self) -> Path:
        """The folder."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = tempfile.TemporaryDirectory(prefix="io-fhir-adapter-")
        return Path(self._own.name)

    def path(self) -> Path:
        """A path that nothing else has."""
        return self.folder / f"{os.getpid()}-{next(_NUMBERS)}"
