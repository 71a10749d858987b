"""Fewer looks for circular garbage while millions of resources go by.

Hardly anything in a pull is circular. The collector of Python looks all the same, the more often the more is made, and
each time through everything that the program has loaded: that takes a tenth of a pull.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["collecting_seldom"]

_SELDOM: Final = 100_000, 20, 50  # see gc.set_threshold


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Leaves alone what there is when the block begins, and looks at what it makes more rarely than is usual."""
    usual = gc.get_threshold()
    gc.freeze()
    if usual[0]:  # else whoever runs this has switched it off
        gc.set_threshold(*map(max, usual, _SELDOM))
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
