"""Lines of a device in memory: where the tier in RAM keeps its bytes.

One private mapping, as large as the cache may ever become, of which the kernel provides what is touched. A hit is one look-up
and one copy under a lock, without a system call: 1.4 us for 4 KiB, as much as pread(2) from the page cache. Huge pages make that
so: with small ones most of the time goes to finding the page (2.1 us). What the index needs is part of the budget, `OVERHEAD`
bytes a line.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterable
from threading import Lock

from blockyard.block.cache.fifo import NOTHING, Fifo

OVERHEAD = (
    160  # bytes a line at most: an entry of a dict that has just grown and two ints (124), array, queue, uses, ghost
)
_NORESERVE = 0x4000  # MAP_NORESERVE (asm-generic/mman-common.h)
_HUGE = 2 << 20
_AT_A_TIME = 4096  # slots that are looked at under the lock


class Lines:
    """At most `budget` bytes of lines of `line_size` bytes (a power of two) and what it takes to find them.

    Its methods want `lock` held, save where they say that they take it.
    """

    def __init__(self, budget: int, line_size: int) -> None:
        self.line_size = line_size
        self.lock = Lock()
        self.index: dict[int, int] = {}  # line → slot
        self.evicted = 0
        self._memory = _reserve()
        self.view = memoryview(self._memory)
        self.fifo = Fifo(self._slots(budget))
        self._fresh = 0  # slots from here on were never used

    def _slots(self, budget: int) -> int:
        slots = budget // (self.line_size + OVERHEAD)
        if slots < 1 or slots * self.line_size > len(self._memory):
            raise OSError(
                errno.EINVAL,
                f"A cache has from {self.line_size + OVERHEAD} bytes up to the memory of the machine ({len(self._memory)})",
            )
        return slots

    @property
    def used(self) -> int:
        """Bytes of memory that are in use."""
        return self._fresh * (self.line_size + OVERHEAD)

    def at(self, slot: int) -> memoryview:
        start = slot * self.line_size
        return self.view[start : start + self.line_size]

    def put(self, line: int, data: memoryview) -> int:
        """Have a line, of which `data` is all that there is of the device; where it is."""
        slot = self.index.get(line)
        if slot is None:
            slot = self._take()
            self.fifo.insert(slot, line)
            self.index[line] = slot
        start = slot * self.line_size
        self.view[start : start + len(data)] = data
        return slot

    def _take(self) -> int:
        if self._fresh < self.fifo.capacity:
            self._fresh += 1
            return self._fresh - 1
        slot = self.fifo.evict()
        line = self.fifo.lines[slot]
        if line != NOTHING:
            del self.index[line]
            self.evicted += 1
        return slot

    def drop(self, lines: Iterable[int]) -> None:
        for line in lines:
            slot = self.index.pop(line, None)
            if slot is not None:
                self.fifo.clear(slot)

    def drop_range(self, first: int, end: int) -> None:
        """Drop the lines from `first` to before `end`. Takes the lock, time and again where there are many."""
        if end - first <= _AT_A_TIME:
            with self.lock:
                self.drop(range(first, end))
            return
        for slot in range(0, self._fresh, _AT_A_TIME):
            with self.lock:
                self.drop([line for line in self.fifo.lines[slot : slot + _AT_A_TIME] if first <= line < end])

    def resize(self, budget: int) -> None:
        """Use more memory, or less: then what is in the slots beyond goes, and their memory with it. Takes the lock."""
        slots = self._slots(budget)
        with self.lock:
            if slots < self._fresh:
                for line in self.fifo.lines[slots : self._fresh]:
                    self.index.pop(line, None)
                self._fresh = slots
                self.index = dict(self.index)  # a dict that was large stays so
            self.fifo.resize(slots)
            self._give_back()

    def _give_back(self) -> None:
        start = -(-self._fresh * self.line_size // mmap.PAGESIZE) * mmap.PAGESIZE
        if start < len(self._memory):
            self._memory.madvise(mmap.MADV_DONTNEED, start, len(self._memory) - start)

    def close(self) -> None:
        """Give all memory back. Takes the lock."""
        with self.lock:
            self.index = {}
            self.fifo = Fifo(0)
            self._fresh = 0
            self.view.release()
            self._memory.close()


def _reserve() -> mmap.mmap:
    """Addresses for all memory that the machine has: a cache that is larger has no use."""
    size = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // _HUGE * _HUGE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    memory.madvise(mmap.MADV_DONTDUMP)  # a core dump is for the program, not for what disks hold
    with contextlib.suppress(OSError):  # a kernel without them: small pages do
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
