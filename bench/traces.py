"""What several ways to choose a line to give up hit, on traces: `python -m bench.traces`.

Lines of 4 KiB; the cache has a tenth, or a hundredth, of the working set. Each trace is made anew from a fixed seed. "zipf" are
random reads in which few lines are hot; "with scans" reads a run of the whole disk now and then, as a backup does; "loop" goes
around in a range a fifth larger than the cache; "shift" changes what is hot; "pool" is a small hot set (metadata) beside uniform
reads. The time is that of the policy alone, hits and misses together.
"""

from __future__ import annotations

import random
import time
from bisect import bisect
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate

from blockyard.block.cache.fifo import MOST, NOTHING, Fifo

_LINES = 100_000
_READS = 400_000


class Lru:
    name = "LRU"

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.lines: OrderedDict[int, None] = OrderedDict()

    def use(self, line: int) -> bool:
        hit = line in self.lines
        if hit:
            self.lines.move_to_end(line)
        else:
            self.lines[line] = None
            if len(self.lines) > self.capacity:
                self.lines.popitem(last=False)
        return hit


class Arc:
    """Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, figure 4."""

    name = "ARC"

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.target = 0
        self.once, self.often, self.gone_once, self.gone_often = (OrderedDict[int, None]() for _ in range(4))

    def use(self, line: int) -> bool:
        if line in self.once or line in self.often:
            self.once.pop(line, None)
            self.often.pop(line, None)
            self.often[line] = None
            return True
        if line in self.gone_once:
            self.target = min(self.capacity, self.target + max(1, len(self.gone_often) // len(self.gone_once)))
            self._replace(False)
            del self.gone_once[line]
            self.often[line] = None
            return False
        if line in self.gone_often:
            self.target = max(0, self.target - max(1, len(self.gone_once) // len(self.gone_often)))
            self._replace(True)
            del self.gone_often[line]
            self.often[line] = None
            return False
        if len(self.once) + len(self.gone_once) == self.capacity:
            if len(self.once) < self.capacity:
                self.gone_once.popitem(last=False)
                self._replace(False)
            else:
                self.once.popitem(last=False)
        else:
            total = len(self.once) + len(self.often) + len(self.gone_once) + len(self.gone_often)
            if total >= self.capacity:
                if total == 2 * self.capacity:
                    self.gone_often.popitem(last=False)
                self._replace(False)
        self.once[line] = None
        return False

    def _replace(self, was_often: bool) -> None:
        if self.once and (len(self.once) > self.target or (was_often and len(self.once) == self.target)):
            line, _ = self.once.popitem(last=False)
            self.gone_once[line] = None
        elif self.often:
            line, _ = self.often.popitem(last=False)
            self.gone_often[line] = None


class S3Fifo:
    """The one that is used (blockyard.block.cache.fifo)."""

    name = "S3-FIFO"

    def __init__(self, capacity: int) -> None:
        self.fifo = Fifo(capacity)
        self.index: dict[int, int] = {}

    def use(self, line: int) -> bool:
        slot = self.index.get(line)
        if slot is not None:
            uses = self.fifo.uses[slot]
            if uses < MOST:
                self.fifo.uses[slot] = uses + 1
            return True
        if len(self.index) < self.fifo.capacity:
            slot = len(self.index)
        else:
            slot = self.fifo.evict()
            if self.fifo.lines[slot] != NOTHING:
                del self.index[self.fifo.lines[slot]]
        self.fifo.insert(slot, line)
        self.index[line] = slot
        return False


def _zipf(chance: random.Random, skew: float, lines: int = _LINES) -> Iterator[int]:
    weights = list(accumulate(1 / (rank + 1) ** skew for rank in range(lines)))
    places = list(range(lines))
    chance.shuffle(places)
    while True:
        yield places[bisect(weights, chance.random() * weights[-1])]


def _with_scans(chance: random.Random) -> Iterator[int]:
    hot = _zipf(chance, 0.9)
    while True:
        for _ in range(40_000):
            yield next(hot)
        start = chance.randrange(_LINES * 4)
        yield from range(start + _LINES, start + _LINES + 20_000)


def _loop(capacity: int) -> Iterator[int]:
    while True:
        yield from range(capacity * 6 // 5)


def _shift(chance: random.Random) -> Iterator[int]:
    at, hot = 0, _zipf(chance, 1.0)
    while True:
        for _ in range(_READS // 8):
            yield next(hot) + at
        at += _LINES // 2


def _pool(chance: random.Random, capacity: int) -> Iterator[int]:
    while True:
        yield chance.randrange(capacity // 2) if chance.random() < 0.5 else _LINES + chance.randrange(_LINES * 4)


def traces(capacity: int) -> Iterator[tuple[str, Iterator[int]]]:
    yield "zipf 0.9", _zipf(random.Random(1), 0.9)
    yield "zipf 1.1", _zipf(random.Random(2), 1.1)
    yield "with scans", _with_scans(random.Random(3))
    yield "loop", _loop(capacity)
    yield "shift", _shift(random.Random(4))
    yield "pool", _pool(random.Random(5), capacity)


def main() -> int:
    print(f"{'trace':12} {'cache':>7}" + "".join(f"{each.name:>18}" for each in (Lru, Arc, S3Fifo)))
    for capacity in (_LINES // 10, _LINES // 100):
        for name, trace in traces(capacity):
            lines = [next(trace) for _ in range(_READS)]
            row = f"{name:12} {capacity:7}"
            for kind in (Lru, Arc, S3Fifo):
                cache = kind(capacity)
                began = time.perf_counter()
                hits = sum(map(cache.use, lines))
                spent = (time.perf_counter() - began) / len(lines) * 1e6
                row += f"{hits / len(lines):9.1%} {spent:5.2f} us"
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
