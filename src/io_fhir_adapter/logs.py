"""Logs: one JSON object a line on stderr, without patient data.

Events are words of ours and numbers. Whatever a library, a server or a file said is not logged: of a library's record
its name and level are kept, of an exception its type. What an event may carry stands in :data:`KEYS`, each key with the
form of its values; anything else is dropped before it is written, and its number is said under ``dropped``.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final, TextIO, cast

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars
from structlog.typing import EventDict, WrappedLogger

__all__ = ["KEYS", "configure_logs", "log", "within_run"]


def _shaped(pattern: str) -> Callable[[object], bool]:
    form = re.compile(pattern)
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _number(value: object) -> bool:
    return isinstance(value, int | float)


_NAME: Final = _shaped(r"[a-z0-9][a-z0-9_-]{0,39}")  # as the configuration names sources and targets
_WORDS: Final = _shaped(r"[a-z][a-z' ,:-]{0,79}")
_TYPE: Final = _shaped(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
_MOMENT: Final = _shaped(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(?:Z|[+-][0-9:]+)?")

KEYS: Final[Mapping[str, Callable[[object], bool]]] = {
    "event": _WORDS,
    "level": _NAME,
    "timestamp": _MOMENT,
    "run": _number,
    "code": _shaped(r"IOA-[A-Z]{3}-[0-9]{3}"),
    "exception": _TYPE,
    "reason": _WORDS,
    "source": _NAME,
    "target": _NAME,
    "complete": _number,
    "counted": _number,
    "files": _number,
    "messages": _number,
    "missed": _number,
    "port": _number,
    "quarantined": _number,
    "read": _number,
    "requests": _number,
    "removed": _number,
    "retried": _number,
    "seconds": _number,
    "host": _shaped(r"[A-Za-z0-9.:_-]{1,253}"),
    "job": _NAME,
    "outcome": _NAME,
    "state": _NAME,
    "began": _MOMENT,
    "due": _MOMENT,
    "before": _shaped(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "submission": _shaped(r"sha256:[0-9a-f]{64}"),
}
"""What an event may carry, and the form of each value; numbers include yes and no."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("io_fhir_adapter")


def configure_logs(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Sets the form of all logs, of this package and of the libraries under it.

    Libraries speak at warning and above only: at lower levels they print URLs, which hold identifiers.
    """
    structlog.configure(
        processors=[
            merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _type_alone,
            _known_alone,
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


def _known_alone(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Of an event only what may be in it, in the form that it has."""
    kept: dict[str, Any] = {key: value for key, value in event.items() if key in KEYS and KEYS[key](value)}
    dropped = len(event) - len(kept)
    if dropped:
        kept["dropped"] = dropped
    kept.setdefault("event", "an event that may not be shown")
    return kept


def within_run(run: int) -> AbstractContextManager[None]:
    """All that is logged inside, by libraries too, carries the number of the run."""
    return cast("AbstractContextManager[None]", bound_contextvars(run=run))


class _LibraryFormatter(logging.Formatter):
    """A library's record without its message, arguments and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        kept: dict[str, Any] = {
            "event": "a library reported something",
            "level": record.levelname.lower(),
            "library": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        if "run" in get_contextvars():
            kept["run"] = get_contextvars()["run"]
        if record.exc_info and record.exc_info[0] is not None:
            kept["exception"] = record.exc_info[0].__name__
        return json.dumps(kept, sort_keys=True)
