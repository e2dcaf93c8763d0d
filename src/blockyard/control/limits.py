"""Limits on failed logins: who fails waits, and longer each time.

Failures are counted by address, by initiator name and by user, over all workers. An address that has failed at
a target is kept from that target for as long as the highest of the three counts says. It is the *address that failed* that
waits: TCP makes it hard to forge, so that nobody can lock out somebody else by failing in his name. Counts by name
make it useless to spread guesses over many addresses: from the second guess on each of them waits as long as one would.

Only one target is closed, so that a host with one wrong password keeps its other disks. What is refused meanwhile neither counts
nor prolongs the wait. A success clears the counts of those who had it. Memory is bounded: what is oldest is forgotten.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

FREE = 4  # failures that cost nothing: typing errors, and a host that has not been told its password yet
FIRST_WAIT, LAST_WAIT = 1.0, 300.0  # seconds; doubles
FORGOTTEN = 1800.0  # seconds after the last failure that a count is kept
ENTRIES = 10_000  # of each kind

_Value = TypeVar("_Value")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Bounded(OrderedDict[Hashable, _Value], Generic[_Value]):
    """Forgets what was set longest ago."""

    def put(self, key: Hashable, value: _Value) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > ENTRIES:
            self.popitem(last=False)


@dataclass(frozen=True)
class Attempt:
    """A login that has ended."""

    address: Address | None
    initiator: str
    user: str  # as claimed; "" where none was
    target: str  # "": discovery


class LoginLimits:
    """Who has to wait. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: _Bounded[tuple[int, float]] = _Bounded()  # key → how many, when the last
        self._closed: _Bounded[float] = _Bounded()  # (source, target) → until when

    def wait(self, address: Address | None, target: str) -> float:
        """How many seconds logins from `address` to `target` are still refused."""
        return max(0.0, self._closed.get((_source(address), target), 0.0) - self._clock())

    def failed(self, attempt: Attempt) -> float:
        """A login has failed. How many seconds its address has to wait now."""
        now = self._clock()
        worst = 0
        for key in _keys(attempt):
            count, last = self._failures.get(key, (0, now))
            count = 1 if now - last > FORGOTTEN else count + 1
            self._failures.put(key, (count, now))
            worst = max(worst, count)
        if worst <= FREE:
            return 0.0
        seconds = min(FIRST_WAIT * 2.0 ** min(worst - FREE - 1, 32), LAST_WAIT)
        self._closed.put((_source(attempt.address), attempt.target), now + seconds)
        return seconds

    def succeeded(self, attempt: Attempt) -> None:
        """A login was granted to someone who has proved who he is."""
        for key in _keys(attempt):
            self._failures.pop(key, None)
        self._closed.pop((_source(attempt.address), attempt.target), None)


def _keys(attempt: Attempt) -> list[Hashable]:
    names = [("initiator", attempt.initiator), ("user", attempt.user)]
    return [("address", _source(attempt.address)), *(key for key in names if key[1])]


def _source(address: Address | None) -> Hashable:
    """What counts as one address: of IPv6 the /64, all of which one host can have."""
    if isinstance(address, ipaddress.IPv6Address):
        return int(address) >> 64
    return address
