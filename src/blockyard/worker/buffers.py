"""Receive buffers, and the pools that all connections of a worker take their buffers from.

A connection holds a buffer only while something is in it: half a PDU, or output that the socket
would not take. So memory follows the connections that are busy, and ten thousand idle sessions cost
what their Python objects cost.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Generic, TypeVar

from blockyard.iscsi.digest import DIGEST_LENGTH
from blockyard.iscsi.negotiation import Preferences
from blockyard.iscsi.pdu import BHS_LENGTH, MAX_AHS_LENGTH

RECEIVE_CAPACITY = 2 << 20  # bytes
MAX_SEGMENT = Preferences().max_recv_data_segment_length
_LONGEST_HEADER = BHS_LENGTH + MAX_AHS_LENGTH + DIGEST_LENGTH
LONGEST_PDU = _LONGEST_HEADER + MAX_SEGMENT + DIGEST_LENGTH  # bytes
_KEPT = 4  # buffers that a pool keeps for the next one who asks

B = TypeVar("B")


class ReceiveBuffer:
    """`memory[start:end]` is what has been received and not handled."""

    __slots__ = ("end", "memory", "since", "start", "view")

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, RECEIVE_CAPACITY)
        self.view = memoryview(self.memory)
        self.start = 0
        self.end = 0
        self.since = 0.0  # when the newest bytes came (time.monotonic)

    @property
    def room(self) -> memoryview:
        """Where the next bytes go: never empty when all whole PDUs have been handled."""
        if self.start == self.end:
            self.start = self.end = 0
            return self.view
        # What has begun may not fit behind where it stands, with the header that tells whether a damaged one is over.
        if RECEIVE_CAPACITY - self.start < LONGEST_PDU + _LONGEST_HEADER:
            length = self.end - self.start
            self.view[:length] = self.view[self.start : self.end]
            self.start, self.end = 0, length
        return self.view[self.end :]


class Pool(Generic[B]):
    """Buffers that nobody uses now."""

    def __init__(self, make: Callable[[], B]) -> None:
        self._make = make
        self._free: list[B] = []

    def take(self) -> B:
        return self._free.pop() if self._free else self._make()

    def give(self, buffer: B) -> None:
        """Take a buffer back; its owner has emptied it, or does not care."""
        if len(self._free) < _KEPT:
            self._free.append(buffer)
