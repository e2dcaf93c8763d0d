"""Growing and compacting: wherever power is lost, the image opens and holds what it held; and disks as large as can be."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from blockyard.block.device import Device
from blockyard.block.image_states import ImageError
from blockyard.block.parents import Wanted
from blockyard.block.vhd import DynamicVhd, FixedVhd, open_vhd
from blockyard.block.vhd_creation import write_vhd
from blockyard.block.vhd_layout import MAX_SIZE as VHD_MOST
from blockyard.block.vhdx import Vhdx, open_vhdx
from blockyard.block.vhdx_creation import write_vhdx
from blockyard.block.vhdx_layout import MAX_SIZE as VHDX_MOST
from tests.block.disks import SECTOR, Disk

KIB, MIB = 1 << 10, 1 << 20
Image = DynamicVhd | FixedVhd | Vhdx
KINDS = pytest.mark.parametrize(("format", "kind"), [("vhd", "dynamic"), ("vhd", "fixed"), ("vhdx", "dynamic")])


class Failing(Disk):
    """Its power fails at one of the operations: what has not been flushed then, and that one, may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    def count(self) -> None:
        if self.left == 0:
            raise PowerError
        self.left -= 1

    def pwritev(self, buffers: list[bytes], offset: int) -> None:  # type: ignore[override]
        if self.left == 0:
            super().pwritev(buffers, offset)  # some of it may have reached the disk
        self.count()
        super().pwritev(buffers, offset)

    def truncate(self, size: int) -> None:
        self.count()
        super().truncate(size)

    def flush(self) -> None:
        self.count()
        super().flush()


class PowerError(Exception):
    pass


def no_parent(wanted: Wanted) -> Device:
    raise AssertionError("it has no parent")


def opened(disk: Disk, format: str) -> Image:
    return open_vhd(disk, "image", no_parent) if format == "vhd" else open_vhdx(disk, "image", no_parent)


def make(disk: Disk, format: str, kind: str, size: int = 0) -> int:
    """An image of six blocks; their size."""
    if format == "vhd":
        write_vhd(disk, "image", size or 6 * 4096, kind, block_size=4096, parent=None)
        return 4096
    write_vhdx(disk, "image", size or 6 * MIB, kind, block_size=MIB, sector_size=0, parent=None)
    return MIB


def content(image: Device, block: int) -> bytes:
    """The first sector of each block, and the last one."""
    found = b""
    for start in range(0, image.size, block):
        for at in (start, start + block - SECTOR):
            data = bytearray(SECTOR)
            image.preadv([memoryview(data)], at)
            found += data
    return found


def lose_power_everywhere(
    disk: Failing, format: str, work: Callable[[Image], None], check: Callable[[Image], None], step: int = 1
) -> int:
    """Do some work again and again, each time with power lost `step` operations later; how many operations it has."""
    count = 0
    while True:
        for seed, density in ((1, 0.0), (2, 1.0), (3, 0.6)):
            trial = copy.deepcopy(disk)
            image = opened(trial, format)
            trial.left = count
            try:
                work(image)
                done = True
            except PowerError:
                done = False
            trial.left = -1
            trial.lose_power(seed, density)
            after = opened(trial, format)
            check(after)
            after.pwritev([b"\x99" * SECTOR], 0)  # and it can be used
            after.flush()
            check_first(opened(trial, format))
        if done:
            return count
        count += step


def check_first(image: Device) -> None:
    data = bytearray(SECTOR)
    image.preadv([memoryview(data)], 0)
    assert data == b"\x99" * SECTOR


@KINDS
def test_growing(format: str, kind: str) -> None:
    disk = Failing()
    block = make(disk, format, kind)
    image = opened(disk, format)
    for number in (4, 1):
        image.pwritev([bytes([number + 1]) * block], number * block)
    image.flush()
    if isinstance(image, Vhdx):
        image.close()
    old, before = image.size, content(image, block)
    new = 200 * 4096 if format == "vhd" else 200_000 * MIB  # longer than the BAT

    def work(image: Image) -> None:
        image.grow(new)

    def check(image: Image) -> None:
        assert image.size in (old, new)
        data = bytearray(2 * block)
        image.preadv([memoryview(data)], old - 2 * block)
        assert content_of(data, block) == before[-4 * SECTOR :]
        if image.size == new and kind != "fixed":
            image.preadv([memoryview(data)], new - 2 * block)
            assert not any(data)

    assert lose_power_everywhere(disk, format, work, check) > 3


def content_of(data: bytearray, block: int) -> bytes:
    found = b""
    for start in range(0, len(data), block):
        found += data[start : start + SECTOR] + data[start + block - SECTOR : start + block]
    return found


@pytest.mark.parametrize("format", ["vhd", "vhdx"])
def test_compacting(format: str) -> None:
    disk = Failing()
    block = make(disk, format, "dynamic")
    image = opened(disk, format)
    for number in (2, 5, 3, 0, 1, 4):
        image.pwritev([bytes([number + 1]) * block], number * block)
    image.discard(2 * block, 2 * block)
    image.write_zeroes(5 * block, block)
    image.flush()
    if isinstance(image, Vhdx):
        image.close()
    before, length = content(opened(disk, format), block), len(disk.seen)
    shortest = [length]

    def work(image: Image) -> None:
        assert not isinstance(image, FixedVhd)
        image.free_zeros(lambda done, total: None)
        while image.move_down(lambda done, total: None):
            image.flush()
        image.shorten()
        shortest[0] = min(shortest[0], image.below.size)

    def check(image: Image) -> None:
        assert content(image, block) == before

    assert lose_power_everywhere(disk, format, work, check, step=1 if format == "vhd" else 6) > 10
    assert shortest[0] <= length - 3 * block


def test_the_largest_disks() -> None:
    for format, size in (("vhdx", VHDX_MOST), ("vhd", VHD_MOST)):
        disk = Disk()
        if format == "vhdx":
            write_vhdx(disk, "image", size, "dynamic", block_size=0, sector_size=4096, parent=None)
        else:
            write_vhd(disk, "image", size, "dynamic", block_size=0, parent=None)
        image = opened(disk, format)
        assert image.size == size
        image.pwritev([b"\x77" * 4096], size - 4096)
        image.close()
        image = opened(disk, format)
        data = bytearray(8192)
        image.preadv([memoryview(data)], size - 8192)
        assert data == bytes(4096) + b"\x77" * 4096
        runs = list(image.runs(0, size))
        assert [run.mapped for run in runs] == [False, True]
        assert runs[1].offset + runs[1].length == size
        with pytest.raises(ImageError, match="at most"):
            image.grow(size + 4096)
