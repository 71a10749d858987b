"""Fails where a test was skipped for want of something that this machine could have.

    python .ci/check_skips.py REPORT.xml

Every skip is a fault but two kinds. Tests that read published code lists and sample data beside the checkout (a folder
named ``shared``) may be skipped where that folder is really absent. Tests against FHIR servers of other makers, and
against PostgreSQL, may be skipped where a program that runs or fetches those is really not installed, or where it
cannot fetch packages: that is tried once more, with one small package. Reads pytest's JUnit XML.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["excused", "main", "skipped"]

_BESIDE = Path(__file__).resolve().parents[2] / "shared"
_WANTS_DATA = "absent"
_NOT_INSTALLED = tuple(f"{program} is not installed" for program in ("java", "javac", "mvn", "node", "npm", "postgres"))
_FETCHES = {
    "mvn cannot fetch packages": (
        "mvn", "-q", "-B", "-U", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:get",
        "-Dartifact=org.hamcrest:hamcrest:2.2", "-Dtransitive=false", "-Dmaven.repo.local={folder}",
    ),
    "npm cannot fetch packages": (
        "npm", "install", "--no-audit", "--no-fund", "--cache={folder}/cache", "--prefix={folder}", "dataloader@2.2.3",
    ),
}  # fmt: skip
_FETCH_TIMEOUT_S = 300


def skipped(report: Path) -> Iterator[tuple[str, str]]:
    """The skipped tests of a report, with their reasons; expected failures are no skips."""
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        for mark in case.findall("skipped"):
            if mark.get("type") != "pytest.xfail":
                yield f"{case.get('classname')}::{case.get('name')}", mark.get("message") or "no reason given"


@cache
def _can_fetch(reason: str) -> bool:
    """Whether a package manager fetches a package after all, into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [part.format(folder=folder) for part in _FETCHES[reason]]
        if shutil.which(command[0]) is None:
            return False
        try:
            done = subprocess.run(  # noqa: S603 - one of the commands above
                command, cwd=folder, capture_output=True, timeout=_FETCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def excused(reason: str, beside: Path = _BESIDE) -> bool:
    """Whether the machine really lacks what a reason to skip says, and may lack it."""
    if reason.endswith(_WANTS_DATA):
        return not beside.is_dir()
    if reason.endswith(_NOT_INSTALLED):
        program = reason.removesuffix(" is not installed").rpartition(" ")[2]
        return shutil.which(program) is None
    found = next((known for known in _FETCHES if reason.endswith(known)), None)
    return found is not None and not _can_fetch(found)


def main(report: Path, beside: Path = _BESIDE) -> int:
    """Prints what was wrongly skipped and returns the exit code."""
    found = list(skipped(report))
    faults = [(test, reason) for test, reason in found if not excused(reason, beside)]
    for test, reason in faults:
        print(f"skipped: {test}: {reason}", file=sys.stderr)
    if faults:
        print(f"{len(faults)} test(s) skipped that this machine could run; install what they name", file=sys.stderr)
        return 1
    print(f"{len(found)} test(s) skipped, each for data or a program that this machine does not have")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .ci/check_skips.py REPORT.xml")
    sys.exit(main(Path(sys.argv[1])))
