"""Commands set up the logging of their process; run in that of the tests, they must not leave it set up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

__all__ = ["logging_put_back"]


@contextmanager
def logging_put_back() -> Iterator[None]:
    """Puts the logging of the process back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
