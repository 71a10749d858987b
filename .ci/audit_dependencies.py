"""Are there known vulnerabilities in what the project is installed with? Asks the vulnerability service of pip-audit.

Exit code 1 where one is known. Where the service cannot be asked, as behind a registry that mirrors packages alone,
that is said and nothing fails: the next machine that reaches it will tell.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["verdict"]

_PINNED = Path(__file__).resolve().parents[1] / "constraints.txt"


def verdict(dependencies: Sequence[dict[str, Any]]) -> tuple[int, str]:
    """Exit code and sentence for what pip-audit found of each dependency."""
    known = [one for one in dependencies if "skip_reason" not in one]
    if not known:
        return 0, "not audited: the vulnerability service cannot be asked from here"
    found = [f"{one['name']} {one['version']}: {fault['id']}" for one in known for fault in one["vulns"]]
    if found:
        return 1, "known vulnerabilities:\n" + "\n".join(f"  {line}" for line in found)
    rest = len(dependencies) - len(known)
    return 0, f"{len(known)} packages without a known vulnerability" + (f", {rest} unknown to it" if rest else "")


def main() -> int:
    """Audits the pinned versions."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(_PINNED), "--no-deps", "--disable-pip"]
    done = subprocess.run(  # noqa: S603 - all of it is written here
        [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):  # it could not reach the service at all
        dependencies = []
    code, sentence = verdict(dependencies)
    sys.stdout.write(f"{sentence}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
