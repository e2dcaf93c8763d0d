"""A layer that makes the device below fail, or be slow, where and when it is told to: for tests of what is above."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import Lock

from blockyard.block.device import Device, Run, Space


class Operation(Enum):
    """What a fault strikes."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    DISCARD = "discard"  # and write_zeroes


@dataclass
class Fault:
    """Strikes an operation that touches `offset` to `offset + length` (flush: always).

    First `delay` seconds pass, then an OSError with `errno` is raised unless that is 0. The first `skip`
    hits go free; `count` further ones are struck, all when it is None.
    """

    operation: Operation
    offset: int = 0
    length: int = 1 << 63
    errno: int = 0
    delay: float = 0.0
    skip: int = 0
    count: int | None = None
    hits: int = 0  # how often it was in the way, skipped ones included

    def strikes(self, operation: Operation, offset: int, length: int) -> bool:
        """Whether it strikes this operation; counts the hit."""
        if operation is not self.operation or (self.count is not None and self.hits >= self.skip + self.count):
            return False
        touches = offset < self.offset + self.length and self.offset < offset + length
        if operation is not Operation.FLUSH and not touches:
            return False
        self.hits += 1
        return self.hits > self.skip


class FaultDevice(Device):
    """The device `below`, with faults. It shows no descriptor, so that every operation passes by here."""

    def __init__(self, below: Device, faults: Sequence[Fault] = ()) -> None:
        self.below = below
        self.size = below.size
        self.read_only = below.read_only
        self.granularity = below.granularity
        self.rotational = below.rotational
        self._faults = list(faults)
        self._lock = Lock()

    def inject(self, fault: Fault) -> Fault:
        """Add a fault; returns it, so that it can be healed and its hits be read."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self, fault: Fault | None = None) -> None:
        """Take one fault away, or all."""
        with self._lock:
            self._faults = [] if fault is None else [f for f in self._faults if f is not fault]

    def _pass(self, operation: Operation, offset: int = 0, length: int = 0) -> None:
        with self._lock:
            struck = [fault for fault in self._faults if fault.strikes(operation, offset, length)]
        for fault in struck:
            if fault.delay:
                time.sleep(fault.delay)
            if fault.errno:
                raise OSError(fault.errno, os.strerror(fault.errno))

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._pass(Operation.READ, offset, sum(map(len, buffers)))
        self.below.preadv(buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self._pass(Operation.WRITE, offset, sum(map(len, buffers)))
        self.below.pwritev(buffers, offset)

    def flush(self) -> None:
        self._pass(Operation.FLUSH)
        self.below.flush()

    def truncate(self, size: int) -> None:
        self._pass(Operation.WRITE, min(size, self.size), abs(size - self.size))
        self.below.truncate(size)
        self.size = self.below.size

    def refresh(self) -> None:
        self.below.refresh()
        self.size = self.below.size

    def prefetch(self, offset: int, length: int) -> None:
        self.below.prefetch(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self._pass(Operation.DISCARD, offset, length)
        self.below.discard(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._pass(Operation.DISCARD, offset, length)
        self.below.write_zeroes(offset, length)

    def space(self) -> Space | None:
        return self.below.space()

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return self.below.runs(offset, length)

    def close(self) -> None:
        self.below.close()
