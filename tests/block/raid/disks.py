"""Disks for arrays: they fail, have bad sectors, and lose what was not flushed when the power goes."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

from blockyard.block.device import Device, Run
from blockyard.block.layers import Opening
from blockyard.block.raid.array import Array
from blockyard.block.raid.assembly import assemble
from blockyard.block.raid.creation import Plan, create

SECTOR = 4096


class Disk(Device):
    """What it held at the last flush, and each version of a sector since: after a loss of power any may be there."""

    granularity = SECTOR

    def __init__(self, size: int, label: str = "", stable: bytearray | None = None) -> None:
        self.size = size
        self.label = label
        self.now = bytearray(size) if stable is None else bytearray(stable)
        self.held = bytearray(self.now)
        self.cached: dict[int, list[bytes]] = {}
        self.dead = 0  # errno of everything
        self.bad: set[int] = set()  # sectors that cannot be read until they are written
        self.frail: set[int] = set()  # sectors that cannot be written
        self.before_flush: Callable[[], None] = lambda: None
        self.before_write: Callable[[], None] = lambda: None
        self.reads = self.writes = 0
        self.closed = False
        self._lock = Lock()  # of what is noted of a write or flush: arrays make several at a time

    def _check(self, offset: int, length: int, sectors: set[int]) -> None:
        assert 0 <= offset <= offset + length <= self.size, f"outside of {self.label}"
        if self.dead:
            raise OSError(self.dead, os.strerror(self.dead))
        if any(sector in sectors for sector in range(offset // SECTOR, -(-(offset + length) // SECTOR))):
            raise OSError(errno.EIO, "bad sector")

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._check(offset, sum(map(len, buffers)), self.bad)
        self.reads += 1
        for buffer in buffers:
            buffer[:] = self.now[offset : offset + len(buffer)]
            offset += len(buffer)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self.before_write()
        data = b"".join(buffers)
        self._check(offset, len(data), self.frail)
        with self._lock:
            self.writes += 1
            self.now[offset : offset + len(data)] = data
            for sector in range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)):
                self.bad.discard(sector)
                content = bytes(self.now[sector * SECTOR : (sector + 1) * SECTOR])
                versions = self.cached.setdefault(sector, [])
                if content not in versions:
                    versions.append(content)

    def flush(self) -> None:
        self.before_flush()
        self._check(0, 0, set())
        with self._lock:
            for sector in self.cached:
                self.held[sector * SECTOR : (sector + 1) * SECTOR] = self.now[sector * SECTOR : (sector + 1) * SECTOR]
            self.cached.clear()

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self.pwritev([bytes(length)], offset)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        yield Run(offset, length, any(self.now[offset : offset + length]))

    def close(self) -> None:
        self.closed = True

    def after_power_loss(self, chance: random.Random) -> Disk:
        """What may be on it then."""
        data = bytearray(self.held)
        for sector, versions in self.cached.items():
            content = chance.choice((None, *versions))
            if content is not None:
                data[sector * SECTOR : (sector + 1) * SECTOR] = content
        return Disk(self.size, self.label, data)

    def after_death(self) -> Disk:
        """What is on it when only the process has ended."""
        return Disk(self.size, self.label, self.now)


SIZE = 512 << 10


def made(plan: Plan, count: int, spares: int = 0, size: int = SIZE) -> list[Disk]:
    """Disks with an array."""
    disks = [Disk(size, f"/d{number}") for number in range(count + spares)]
    create(disks[:count], plan, spares=disks[count:])
    return disks


def opened(disks: Sequence[Device], level: int | None = None, *, read_only: bool = False, force: bool = False) -> Array:
    return assemble(disks, level, Opening(read_only=read_only), force=force)


def work(array: Array) -> None:
    """Do all that is to be done in the background."""
    while array.background.step():
        pass
    for _ in range(2):
        array.tidy()


def read(device: Device, offset: int, length: int) -> bytes:
    data = bytearray(length)
    device.preadv([memoryview(data)], offset)
    return bytes(data)


PLANS = {
    "raid0": (Plan(0, chunk=8192, journal_size=65536), 3, 0),
    "raid1": (Plan(1, region=32768), 2, 1),
    "raid1 of three": (Plan(1, region=32768), 3, 2),
    "raid10": (Plan(10, chunk=8192, region=32768, journal_size=65536), 4, 1),
    "raid10 of three": (Plan(10, chunk=4096, region=32768, journal_size=65536), 3, 1),
    "raid5": (Plan(5, chunk=8192, region=32768, journal_size=131072), 4, 1),
    "raid5 with journal": (Plan(5, chunk=4096, region=32768, journal_size=65536, journal=True), 3, 1),
    "raid6": (Plan(6, chunk=8192, region=32768, journal_size=131072), 5, 2),
    "raid6 with journal": (Plan(6, chunk=4096, region=32768, journal_size=65536, journal=True), 4, 2),
}  # name → plan, members, how many of any may be lost
