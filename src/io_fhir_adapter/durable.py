"""Making what was written outlast a power failure."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["to_disk", "write_whole"]


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


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all, in the place of an earlier one; on the disk when this returns.

    Until then it bears another name in the same folder, with a dot before it and ``.part`` behind.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    to_disk(part)
    part.replace(path)
    to_disk(path.parent)
