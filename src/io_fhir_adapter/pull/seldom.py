"""Fewer looks for circular garbage while millions of resources go by.

Hardly anything in a pull is circular. The collector of Python looks all the same, the more often the more is made, and
now and then through everything that the program has loaded: that takes a tenth of a pull. What there is already is not
set aside for the while (``gc.freeze``): it would come back as the oldest there is, the garbage of the last night with
it, and that is looked at so rarely that each night would leave some.
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
    """Looks more rarely than is usual for as long as the block lasts."""
    usual = gc.get_threshold()
    if usual[0]:  # else whoever runs this has switched it off
        gc.set_threshold(*map(max, usual, _SELDOM))
    try:
        yield
    finally:
        gc.set_threshold(*usual)
