"""Installed from the wheel alone, by somebody else, with the commands of the page that tells how, to the letter."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.docs.blocks import ROOT, blocks_of

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "install.md"
EXAMPLE = "http://hapi.internal.example:8080/fhir"
SUITS = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"


@dataclass(frozen=True)
class Stranger:
    """Another user of this machine, in an empty folder of their own."""

    folder: Path
    account: dict[str, Any]
    environment: dict[str, str]

    def types(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
            timeout=240, **self.account,
        )  # fmt: skip

    def starts(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True, **self.account
        )


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Nobody, where we are root and nobody has a Python that suits; else oneself with another home."""
    outside = [one for one in os.environ["PATH"].split(os.pathsep) if not Path(one).is_relative_to(ROOT)]
    with tempfile.TemporaryDirectory(prefix="io-fhir-adapter-") as name:  # not below pytest's, which is its owner's
        folder = Path(name)
        environment = {**os.environ, "HOME": name, "PATH": os.pathsep.join(outside), "COLUMNS": "200"}
        environment["PIP_COMPILE"] = "0"  # what is used is compiled when it is; all of it takes as long as the demo
        for mine in ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST"):
            environment.pop(mine, None)
        if os.geteuid() == 0:
            who = pwd.getpwnam("nobody")
            os.chown(folder, who.pw_uid, who.pw_gid)
            found = Stranger(folder, {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}, environment)
            if found.types(f'python3 -c "{SUITS}"').returncode == 0:
                yield found
                return
            os.chown(folder, 0, 0)
        python = str(Path(sys.base_prefix) / "bin")
        yield Stranger(folder, {}, {**environment, "PATH": os.pathsep.join([python, *outside])})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def lines_of_the_page() -> list[str]:
    return [line for block in blocks_of(PAGE) if block.language == "console" for line in block.text.splitlines()]


def test_the_page_installs_it_and_does_a_first_night(wheel: Path, stranger: Stranger) -> None:
    for file in (wheel, ROOT / "constraints.txt"):
        shutil.copy(file, stranger.folder)
    sandbox: subprocess.Popen[str] | None = None
    done: dict[str, str] = {}
    example = "4711"
    try:
        for line in lines_of_the_page():
            answer = stranger.types(line.replace("4711", example))
            assert answer.returncode == 0, f"{line}\n{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
            done[line] = answer.stdout
            if line.endswith(" facility.yaml") and line.startswith("cp "):  # what the page says to put into it
                sandbox = stranger.starts("adapter/bin/io-fhir-adapter", "sandbox", "--port", "0", "--patients", "60",
                                          "--procedures", "300")  # fmt: skip
                assert sandbox.stdout is not None
                address = next(
                    word.rstrip(",") for word in sandbox.stdout.readline().split() if word.startswith("http")
                )
                example = httpx.get(f"{address}/Procedure", params={"_count": 1}).json()["entry"][0]["resource"]["id"]
                path = stranger.folder / "facility.yaml"
                text = path.read_text(encoding="utf-8")
                assert EXAMPLE in text
                path.write_text(text.replace(EXAMPLE, address), encoding="utf-8")
    finally:
        if sandbox is not None:
            sandbox.terminate()
            sandbox.communicate(timeout=30)
    (about,) = (text for line, text in done.items() if line.endswith("--version"))
    assert about.strip() == wheel.name.split("-")[1]
    (night,) = (text for line, text in done.items() if " run " in line)
    report = Path(next(line for line in night.splitlines() if line.endswith("report.html")).split()[-1])
    assert report.stat().st_uid == (stranger.account.get("user", os.geteuid()))
    assert report.stat().st_size > 50_000
    assert (stranger.folder / "data" / "ledger.sqlite").stat().st_mode & 0o777 == 0o600
    (checked,) = (text for line, text in done.items() if " verify " in line)
    assert [line.split()[:2] for line in checked.splitlines()].count(["ok", "cases"]) == 1
