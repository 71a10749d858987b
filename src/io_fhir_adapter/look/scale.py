"""Round numbers for axes."""

from __future__ import annotations

import math

__all__ = ["even_ticks"]


def even_ticks(highest: float) -> list[int]:
    """From 0 in one to five even steps of a round number to at least ``highest``, and to 1 at the least."""
    power = 10 ** max(0, math.floor(math.log10(max(highest, 1) / 4)))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor * 5 >= highest)
    return [step * at for at in range(max(1, math.ceil(highest / step)) + 1)]
