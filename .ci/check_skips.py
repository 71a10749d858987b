"""Fails where a test was skipped for want of something that this machine could have.

    python .ci/check_skips.py REPORT.xml

Every skip is a fault but one kind: tests that read published code lists and sample data beside the checkout (a folder
named ``shared``) may be skipped where that folder is really absent. Reads pytest's JUnit XML.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["main", "skipped"]

_BESIDE = Path(__file__).resolve().parents[2] / "shared"
_WANTS_DATA = "absent"


def skipped(report: Path) -> Iterator[tuple[str, str]]:
    """The skipped tests of a report, with their reasons; expected failures are no skips."""
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        for mark in case.findall("skipped"):
            if mark.get("type") != "pytest.xfail":
                yield f"{case.get('classname')}::{case.get('name')}", mark.get("message") or "no reason given"


def main(report: Path, beside: Path = _BESIDE) -> int:
    """Prints what was wrongly skipped and returns the exit code."""
    found = list(skipped(report))
    faults = [(test, reason) for test, reason in found if beside.is_dir() or not reason.endswith(_WANTS_DATA)]
    for test, reason in faults:
        print(f"skipped: {test}: {reason}", file=sys.stderr)
    if faults:
        print(f"{len(faults)} test(s) skipped that this machine could run; install what they name", file=sys.stderr)
        return 1
    print(f"{len(found)} test(s) skipped, each for data that is not beside this checkout")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .ci/check_skips.py REPORT.xml")
    sys.exit(main(Path(sys.argv[1])))
