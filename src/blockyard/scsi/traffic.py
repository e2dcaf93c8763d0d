"""What initiators do with a logical unit, and how long it takes: commands, bytes and a histogram of times, for reads and writes.

A time goes from when a command had come to when its answer was ready to be sent. Commands that are answered together in one
receive of the data path share its time: that is when their answers leave, and costs the clock one look a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import add
from typing import NamedTuple

# Upper bounds of the buckets in seconds: 8 µs, 16 µs, … 8.4 s; what takes longer is in one more
BOUNDS = tuple((8 << power) / 1e6 for power in range(21))
OTHERS = "others"  # initiators beyond MOST
MOST = 256  # initiators of a unit that are told apart


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """The seconds within which this share of the commands was done, as far as buckets tell; None where there were none.

    Within a bucket commands are taken to be spread evenly, as Prometheus' histogram_quantile does.
    """
    total = sum(buckets)
    if not total:
        return None
    rank, below = share * total, 0
    for number, count in enumerate(buckets[:-1]):
        if count and below + count >= rank:
            low = BOUNDS[number - 1] if number else 0.0
            return low + (BOUNDS[number] - low) * (rank - below) / count
        below += count
    return BOUNDS[-1]


class Traffic:
    """Commands of one kind. For the loop's thread."""

    __slots__ = ("buckets", "bytes", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)  # commands by their times, not cumulative
        self.bytes = 0
        self.seconds = 0.0  # all together

    def add(self, seconds: float, commands: int, length: int) -> None:
        """So many commands took `seconds` each, and moved `length` bytes together."""
        bucket = (int(seconds * 1e6) >> 3).bit_length()
        self.buckets[bucket if bucket < len(self.buckets) else -1] += commands
        self.bytes += length
        self.seconds += seconds * commands

    def as_dict(self) -> dict[str, object]:
        return {"buckets": self.buckets, "bytes": self.bytes, "seconds": round(self.seconds, 6)}


class Pair(NamedTuple):
    """Of one nexus, or of several together."""

    reads: Traffic
    writes: Traffic

    def add(self, other: Pair) -> None:
        """What another one has counted, as well."""
        for kind, more in zip(self, other, strict=True):
            kind.buckets = list(map(add, kind.buckets, more.buckets))
            kind.bytes += more.bytes
            kind.seconds += more.seconds

    def as_dict(self) -> dict[str, object]:
        return {"reads": self.reads.as_dict(), "writes": self.writes.as_dict()}

    @property
    def any(self) -> bool:
        return any(self.reads.buckets) or any(self.writes.buckets)


def pair() -> Pair:
    return Pair(Traffic(), Traffic())


class Ledger:
    """The traffic of a logical unit by initiator, as long as the unit is open: that of nexuses there are, and have been."""

    def __init__(self) -> None:
        self._open: dict[str, list[Pair]] = {}
        self._past: dict[str, Pair] = {}

    def open(self, initiator: str, traffic: Pair) -> None:
        """A nexus counts from now on; those of an initiator count together, whichever of its ports they come from."""
        self._open.setdefault(self._name(initiator), []).append(traffic)

    def close(self, initiator: str, traffic: Pair) -> Pair:
        """It is over. Where what is still under way is to be counted."""
        name = self._name(initiator)
        there = self._open.get(name, [])
        there[:] = [each for each in there if each is not traffic]
        if not there:
            self._open.pop(name, None)
        past = self._past.setdefault(name, pair())
        past.add(traffic)
        return past

    def _name(self, initiator: str) -> str:
        name = initiator.partition(",i,")[0]
        known = name in self._open or name in self._past
        return name if known or len(self._open.keys() | self._past.keys()) < MOST else OTHERS

    def by_initiator(self) -> dict[str, Pair]:
        """Of those who have done anything."""
        found = {}
        for name in (*self._past, *(name for name in self._open if name not in self._past)):
            pairs = [*self._open.get(name, ()), *([self._past[name]] if name in self._past else ())]
            if any(each.any for each in pairs):
                found[name] = together(pairs)
        return found

    def as_dict(self) -> dict[str, object]:
        return {name: each.as_dict() for name, each in self.by_initiator().items()}


def together(pairs: Iterable[Pair]) -> Pair:
    """All of them in one."""
    first, *others = pairs
    if not others:
        return first
    found = pair()
    for each in (first, *others):
        found.add(each)
    return found
