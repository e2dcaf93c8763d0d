"""Loss of power: whatever part of what was not flushed has reached the disk, every promise holds.

The member is a recording disk: it knows what was flushed, and each write since. A crash keeps any subset of these, torn at
4 KiB. The store has what its last commit had. Then

* what was flushed and not written since is there,
* what was written since is, sector by sector, the old or one of the new,
* snapshots are what they were,
* and nothing shows another volume's bytes.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from blockyard.block.device import Device, Run
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.memory import FAST
from tests.pool import roads

SECTOR = 4096
SHIFT = 13  # a chunk of two sectors, so that a write of one has to copy the other
CHUNKS = 4
SIZE = CHUNKS << SHIFT


class Disk(Device):
    """A disk with a volatile cache: `safe` is what survives, `cached` what has been written since the last flush.

    What it shows is in a file in memory, so that there is a short road to it. Of what is written by that road `look` finds out.
    """

    nowait = False

    def __init__(self, size: int, granularity: int) -> None:
        self.size = size
        self.granularity = granularity
        self.safe = bytearray(size)
        self.fd = os.memfd_create("disk", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.seen = mmap.mmap(self.fd, size)
        self.known = bytearray(size)  # of what is to be seen
        self.cached: list[tuple[int, bytes]] = []  # sector, what was written there
        self.flush_fails = False

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            buffer[:] = self.seen[offset : offset + len(buffer)]
            offset += len(buffer)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        data = b"".join(buffers)
        self.seen[offset : offset + len(data)] = data
        self._note(range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)))

    def _note(self, sectors: Iterable[int]) -> None:
        for sector in sectors:
            data = self.seen[sector * SECTOR : (sector + 1) * SECTOR]
            self.cached.append((sector, data))
            self.known[sector * SECTOR : (sector + 1) * SECTOR] = data

    def look(self) -> None:
        """Find out what has been written by the short road: after each time that it may have been."""
        with memoryview(self.seen) as seen, memoryview(self.known) as known:
            sectors = _different(seen, known, 0, len(known))
        self._note(sectors)

    def flush(self) -> None:
        if self.flush_fails:
            raise OSError(errno.EIO, "The power fails")
        self.safe[:] = self.seen
        self.cached.clear()

    def write_zeroes(self, offset: int, length: int) -> None:
        for at in range(offset, offset + length, SECTOR):
            if any(self.seen[at : at + SECTOR]) or any(self.safe[at : at + SECTOR]):
                self.pwritev([bytes(SECTOR)], at)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        yield Run(offset, length, True)

    def close(self) -> None:
        """What was not flushed is as it was."""

    def dispose(self) -> None:
        self.seen.close()
        os.close(self.fd)

    def lose_power(self, kept: Sequence[bool]) -> None:
        """Keep those of the cached writes for which `kept` says so, in any order of their own."""
        for (sector, data), keep in zip(self.cached, kept, strict=True):
            if keep:
                self.safe[sector * SECTOR : (sector + 1) * SECTOR] = data
        self.seen[:] = self.known[:] = self.safe
        self.cached.clear()
        self.flush_fails = False


def _different(one: memoryview, other: memoryview, start: int, end: int) -> list[int]:
    """The sectors between two offsets in which two views differ."""
    if one[start:end] == other[start:end]:
        return []
    if end - start == SECTOR:
        return [start // SECTOR]
    middle = (start + end) // 2 // SECTOR * SECTOR
    return _different(one, other, start, middle) + _different(one, other, middle, end)


class Power(RuleBasedStateMachine):
    """Writes, flushes, snapshots; and then the power fails."""

    granularity = SECTOR

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="blockyard-pool-", dir=FAST))
        self.disk = Disk(8 << 20, self.granularity)
        create_pool(self.directory, ["disk"], lambda name: self.disk)
        self.boot = 0
        self.bytes = itertools.cycle(range(1, 256))
        self.now: dict[str, list[bytes]] = {}  # by volume: each sector as it reads now
        self.possible: dict[str, list[set[bytes]]] = {}  # and all that it may be after a crash
        self.snapshots: dict[tuple[str, str], list[bytes]] = {}
        self.labels = map("s{}".format, itertools.count())
        self.open()
        for name in ("a", "b"):
            self.pool.create_volume(name, SIZE, SHIFT, checksums=name == "b")
            self.now[name] = [bytes(SECTOR)] * (SIZE // SECTOR)
            self.possible[name] = [{sector} for sector in self.now[name]]
        self.attach()

    def open(self) -> None:
        self.pool = Pool(self.directory, lambda name: self.disk, boot=f"boot-{self.boot}".ljust(36))

    def attach(self) -> None:
        self.devices = {name: VolumeDevice(self.pool, name) for name in self.now}

    def teardown(self) -> None:
        self.pool.abandon()
        self.disk.dispose()
        shutil.rmtree(self.directory)

    @rule(
        name=st.sampled_from("ab"),
        start=st.integers(0, SIZE // SECTOR - 1),
        count=st.integers(1, 3),
        short=st.booleans(),
    )
    def write(self, name: str, start: int, count: int, short: bool) -> None:
        data = bytes([next(self.bytes)]) * SECTOR
        end = min(start + count, SIZE // SECTOR)
        roads.write(self.devices[name], data * (end - start), start * SECTOR, short=short)
        self.disk.look()
        self._changed(name, start, end, data)

    @rule(name=st.sampled_from("ab"), start=st.integers(0, SIZE // SECTOR - 1), count=st.integers(1, 4))
    def discard(self, name: str, start: int, count: int) -> None:
        end = min(start + count, SIZE // SECTOR)
        self.devices[name].discard(start * SECTOR, (end - start) * SECTOR)
        self._changed(name, start, end, bytes(SECTOR))

    def _changed(self, name: str, start: int, end: int, data: bytes) -> None:
        for sector in range(start, end):
            self.now[name][sector] = data
            self.possible[name][sector].add(data)

    @rule()
    def flush(self) -> None:
        self.pool.flush()
        self._all_is_stable()

    def _all_is_stable(self) -> None:
        self.possible = {name: [{sector} for sector in sectors] for name, sectors in self.now.items()}

    @rule(name=st.sampled_from("ab"))
    def snapshot(self, name: str) -> None:
        label = next(self.labels)
        self.pool.snapshot([name], label, float(len(self.snapshots)))
        self.snapshots[name, label] = list(self.now[name])
        self._all_is_stable()  # a snapshot is a commit

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def delete_snapshot(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.pool.delete_snapshot(*key)
        del self.snapshots[key]
        while self.pool.work_off():
            pass
        self._all_is_stable()

    @rule(data=st.data(), in_commit=st.booleans(), same_boot=st.just(False))
    def the_power_fails(self, data: st.DataObject, in_commit: bool, same_boot: bool) -> None:
        if in_commit and self.pool.dirty:
            self.disk.flush_fails = True
            with pytest.raises(OSError, match="power"):
                self.pool.flush()
        cached = len(self.disk.cached)
        kept = data.draw(st.lists(st.booleans(), min_size=cached, max_size=cached))
        self.pool.abandon()
        self.disk.lose_power(kept)
        self.boot += not same_boot
        self.open()
        self.attach()
        for name, sectors in self.possible.items():
            self.now[name] = self._read(self.devices[name])
            for number, (found, possible) in enumerate(zip(self.now[name], sectors, strict=True)):
                assert found in possible, f"sector {number} of {name} is {found[:1].hex()}"
        self.pool.flush()
        self._all_is_stable()
        self.snapshots_are_what_they_were()
        assert self.pool.check().findings == []

    @rule()
    def snapshots_are_what_they_were(self) -> None:
        for (name, label), expected in self.snapshots.items():
            (found,) = [each for each in self.pool.snapshots(name) if each.name == label]
            assert self._read(SnapshotDevice(self.pool, found)) == expected

    @rule()
    def volumes_read_as_written(self) -> None:
        for name, expected in self.now.items():
            assert self._read(self.devices[name]) == expected

    @staticmethod
    def _read(device: Device) -> list[bytes]:
        data = bytearray(SIZE)
        device.preadv([memoryview(data)], 0)
        return [bytes(data[at : at + SECTOR]) for at in range(0, SIZE, SECTOR)]


class PowerOnADiskThatCannotDiscard(Power):
    granularity = 0


Power.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
PowerOnADiskThatCannotDiscard.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPower = Power.TestCase
TestPowerOnADiskThatCannotDiscard = PowerOnADiskThatCannotDiscard.TestCase
