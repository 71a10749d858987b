"""What a test against another maker's server may be skipped for: only what the machine really lacks."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import script
from tests.interop import servers


@pytest.fixture
def check() -> ModuleType:
    return script("check_skips.py")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for, empty yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def install(folder: Path, name: str, code: int) -> None:
    """A program that does nothing but end with that code."""
    (folder / name).write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def reason(start: object, tmp_path: Path) -> str:
    with pytest.raises(servers.Unavailable) as caught, start(tmp_path):  # type: ignore[operator]
        pass
    return f"Skipped: {caught.value}"


@pytest.mark.parametrize(("start", "first"), [(servers.hapi, "java"), (servers.medplum, "node")])
def test_a_program_that_is_not_installed(
    start: object, first: str, check: ModuleType, programs: Path, tmp_path: Path
) -> None:
    why = reason(start, tmp_path)
    assert why == f"Skipped: {first} is not installed"
    assert check.excused(why)
    install(programs, first, 0)
    assert not check.excused(why)


@pytest.mark.parametrize(
    ("start", "others", "fetches"), [(servers.hapi, ("java", "javac"), "mvn"), (servers.medplum, ("node",), "npm")]
)
def test_a_program_that_cannot_fetch_packages(
    start: object, others: tuple[str, ...], fetches: str, check: ModuleType, programs: Path, tmp_path: Path
) -> None:
    for name in others:
        install(programs, name, 0)
    install(programs, fetches, 1)
    why = reason(start, tmp_path)
    assert why == f"Skipped: {fetches} cannot fetch packages"
    assert check.excused(why)


@pytest.mark.parametrize("fetches", ["mvn", "npm"])
def test_one_that_can_fetch_them_after_all_is_no_excuse(fetches: str, check: ModuleType, programs: Path) -> None:
    install(programs, fetches, 0)
    assert not check.excused(f"Skipped: {fetches} cannot fetch packages")


def test_any_other_reason_is_none(check: ModuleType, programs: Path) -> None:
    assert not check.excused("Skipped: the server did not start")
    assert not check.excused("Skipped: ruby is not installed")
