"""The short road to a cache on a persistent device: hits, and writes that need no room to be made (block/device.py, Quick)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from os import preadv, pwrite
from typing import TYPE_CHECKING

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.cache.fifo import MOST
from blockyard.block.cache.layout import ENTRY, TABLE_AT
from blockyard.block.cache.ssd_options import BACK
from blockyard.block.roads import road

if TYPE_CHECKING:
    from blockyard.block.cache.ssd import SsdCache

_MOST = 64  # blocks of one command


class QuickSsd:
    """For a cache device that is a file with a descriptor."""

    def __init__(self, cache: SsdCache) -> None:
        self.read = _reader(cache)
        self.write = _writer(cache)


def _reader(cache: SsdCache) -> Callable[[Sequence[memoryview], int, int], bool]:
    fd, size = cache.device.fd, cache.block
    shift, mask = size.bit_length() - 1, size - 1
    flags = os.RWF_NOWAIT if cache.device.nowait else 0
    below = road(cache.origin)[0]

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        """Fill `buffers`, of `length` bytes together, from `offset` on. False when that takes waiting, or fails."""
        if (offset & mask) + length > size * _MOST:
            return False
        if not cache.attached:
            return below(buffers, offset, length)
        for buffer in buffers:
            if not read_one(buffer, offset):
                return False
            offset += len(buffer)
        cache.hits += 1
        return True

    def read_one(buffer: memoryview, offset: int) -> bool:
        at, length, slots = 0, len(buffer), cache.slots
        index, base, numbers, uses = slots.index, slots.data_at, slots.numbers, slots.fifo.uses
        try:
            while at < length:
                inside = offset & mask
                step = min(size - inside, length - at)
                line = offset >> shift
                slot = index.get(line)
                if slot is None:
                    return False
                number = numbers[slot]
                part = buffer if step == length else buffer[at : at + step]
                if preadv(fd, (part,), base + (slot << shift) + inside, flags) != step:
                    return False
                if numbers[slot] != number or index.get(line) != slot or cache.slots is not slots:  # in other hands
                    return False
                if uses[slot] < MOST:
                    uses[slot] += 1
                at += step
                offset += step
        except OSError:
            return False
        return True

    return read


def _writer(cache: SsdCache) -> Callable[[memoryview, int], bool]:
    fd, size = cache.device.fd, cache.block
    shift, mask, lock, publishing = size.bit_length() - 1, size - 1, cache.slots.lock, cache.publishing
    below = road(cache.origin)[1]

    def write(data: memoryview, offset: int) -> bool:
        """Write `data` at `offset`, to survive the death of the process. False when that takes waiting, or fails."""
        length = len(data)
        if not cache.attached:
            cache.touched = True
            return below(data, offset)
        if (offset | length) & mask or length > size * _MOST or cache.mode != BACK:
            return False
        first, count = offset >> shift, length >> shift
        if not cache.writers.take(first, first + count):
            return False
        try:
            if not publishing.acquire(blocking=False):
                return False
            try:
                return store(data, first, count)
            finally:
                publishing.release()
        except OSError:
            return False
        finally:
            cache.writers.release(first, first + count)

    def store(data: memoryview, first: int, count: int) -> bool:
        slots = cache.slots
        base = slots.data_at
        with lock:
            if slots.dirty_count + count > cache.limit or slots.available < count:
                return False
            taken = [slots.take() for _ in range(count)]
        kept = False
        try:
            checksums = []
            for at, slot in enumerate(taken):
                block = data if count == 1 else data[at << shift : at + 1 << shift]
                if pwrite(fd, block, base + (slot << shift)) != size:
                    return False
                checksums.append(crc32c(block))
            with lock:
                cache.strike(first, first + count)
                entries = [slots.dirty_entry(first + at, slot, checksums[at]) for at, slot in enumerate(taken)]
            kept = True
        finally:
            if not kept:
                with lock:
                    slots.give_back(taken)
        for slot, entry in zip(taken, entries, strict=True):
            if pwrite(fd, entry, TABLE_AT + slot * ENTRY.size) != ENTRY.size:
                raise OSError(errno.EIO, "The cache device has not taken an entry")
        cache.hurry()
        return True

    return write
