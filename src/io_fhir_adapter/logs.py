"""Logs: one JSON object a line on stderr, without patient data.

Events are words of ours and numbers. Whatever a library, a server or a file said is not logged: of a library's record
its name and level are kept, of an exception its type.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

__all__ = ["configure_logs", "log"]

log: structlog.stdlib.BoundLogger = structlog.get_logger("io_fhir_adapter")


def configure_logs(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Sets the form of all logs, of this package and of the libraries under it.

    Libraries speak at warning and above only: at lower levels they print URLs, which hold identifiers.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _type_alone,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_LibraryFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _type_alone(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Of an exception only its type: its message may hold anything."""
    if event.pop("exc_info", None):
        kind = sys.exc_info()[0]
        event["exception"] = kind.__name__ if kind is not None else "unknown"
    return event


class _LibraryFormatter(logging.Formatter):
    """A library's record without its message, arguments and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        kept = {
            "event": "a library reported something",
            "level": record.levelname.lower(),
            "library": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        if record.exc_info and record.exc_info[0] is not None:
            kept["exception"] = record.exc_info[0].__name__
        return json.dumps(kept, sort_keys=True)
