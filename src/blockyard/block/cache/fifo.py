"""Which line of a cache makes room for another: S3-FIFO (Yang et al., "FIFO queues are all you need", SOSP 2023).

New lines enter a small queue, a tenth of the cache. What has been used twice by the time it gets to the end of that goes over to
the main queue, the rest leaves; so a scan passes through the small queue and touches nothing else. What comes back soon after it
has left goes to the main queue at once. There a line that has been used goes around again, once for each use up to three.

A hit is one byte counted up: no list is put in order, which is why this and not ARC or LRU. `python -m bench.cache traces`
compares what they hit.

Not thread-safe: whoever owns it has a lock.
"""

from __future__ import annotations

from array import array
from collections import deque

NOTHING = -1  # as the line of a slot
MOST = 3  # uses that count
MARK = 0x80  # in `uses`: somebody wants to know of the next use; see Line marks in ram.py
_LOOKS = 256  # that are taken at most for one line: then the next one leaves, whatever its use
_TO_MAIN = 2  # uses that take a line from the small queue to the main one


class Fifo:
    """The order in which `capacity` slots are given up. `lines` says what is in each; a slot with NOTHING leaves first."""

    def __init__(self, capacity: int) -> None:
        self.lines = array("q", [NOTHING]) * capacity
        self.uses = bytearray(capacity)
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._gone = array("I", [0]) * max(1, capacity)  # what left the small queue of late, by its last digits

    @property
    def capacity(self) -> int:
        return len(self.lines)

    def __len__(self) -> int:
        """How many slots are in the queues."""
        return len(self._small) + len(self._main)

    def insert(self, slot: int, line: int) -> None:
        """A line is in a slot from now on, which is in no queue."""
        self.lines[slot] = line
        self.uses[slot] = 0
        (self._main if self._was_here(line) else self._small).append(slot)

    def _was_here(self, line: int) -> bool:
        return self._gone[line % len(self._gone)] == (line & 0x7FFFFFFF) + 1

    def clear(self, slot: int) -> None:
        """Nothing is in a slot any more; it stays in its queue."""
        self.lines[slot] = NOTHING
        self.uses[slot] = 0

    def evict(self) -> int:
        """Take a slot out of the queues: the one to be given up. `lines` says still what is in it. There must be one."""
        small, main, lines, uses = self._small, self._main, self.lines, self.uses
        looks = 0
        while True:
            looks += 1
            if small and (len(small) * 10 >= len(lines) or not main):
                slot = small.popleft()
                line = lines[slot]
                if line != NOTHING and uses[slot] & MOST >= _TO_MAIN and looks < _LOOKS:
                    uses[slot] = 0
                    main.append(slot)
                    continue
                if line != NOTHING:
                    self._gone[line % len(self._gone)] = (line & 0x7FFFFFFF) + 1
                return slot
            slot = main.popleft()
            count = uses[slot] & MOST
            if count and looks < _LOOKS:
                uses[slot] = count - 1
                main.append(slot)
                continue
            return slot

    def resize(self, capacity: int) -> None:
        """Have more or fewer slots. Those that are cut off are in no queue any more: whoever calls has given them up."""
        had = len(self.lines)
        if capacity > had:
            self.lines.extend(array("q", [NOTHING]) * (capacity - had))
            self.uses.extend(bytes(capacity - had))
        else:
            del self.lines[capacity:], self.uses[capacity:]
            self._small = deque(slot for slot in self._small if slot < capacity)
            self._main = deque(slot for slot in self._main if slot < capacity)
        self._gone = array("I", [0]) * max(1, capacity)
