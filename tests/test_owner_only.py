"""Who may be let in to a file of secret keys: its owner, and where it is root's the group of the service."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.owner_only import put_owner_only, read_owner_only

SERVICE, PEOPLE, ELSE = 10001, 10002, 10003  # user and group of the service; other groups


@dataclass(frozen=True)
class Mount:
    """A file as a machine shows it, and the process that looks at it."""

    mode: int = 0o440
    owner: int = 0
    group: int = SERVICE
    read_only: bool = False
    user: int = SERVICE
    groups: tuple[int, ...] = ()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "signing-key.json"
    put_owner_only(path, b"secret")
    return path


def shown(monkeypatch: pytest.MonkeyPatch, mount: Mount) -> None:
    """Lets the file look as if it lay there; tests run as whoever, and cannot mount."""
    about = SimpleNamespace(st_mode=0o100000 | mount.mode, st_uid=mount.owner, st_gid=mount.group)
    machine = SimpleNamespace(
        ST_RDONLY=os.ST_RDONLY,
        fstat=lambda _: about,
        fstatvfs=lambda _: SimpleNamespace(f_flag=os.ST_RDONLY if mount.read_only else 0),
        geteuid=lambda: mount.user,
        getegid=lambda: SERVICE,
        getgroups=lambda: list(mount.groups),
    )
    monkeypatch.setattr("io_fhir_adapter.owner_only.os", machine)


@pytest.mark.parametrize(
    "mount",
    [
        Mount(0o600, owner=SERVICE),
        Mount(0o400, owner=SERVICE),
        Mount(0o440),  # a Secret of Kubernetes, its fsGroup the group that the process runs as
        Mount(0o640),  # below /etc, as the systemd units have it
        Mount(0o440, group=PEOPLE, groups=(PEOPLE,), read_only=True),  # a Secret whose fsGroup is one group more
    ],
    ids=str,
)
def test_what_its_owner_or_the_service_alone_can_read_is_read(
    key: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown(monkeypatch, mount)
    assert read_owner_only(key, "signing key") == b"secret"


@pytest.mark.parametrize(
    "mount",
    [
        Mount(0o444, read_only=True),  # everybody
        Mount(0o441, read_only=True),
        Mount(0o460, read_only=True),  # the group may write
        Mount(0o660),
        Mount(0o450),
        Mount(0o420),
        Mount(0o440, owner=SERVICE),  # the service's own file, opened to its group
        Mount(0o440, owner=PEOPLE),
        Mount(0o440, group=PEOPLE, groups=(PEOPLE,)),  # a group that people may be in
        Mount(0o440, group=ELSE, groups=(PEOPLE,), read_only=True),  # a group that it is not in
        Mount(0o440, user=0),  # root itself needs no group
    ],
    ids=str,
)
def test_what_others_can_get_at_is_refused(key: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, mount)
    with pytest.raises(ConfigError, match="others than its owner can get at the signing key") as refused:
        read_owner_only(key, "signing key")
    assert (refused.value.code, "0440" in refused.value.sentence) == ("IOA-CFG-030", True)
