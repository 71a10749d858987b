"""Senders and receivers of the chaos campaign, each in a process of its own that may be killed at any time.

Everything is imported, and looked through once with the submission that the first argument names, before the first
line on stdin (JSON: ``receive`` or ``send``, and what that needs) forks a process. Its id is said on stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import uvicorn
from tests.crash.worker import DyingLedger

from io_fhir_adapter.config import LedgerConfig, SubmissionConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.checks import check_submission
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import Limits
from io_fhir_adapter.submit.deliver import deliver_due


def receive(store: str, listener: int) -> None:
    """The reference receiver on a socket that outlives it, until it is killed."""
    app = create_app(ReceiverStore(f"sqlite:///{store}"))
    settings = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    uvicorn.Server(settings).run(sockets=[socket.socket(fileno=listener)])


def send(ledger: str, url: str, now: str, transaction: int, committed: bool) -> None:
    """One pass over the outbox; the process kills itself in or after a transaction, 0 for none."""
    opened = open_ledger(LedgerConfig(path=Path(ledger)))
    DyingLedger.at, DyingLedger.committed = transaction, committed
    opened.__class__ = DyingLedger
    moment = datetime.fromisoformat(now)
    config = SubmissionConfig.model_validate({"url": url, "give_up_after_days": 365, "read_timeout_s": 20})
    asyncio.run(deliver_due(opened, config, lambda: moment))
    opened.close()


def fork_for_each_line(kinds: Mapping[str, Callable[..., None]]) -> None:
    """Each line on stdin, a JSON list, names one of these and its arguments; it is run in a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
    for line in sys.stdin:
        kind, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                kinds[kind](*arguments)
            except BaseException:  # noqa: BLE001 - shown, and told by the exit code
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def main() -> None:
    """Forks for each line."""
    check_submission(json.loads(Path(sys.argv[1]).read_bytes()), limits=Limits())
    fork_for_each_line({"receive": receive, "send": send})


if __name__ == "__main__":
    main()
