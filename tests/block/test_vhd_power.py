"""Images of every growing kind against a plain model; the process dies, and power is lost with any part of what was not flushed.

Then the image opens; what was flushed and not written since is there; and what was written since is, sector by sector, the old or
one of the new.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from blockyard.block.device import Device
from blockyard.block.parents import Wanted
from blockyard.block.vhd import open_vhd
from blockyard.block.vhd_creation import write_vhd
from blockyard.block.vhdx import open_vhdx
from blockyard.block.vhdx_creation import write_vhdx
from tests.block.disks import SECTOR, Disk
from tests.block.power import Sectors

BLOCKS = 7


def no_parent(wanted: Wanted) -> Device:
    raise AssertionError("it has no parent")


class Images(Sectors):
    """Writes, zeros, flushes, openings; and power that fails."""

    format: ClassVar[str] = "vhd"
    granularity: ClassVar[int] = SECTOR
    on_parent: ClassVar[bool] = False
    block: ClassVar[int] = 4096

    def __init__(self) -> None:
        super().__init__()
        self.sectors = self.block // SECTOR
        self.size = BLOCKS * self.block - 3 * SECTOR  # the last block is not whole
        inside = {*range(5), *range(self.sectors // 2, self.sectors // 2 + 3), *range(self.sectors - 6, self.sectors)}
        self.follow(block * self.sectors + sector for block in range(BLOCKS) for sector in sorted(inside))
        self.base: Device | None = None
        if self.on_parent:
            self.make_base()
        self.disk = Disk(self.granularity)
        self.make(self.disk, self.base)
        self.settled()
        self.open()

    def make(self, disk: Disk, parent: Device | None) -> None:
        if self.format == "vhd":
            write_vhd(disk, "image", self.size, "dynamic", block_size=self.block, parent=parent)
        else:
            write_vhdx(disk, "image", self.size, "dynamic", block_size=self.block, sector_size=0, parent=parent)

    def make_base(self) -> None:
        disk = Disk()
        self.make(disk, None)
        self.disk = disk
        self.open()
        for cell in self.cells[::2]:
            self.now[cell] = next(self.bytes)
            self.image.pwritev([bytes([self.now[cell]]) * SECTOR], cell * SECTOR)
        self.image.close()
        disk.read_only = True
        self.open()
        self.base = self.image

    @property
    def disk_now(self) -> Device:
        return self.image

    def open(self) -> None:
        parent_of = no_parent if self.base is None else lambda wanted: self.base
        opener = open_vhd if self.format == "vhd" else open_vhdx
        self.image: Device = opener(self.disk, "image", parent_of)

    @rule(data=st.data(), count=st.integers(1, 4))
    def write(self, data: st.DataObject, count: int) -> None:
        cell = data.draw(st.sampled_from(self.cells))
        self.write_some(cell, count)

    @rule(block=st.integers(0, BLOCKS - 1))
    def write_a_block(self, block: int) -> None:
        self.write_some(block * self.sectors, self.sectors)

    def write_some(self, start: int, count: int) -> None:
        end = min(start + count, self.size // SECTOR)
        byte = next(self.bytes)
        self.image.pwritev([bytes([byte]) * SECTOR * (end - start)], start * SECTOR)
        self.changed(start, end, byte)

    @rule(data=st.data(), count=st.integers(1, 6), whole=st.booleans(), free=st.booleans())
    def zero(self, data: st.DataObject, count: int, whole: bool, free: bool) -> None:
        if whole:
            start, count = data.draw(st.integers(0, BLOCKS - 1)) * self.sectors, self.sectors * (count % 2 + 1)
        else:
            start = data.draw(st.sampled_from(self.cells))
        end = min(start + count, self.size // SECTOR)
        (self.image.discard if free else self.image.write_zeroes)(start * SECTOR, (end - start) * SECTOR)
        self.changed(start, end, 0)

    @rule(count=st.sampled_from((20, 60, 200)), every=st.sampled_from((9, 40, 1000)))
    def much_goes_on(self, count: int, every: int) -> None:
        """More than the log of a VHDX has room for."""
        for number in range(count):
            block = number % BLOCKS
            if number % (2 * BLOCKS) < BLOCKS:
                self.write_some(block * self.sectors + number % 4, 1)
            else:
                end = min((block + 1) * self.sectors, self.size // SECTOR)
                self.image.discard(block * self.block, end * SECTOR - block * self.block)
                self.changed(block * self.sectors, end, 0)
            if number % every == every - 1:
                self.flush()

    @rule()
    def flush(self) -> None:
        self.image.flush()
        self.settled()

    @rule()
    def close_and_open(self) -> None:
        base, self.base = self.base, None
        if base is not None:
            self.image.parent = None  # type: ignore[attr-defined]
        self.image.close()
        self.base = base
        self.disk.lose_power(0, 0)  # close has flushed
        self.open()
        self.settled()

    @rule()
    def the_process_dies(self) -> None:
        self.open()

    @rule()
    def somebody_else_reads(self) -> None:
        """Who may not write sees the same, without changing the file."""
        before, self.disk.read_only = bytes(self.disk.seen), True
        image = self.image
        self.open()
        self.reads_as_written()
        self.disk.read_only, self.image = False, image
        assert self.disk.seen == before

    @rule(seed=st.integers(0, 1 << 32), density=st.sampled_from((0.0, 0.2, 0.5, 0.8, 0.97, 1.0)))
    def the_power_fails(self, seed: int, density: float) -> None:
        self.disk.lose_power(seed, density)
        self.open()
        self.check_survivors()
        self.image.flush()
        self.disk.flush()
        self.settled()

    @rule(
        data=st.data(),
        count=st.integers(1, 3),
        seed=st.integers(0, 1 << 32),
        density=st.sampled_from((0.2, 0.5, 0.8, 0.97)),
    )
    def the_power_fails_after_a_write(self, data: st.DataObject, count: int, seed: int, density: float) -> None:
        self.write(data, count)
        self.the_power_fails(seed, density)


def test_a_part_of_the_length_was_lost_with_the_power() -> None:
    """Behind the last block is the beginning of one that nothing leads to: it is free, and shorter than a block."""
    disk = Disk()
    write_vhdx(disk, "image", 8 << 20, "dynamic", block_size=1 << 20, sector_size=0, parent=None)
    disk.pwritev([b"x" * SECTOR], (disk.size + (1 << 19)) & -SECTOR)
    for byte in b"ab":
        image = open_vhdx(disk, "image", no_parent)
        image.pwritev([bytes([byte]) * SECTOR], (byte - ord("a")) << 20)
        image.close()
    image = open_vhdx(disk, "image", no_parent)
    data = bytearray(1 << 20)
    image.preadv([memoryview(data)], 0)
    assert data == b"a" * SECTOR + bytes((1 << 20) - SECTOR)


class DynamicVhd(Images):
    pass


class DynamicVhdOnADiskThatCannotDiscard(Images):
    granularity = 0


class DifferencingVhd(Images):
    on_parent = True


class DynamicVhdx(Images):
    format = "vhdx"
    block = 1 << 20


class DifferencingVhdx(DynamicVhdx):
    on_parent = True


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize(
    "machine", [DynamicVhd, DynamicVhdOnADiskThatCannotDiscard, DifferencingVhd, DynamicVhdx, DifferencingVhdx]
)
def test_for_long(machine: type[Images]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=1000, stateful_step_count=80, deadline=None))


_SHORT = settings(max_examples=35, stateful_step_count=40, deadline=None)
_FEW = settings(max_examples=6, stateful_step_count=20, deadline=None)
DynamicVhd.TestCase.settings = _SHORT
DynamicVhdOnADiskThatCannotDiscard.TestCase.settings = _SHORT
DifferencingVhd.TestCase.settings = _SHORT
DynamicVhdx.TestCase.settings = _FEW
DifferencingVhdx.TestCase.settings = _FEW
TestDynamicVhd = DynamicVhd.TestCase
TestDynamicVhdOnADiskThatCannotDiscard = DynamicVhdOnADiskThatCannotDiscard.TestCase
TestDifferencingVhd = DifferencingVhd.TestCase
TestDynamicVhdx = DynamicVhdx.TestCase
TestDifferencingVhdx = DifferencingVhdx.TestCase
