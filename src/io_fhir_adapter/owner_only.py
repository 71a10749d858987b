"""Files that only their owner may read: looked at before each use, put in their place whole.

A secret that an administrator lays out for a service belongs to root, and the service reads it by its group: so mounts
Kubernetes a Secret under an ``fsGroup`` (root, mode 0440), and so lie files below ``/etc``. That is as good, where the
group is the service's own.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from io_fhir_adapter.errors import ConfigError

__all__ = ["put_owner_only", "read_owner_only"]

_OWNER_ONLY = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ROOT = 0


def read_owner_only(path: Path, what: str) -> bytes:
    """What a file holds that others than its owner can neither read nor write.

    A file of root may be read by this process's own group too; on a read-only mount, by any group of this process.

    Args:
        path: The file.
        what: What it holds, for the message.

    Raises:
        OSError: It cannot be read.
        ConfigError: Others can get at it.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())  # of what is read, whatever the path leads to by now
        if not about.st_mode & _OTHERS or _laid_out(about, file.fileno()):
            return file.read()
    raise ConfigError(
        f"others than its owner can get at the {what}",
        where=str(path),
        do="set its mode to 0600 (or 0440, where it is root's and of the service's own group), find out who read it, "
        "and change the key if that cannot be ruled out",
        number=30,
    )


def _laid_out(about: os.stat_result, handle: int) -> bool:
    """Whether a file is root's, and beside root a group of this process alone may read it."""
    if about.st_uid != _ROOT or os.geteuid() == _ROOT or about.st_mode & _OTHERS != stat.S_IRGRP:
        return False
    if about.st_gid == os.getegid():
        return True
    # A group among several may be one that people are in too; nobody lays one out on a read-only mount but who mounts.
    return about.st_gid in os.getgroups() and bool(os.fstatvfs(handle).f_flag & os.ST_RDONLY)


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
