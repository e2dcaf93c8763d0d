"""How many requests a client may make: a bucket of tokens for each, which fills at a rate (as in RFC 2697)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

_CLIENTS = 10_000  # that are remembered; what was used longest ago is forgotten, as it is full again by then


class Rate(NamedTuple):
    """Requests a second, and how many at once."""

    per_second: float
    burst: float


KNOWN = Rate(400, 800)  # who has proved who it is
UNKNOWN = Rate(20, 100)  # by address: logins, the console's files


class Rates:
    """`clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # client → left, when

    def take(self, client: Hashable, rate: Rate) -> float:
        """Take one request; 0 when there was one left, else the seconds until there is."""
        now = self._clock()
        left, before = self._buckets.pop(client, (rate.burst, now))
        left = min(rate.burst, left + (now - before) * rate.per_second)
        granted = left >= 1
        self._buckets[client] = (left - granted, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - left) / rate.per_second
