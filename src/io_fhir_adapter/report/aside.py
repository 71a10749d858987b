"""The nightly report, made by a process of its own: what draws keeps 150 MiB, and a service draws but once a night.

The process is this module; what it makes the report from comes on its stdin, and the files leave on its stdout.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.report.nightly import ReportData
from io_fhir_adapter.report.nightly_pdf import report_files

__all__ = ["report_files_aside"]


def report_files_aside(data: ReportData, *, pdf: bool = False) -> dict[str, bytes]:
    """As :func:`.nightly_pdf.report_files`.

    Raises:
        AdapterError: The process ended before it was done.
    """
    command = [sys.executable, "-m", "io_fhir_adapter.report.aside"]
    given = pickle.dumps((data, pdf))
    done = subprocess.run(  # noqa: S603 - ourselves
        command, input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise AdapterError(
            f"the process that draws the report ended early ({done.returncode})",
            do="see that there are 300 MiB of memory for it; the night itself is done, and the next one draws again",
            number=3,
            transient=True,
        )
    files: dict[str, bytes] = pickle.loads(done.stdout)  # noqa: S301 - of a process that this one started
    return files


if __name__ == "__main__":
    asked = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - of the process that started this one
    sys.stdout.buffer.write(pickle.dumps(report_files(asked[0], pdf=asked[1])))
