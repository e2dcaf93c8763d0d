"""What initiators do with a logical unit, and how long it takes: commands, bytes and a histogram of times, for reads and writes.

A time goes from when a command had come to when its answer was ready to be sent. Commands that are answered together in one
receive of the data path share its time: that is when their answers leave, and costs the clock one look a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Of one initiator and one logical unit."""

    reads: Traffic
    writes: Traffic


class Ledger:
    """The traffic of a logical unit by initiator, as long as the unit is open."""

    def __init__(self) -> None:
        self._pairs: dict[str, Pair] = {}

    def of(self, initiator: str) -> Pair:
        """Where the commands of an initiator count, whichever of its ports they come from."""
        name = initiator.partition(",i,")[0]
        if name not in self._pairs and len(self._pairs) >= MOST:
            name = OTHERS
        return self._pairs.setdefault(name, Pair(Traffic(), Traffic()))

    def as_dict(self) -> dict[str, object]:
        """By initiator, of those who have done anything."""
        return {
            name: {"reads": pair.reads.as_dict(), "writes": pair.writes.as_dict()}
            for name, pair in list(self._pairs.items())
            if any(pair.reads.buckets) or any(pair.writes.buckets)
        }
