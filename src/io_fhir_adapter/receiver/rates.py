"""How often somebody may ask: token buckets in memory, one for each name."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Rate", "RateLimiter", "neighbourhood"]

_MOST_NAMES: Final = 10_000
_IPV6_SITE: Final = 64  # the part of an address that a site is given; the rest it may choose


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests at once, and so many more with every second; ``per_s`` 0 for any number."""

    burst: float
    per_s: float


class RateLimiter:
    """One bucket for each name, full at first.

    Args:
        rate: The same for all.
        clock: Seconds, going forward only.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> float:
        """Takes one from the bucket of ``name``; how many seconds to wait first, 0 where one was there."""
        return self._look(name, 1.0)

    def wait(self, name: str) -> float:
        """How many seconds to wait until there is one; takes none."""
        return self._look(name, 0.0)

    def _look(self, name: str, cost: float) -> float:
        if self._rate.per_s <= 0:
            return 0.0
        now = self._clock()
        with self._lock:
            level, seen = self._buckets.pop(name, (self._rate.burst, now))
            level = min(self._rate.burst, level + (now - seen) * self._rate.per_s)
            short = 1.0 - level
            self._buckets[name] = (level if short > 0 else level - cost, now)
            while len(self._buckets) > _MOST_NAMES:  # who asked longest ago has a full bucket by now, or soon
                self._buckets.popitem(last=False)
        return max(0.0, short / self._rate.per_s)


def neighbourhood(host: str) -> str:
    """The name of an address for counting: itself, of IPv6 the network that it lies in."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, _IPV6_SITE), strict=False))
    return str(address)
