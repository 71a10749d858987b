"""Files that only their owner may read: looked at before each use, put in their place whole."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from io_fhir_adapter.errors import ConfigError

__all__ = ["put_owner_only", "read_owner_only"]

_OWNER_ONLY = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_owner_only(path: Path, what: str) -> bytes:
    """What a file holds that others than its owner can neither read nor write.

    Args:
        path: The file.
        what: What it holds, for the message.

    Raises:
        OSError: It cannot be read.
        ConfigError: Others can get at it.
    """
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode  # of what is read, whatever the path leads to by now
        if not mode & _OTHERS:
            return file.read()
    raise ConfigError(
        f"others than its owner can get at the {what}",
        where=str(path),
        do="set its mode to 0600, find out who read it, and change the key if that cannot be ruled out",
        number=30,
    )


def put_owner_only(path: Path, data: bytes) -> None:
    """Writes a new file beside its place and puts it there whole, for its owner alone.

    Raises:
        FileExistsError: There is one; it stays as it is.
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(part)
    finally:
        part.unlink()
