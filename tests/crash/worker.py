"""Nightly jobs, each in a process of its own, which may kill itself in or after its n-th transaction.

Everything is imported and loaded once; then each line on stdin (a JSON list: source, receiver, folder, date,
transaction, kind) forks a process. What is said about it on stdout: its id, the number of its transactions where it got
through, and its exit code, negative for a signal; one line each.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from sqlalchemy import Connection

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.demo import demo_config
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.review.forms import load_questionnaire


class DyingLedger(Ledger):
    """A ledger whose process dies at one of its transactions: before it is committed, or just after."""

    at = 0
    committed = False
    begun = 0

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        DyingLedger.begun += 1
        number = DyingLedger.begun
        with super().begin() as connection:
            yield connection
            if number == self.at and not self.committed:
                os.kill(os.getpid(), signal.SIGKILL)
        if number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def say(text: object) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(rules: Ruleset, source: str, receiver: str, folder: str, as_of: str, at: int, kind: str) -> None:
    """One night."""
    config = demo_config(source, receiver, Path(folder))
    ledger = open_ledger(config.ledger)
    DyingLedger.at, DyingLedger.committed = at, kind == "committed"
    ledger.__class__ = DyingLedger
    night = asyncio.run(Nightly(config, ledger, rules, as_of=date.fromisoformat(as_of)).run())
    ledger.close()
    if night.problem is not None:
        raise night.problem
    say(DyingLedger.begun)


def main() -> None:
    """Forks until there is nothing more to do."""
    nowhere = "http://127.0.0.1:9/fhir"
    rules = rules_for(demo_config(nowhere, nowhere, Path()))
    load_questionnaire()  # its expressions are remembered
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                run(rules, *json.loads(line))
            except BaseException:  # noqa: BLE001 - shown, and told by the exit code
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        say(child)
        _, status = os.waitpid(child, 0)
        say(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
