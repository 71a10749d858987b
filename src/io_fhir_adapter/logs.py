"""Logs: one JSON object a line on stderr, without patient data.

Events are words of ours and numbers; nothing that a server or a file said is logged as it is.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

__all__ = ["configure_logs", "log"]

log: structlog.stdlib.BoundLogger = structlog.get_logger("io_fhir_adapter")


def configure_logs(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Sets the form of all logs, of this package and of the libraries under it.

    Libraries speak at warning and above only: at lower levels they print URLs, which hold identifiers.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream or sys.stderr, format="%(levelname)s %(name)s", force=True)
