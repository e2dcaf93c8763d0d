"""Zeros in a disk with a cache on a persistent device: made on the origin, and what the cache had there forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from blockyard.block.cache.slots import DIRTY
from blockyard.block.device import Run

if TYPE_CHECKING:
    from blockyard.block.cache.ssd import SsdCache

_STEP = 4096  # slots or lines that are looked at under the lock


def zero(cache: SsdCache, offset: int, length: int, change: Callable[[int, int], None]) -> None:
    size, end = cache.block, offset + length
    first, stop = -(-offset // size), cache.lines if end == cache.size else end // size
    with cache.alone(offset, end):
        if first >= stop:
            cache.write(memoryview(bytes(length)), offset)
            return
        start, until = first * size, min(stop * size, cache.size)
        for begin, finish in ((offset, start), (until, end)):
            if begin < finish:
                cache.write(memoryview(bytes(finish - begin)), begin)
        with cache.below.taken(first, stop):
            try:
                change(start, until - start)
            except OSError:
                _forget_clean(cache, first, stop)
                raise
            _forget(cache, first, stop)


def _forget(cache: SsdCache, first: int, stop: int) -> None:
    """The lines are zeros on the origin: what there is of them in the cache goes."""
    slots = cache.slots
    with slots.lock:
        cache.touched = True
        cache.strike(first, stop)
    for lines in _batches(cache, first, stop):
        with slots.lock:
            entries = [line for line in lines if slots.has_entry(line)]
        if entries:
            cache.flush_origin()
        while True:
            with slots.lock:
                if not any(line in slots.older for line in entries):
                    for line in lines:
                        slots.drop(line)
                    break
            cache.barrier()
        cache.publish()
    with cache.room:
        cache.room.notify_all()


def _forget_clean(cache: SsdCache, first: int, stop: int) -> None:
    """Nobody knows what the origin has there: what is in the cache alone is all that counts."""
    with contextlib.suppress(OSError):
        cache.barrier()
    with cache.slots.lock:
        cache.strike(first, stop)
    for lines in _batches(cache, first, stop):
        with cache.slots.lock:
            for line in lines:
                if not cache.slots.has_entry(line):
                    cache.slots.drop(line)


def _batches(cache: SsdCache, first: int, stop: int) -> Iterator[list[int]]:
    """The lines of a range that are in the cache, some at a time."""
    slots = cache.slots
    if stop - first <= _STEP:
        with slots.lock:
            lines = [line for line in range(first, stop) if line in slots.index]
        yield lines
        return
    for at in range(0, slots.count, _STEP):
        with slots.lock:
            lines = [line for line in slots.fifo.lines[at : at + _STEP] if first <= line < stop and line in slots.index]
        if lines:
            yield list(dict.fromkeys(lines))


def with_dirty(cache: SsdCache, run: Run) -> Iterator[Run]:
    if run.mapped or not cache.slots.dirty_count:
        yield run
        return
    size, at, end = cache.block, run.offset, run.offset + run.length
    first, stop = at // size, -(-end // size)
    with cache.slots.lock:
        states, index = cache.slots.states, cache.slots.index
        regions = [cache.slots.dirty[region] for region in cache.slots.regions()]
        lines = sorted(line for lines in regions for line in lines if first <= line < stop)
        lines = [line for line in lines if states[index[line]] == DIRTY]
    for line in lines:
        start, until = max(line * size, at), min((line + 1) * size, end)
        if at < start:
            yield Run(at, start - at, False)
        yield Run(start, until - start, True)
        at = until
    if at < end:
        yield Run(at, end - at, False)
