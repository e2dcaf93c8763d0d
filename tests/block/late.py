"""A device in memory whose accesses overlap: they are done in the end, and in an order that nobody chose."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from blockyard.block.device import Done
from blockyard.block.memory import MemoryDevice


class Late:
    """Its accesses (device.Overlapped). While `held`, none of them ends; with `errors`, the next ones fail with those errnos."""

    def __init__(self, device: MemoryDevice, seed: int) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.held = False
        self.errors: list[int] = []
        self.most = 0  # that were under way at a time
        self.waiting: list[Callable[[], None]] = []
        self._device = device
        self._chance = random.Random(seed)

    def read(self, offset: int, length: int, done: Callable[[bytearray | OSError], None]) -> None:
        def end() -> None:
            data = bytearray(length)
            self._device.preadv([memoryview(data)], offset)
            done(data)

        self._begin(end, done)

    def write(self, data: memoryview | bytes | bytearray, offset: int, done: Done) -> None:
        self._begin(lambda: self._finish(lambda: self._device.pwritev([data], offset), done), done)

    def flush(self, done: Done) -> None:
        self._begin(lambda: self._finish(self._device.flush, done), done)

    def discard(self, offset: int, length: int, done: Done) -> None:
        self._begin(lambda: self._finish(lambda: self._device.discard(offset, length), done), done)

    def write_zeroes(self, offset: int, length: int, done: Done) -> None:
        self._begin(lambda: self._finish(lambda: self._device.write_zeroes(offset, length), done), done)

    def write_same(self, block: bytes, offset: int, length: int, done: Done) -> None:
        self._begin(lambda: self._finish(lambda: self._device.write_same(block, offset, length), done), done)

    def _finish(self, access: Callable[[], None], done: Done) -> None:
        access()
        done(None)

    def _begin(self, end: Callable[[], None], done: Callable[[OSError], None]) -> None:
        number = self.errors.pop(0) if self.errors else 0
        self.waiting.append((lambda: done(OSError(number, os.strerror(number)))) if number else end)
        self.most = max(self.most, len(self.waiting))
        os.eventfd_write(self.fd, 1)

    def reap(self) -> None:
        if self.held:
            return
        os.eventfd_read(self.fd)
        some = self.waiting[:]
        self.waiting.clear()
        self._chance.shuffle(some)
        for end in some:
            end()


class LateDevice(MemoryDevice):
    """A MemoryDevice with `late`."""

    def __init__(self, size: int, content: bytes = b"", seed: int = 0) -> None:
        super().__init__(size)
        self.data[: len(content)] = content
        self.late = self.overlapped = Late(self, seed)

    def close(self) -> None:
        os.close(self.late.fd)
