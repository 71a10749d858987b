"""LHC-Forms is fetched by name and version, and used only where every file is the one of the committed list."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import script

from io_fhir_adapter.shipped import lacking_forms

FILES = {"LICENSE.md": b"a licence", "webcomponent/lhc-forms.js": b"a script"}


@pytest.fixture
def fetching() -> ModuleType:
    return script("fetch_forms.py")


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """A folder like that of the service's assets, with a list and nothing else."""
    folder = tmp_path / "assets"
    folder.mkdir()
    rows = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in FILES.items())
    (folder / "lforms.sha256").write_text("".join(rows), encoding="ascii")
    return folder


def npm_giving(folder: Path, files: dict[str, bytes]) -> str:
    """A program that packs these files whatever it is asked for."""
    archive = folder / "made.tgz"
    with tarfile.open(archive, "w:gz") as package:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/dist/lforms/{name}")
            member.size = len(data)
            package.addfile(member, io.BytesIO(data))
    program = folder / "npm"
    program.write_text(f'#!/bin/sh\ntest "$1" = pack && cp {archive} lforms.tgz\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_what_is_fetched_is_what_the_list_says(fetching: ModuleType, assets: Path, tmp_path: Path) -> None:
    assert lacking_forms(assets) == tuple(FILES)
    npm = npm_giving(tmp_path, {**FILES, "webcomponent/other.js": b"not wanted"})
    fetching.fetch(assets / "lforms", assets / "lforms.sha256", npm=npm)
    assert lacking_forms(assets) == ()
    found = {path.relative_to(assets / "lforms").as_posix() for path in (assets / "lforms").rglob("*.*")}
    assert found == set(FILES)


@pytest.mark.parametrize(
    "files", [{**FILES, "webcomponent/lhc-forms.js": b"another script"}, {"LICENSE.md": b"a licence"}]
)
def test_other_files_are_refused_and_nothing_is_kept(
    fetching: ModuleType, assets: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    with pytest.raises(fetching.FetchError, match=r"webcomponent/lhc-forms\.js"):
        fetching.fetch(assets / "lforms", assets / "lforms.sha256", npm=npm_giving(tmp_path, files))
    assert not (assets / "lforms").exists()


def test_a_file_that_was_changed_later_is_lacking(fetching: ModuleType, assets: Path, tmp_path: Path) -> None:
    fetching.fetch(assets / "lforms", assets / "lforms.sha256", npm=npm_giving(tmp_path, FILES))
    (assets / "lforms" / "webcomponent" / "lhc-forms.js").write_bytes(b"changed")
    assert lacking_forms(assets) == ("webcomponent/lhc-forms.js",)


def test_without_npm_it_says_what_to_do(
    fetching: ModuleType, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetching.FetchError, match=r"install Node\.js"):
        fetching.fetch(assets / "lforms", assets / "lforms.sha256")


def test_an_npm_that_fails_is_a_sentence(fetching: ModuleType, assets: Path, tmp_path: Path) -> None:
    program = tmp_path / "npm"
    program.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    with pytest.raises(fetching.FetchError, match="npm cannot fetch packages"):
        fetching.fetch(assets / "lforms", assets / "lforms.sha256", npm=str(program))
