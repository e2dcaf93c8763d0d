"""The short road to a cache in memory, shaped by speed: it is on the way of every command (worker/fastpath.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from blockyard.block.cache.fifo import MOST
from blockyard.block.roads import has_road, road

if TYPE_CHECKING:
    from blockyard.block.cache.ram import RamCache


class QuickRam:
    """The short road (blockyard.block.device.Quick): hits, and writes where the device below takes them without waiting."""

    def __init__(self, cache: RamCache) -> None:
        self.read = _reader(cache)
        self.write = _writer(cache)


def _reader(cache: RamCache) -> Callable[[Sequence[memoryview], int, int], bool]:
    lines, lock, size = cache.lines, cache.lines.lock, cache.lines.line_size
    shift, mask, below = size.bit_length() - 1, size - 1, road(cache.below)[0]

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        """Fill `buffers`, of `length` bytes together, from `offset` on. False when that takes waiting."""
        inside = offset & mask
        if inside + length > size or len(buffers) != 1:
            return several(buffers, offset)
        with lock:
            slot = lines.index.get(offset >> shift)
            if slot is not None:
                uses = lines.fifo.uses
                count = uses[slot]
                if count < MOST:
                    uses[slot] = count + 1
                elif count > MOST:  # a mark: the long road reads ahead
                    return False
                start = (slot << shift) + inside
                buffers[0][:] = lines.view[start : start + length]
                cache.hits += 1
                return True
        return not cache.attached and below(buffers, offset, length)

    def several(buffers: Sequence[memoryview], offset: int) -> bool:
        with lock:
            index, uses, view = lines.index, lines.fifo.uses, lines.view
            for buffer in buffers:
                at, length = 0, len(buffer)
                while at < length:
                    slot = index.get(offset >> shift)
                    if slot is None or uses[slot] > MOST:
                        return False
                    if uses[slot] < MOST:
                        uses[slot] += 1
                    start = (slot << shift) + (offset & mask)
                    step = min(size - (offset & mask), length - at)
                    buffer[at : at + step] = view[start : start + step]
                    at += step
                    offset += step
            cache.hits += 1
        return True

    return read


def _writer(cache: RamCache) -> Callable[[memoryview, int], bool]:
    below, writers, lock = road(cache.below)[1], cache.writers, cache.lines.lock
    able = has_road(cache.below)

    def write(data: memoryview, offset: int) -> bool:
        """Write `data` at `offset`, to survive the death of the process. False when that takes waiting, or fails."""
        end = offset + len(data)
        if not able or not writers.take(offset, end):
            return False
        try:
            if below(data, offset):
                with lock:
                    cache.note(data, offset)
                return True
            cache.drop(offset, end)  # half of it may have been done
            return False
        finally:
            writers.release(offset, end)

    return write
