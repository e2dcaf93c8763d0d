"""Samples are made of what workers count: rates, and percentiles out of histograms, over the windows of every resolution.

Percentiles cannot be averaged, counts can be added: so each window adds up its counts, and only its end makes percentiles of
them. What has not changed since the last look costs a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import add, sub
from typing import Any, NamedTuple

from blockyard.control.history.series import COLUMNS, NONE, RESOLUTIONS, Resolution
from blockyard.scsi.traffic import BOUNDS, quantile

Counts = tuple[int, ...]  # _PLAIN of a volume, hits and misses of its caches, buckets of its reads, those of its writes
Values = tuple[float, ...]  # one for each of the kind's COLUMNS

_PLAIN = ("read_ops", "write_ops", "read_bytes", "write_bytes")
_CACHES = slice(len(_PLAIN), len(_PLAIN) + 2)
_READS = slice(_CACHES.stop, _CACHES.stop + len(BOUNDS) + 1)
_WRITES = slice(_READS.stop, _READS.stop + len(BOUNDS) + 1)
_NO_BUCKETS = (0,) * (len(BOUNDS) + 1)
_IDLE = (0,) * _WRITES.stop


class Look(NamedTuple):
    """What there is at a moment."""

    counts: dict[str, Counts]  # by volume
    depths: dict[str, int]
    pools: dict[str, Values]
    whole: bool = True  # all workers have answered


class Point(NamedTuple):
    """A window that is over: values by kind and name. `time`: when it began, a multiple of the step."""

    resolution: Resolution
    time: int
    values: dict[str, dict[str, Values]]


def look(replies: Iterable[Mapping[str, Any] | None]) -> Look:
    """What workers have told as their measurements (worker/requests.py)."""
    answers = list(replies)
    found = Look({}, {}, {}, None not in answers)
    for reply in answers:
        if reply is None:
            continue
        traffic, layers = reply.get("traffic", {}), reply.get("layers", {})
        for name, counters in reply["volumes"].items():
            plain = tuple(counters[each] for each in _PLAIN)
            pairs = traffic.get(name, {}).values()
            hits = _of_caches(layers.get(name, ()))
            found.counts[name] = (*plain, *hits, *_buckets(pairs, "reads"), *_buckets(pairs, "writes"))
        found.depths.update(reply.get("depths", {}))
        for name, pool in reply.get("pools", {}).items():
            found.pools[name] = tuple(float(pool[column]) for column in COLUMNS["pool"])
    return found


def _buckets(pairs: Iterable[Mapping[str, Any]], which: str) -> Counts:
    """Of all initiators together."""
    total = _NO_BUCKETS
    for pair in pairs:
        total = tuple(map(add, total, pair[which]["buckets"]))
    return total


def _of_caches(layers: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    counters = [layer["counters"] for layer in layers if {"hits", "misses"} <= layer["counters"].keys()]
    return int(sum(each["hits"] for each in counters)), int(sum(each["misses"] for each in counters))


class _Window:
    """What has been seen since it began."""

    def __init__(self, resolution: Resolution, wall: float, steady: float) -> None:
        self.resolution = resolution
        self.time = int(wall // resolution.step) * resolution.step
        self._began = steady
        self._looks = 0
        self._work: dict[str, Counts] = {}
        self._depths: dict[str, int] = {}
        self._pools: dict[str, Values] = {}

    def is_over(self, wall: float) -> bool:
        """Also when the clock was set back."""
        return not self.time <= wall < self.time + self.resolution.step

    def add(self, work: Mapping[str, Counts], now: Look) -> None:
        self._looks += 1
        self._pools = now.pools
        for name, counts in work.items():
            before = self._work.get(name)
            self._work[name] = counts if before is None or before is _IDLE else _sum(before, counts)
        for name in now.depths.keys() & work.keys():
            self._depths[name] = self._depths.get(name, 0) + now.depths[name]

    def point(self, steady: float) -> Point | None:
        """What it comes to; None where nothing was seen."""
        seconds = steady - self._began
        if not self._looks or seconds <= 0:
            return None
        total = _IDLE
        for counts in self._work.values():
            if counts is not _IDLE:
                total = _sum(total, counts)
        depths = {name: depth / self._looks for name, depth in self._depths.items()}
        volumes = {name: _values(counts, depths.get(name, 0.0), seconds) for name, counts in self._work.items()}
        kinds = {"total": {"": _values(total, sum(depths.values()), seconds)}, "volume": volumes, "pool": self._pools}
        return Point(self.resolution, self.time, kinds)


def _sum(some: Counts, more: Counts) -> Counts:
    return some if more is _IDLE else tuple(map(add, some, more))


def _values(counts: Counts, depth: float, seconds: float) -> Values:
    """In the order of COLUMNS."""
    if counts is _IDLE:
        return (0.0, 0.0, 0.0, 0.0, NONE, NONE, NONE, NONE, depth, NONE)
    hits, misses = counts[_CACHES]
    times = [
        NONE if (found := quantile(counts[kind], share)) is None else found
        for kind in (_READS, _WRITES)
        for share in (0.5, 0.99)
    ]
    ratio = hits / (hits + misses) if hits + misses else NONE
    return (*(counts[at] / seconds for at in range(len(_PLAIN))), *times, depth, ratio)


class Sampler:
    """Looks go in, points come out."""

    def __init__(self) -> None:
        self._before: dict[str, Counts] = {}
        self._knows_all = False  # what was not there at the last look is new, and has begun with nothing
        self._windows: list[_Window] = []

    def take(self, now: Look, wall: float, steady: float) -> list[Point]:
        """The windows that are over with this look. `wall`: seconds since 1970, `steady`: of a clock that nobody sets."""
        work = {
            name: _work(self._before.get(name, _IDLE), counts)
            for name, counts in now.counts.items()
            if self._knows_all or name in self._before
        }
        self._before |= now.counts
        self._knows_all = now.whole
        if len(self._before) > 2 * len(now.counts) + 64:  # of volumes that are long gone
            self._before = dict(now.counts)
        for window in self._windows:
            window.add(work, now)
        over = [window for window in self._windows if window.is_over(wall)]
        points = [point for window in over if (point := window.point(steady)) is not None]
        self._windows = [window for window in self._windows if window not in over]
        there = {window.resolution for window in self._windows}
        self._windows += [_Window(each, wall, steady) for each in RESOLUTIONS if each not in there]
        return points


def _work(before: Counts, now: Counts) -> Counts:
    """What was done between; a worker that was started again counts from 0."""
    if now == before:
        return _IDLE
    work = tuple(map(sub, now, before))
    return now if min(work) < 0 else work
