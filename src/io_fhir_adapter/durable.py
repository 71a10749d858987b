"""Making what was written outlast a power failure."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["to_disk"]


def to_disk(path: Path) -> None:
    """Brings a file to the disk; of a folder the names in it.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
